"""A setting that would have no effect in its combination is refused, by one table."""

import dataclasses

import pytest

from gpt_numpy.commands import main
from gpt_numpy.errors import ConfigError
from gpt_numpy.training import Settings, config_file
from gpt_numpy.training.plan.relevance import CONDITIONS, Circumstances, check_relevant, condition_of, unused
from gpt_numpy.training.plan.resolving import plan_run
from gpt_numpy.training.ranks.distributed import Alone


def refused(settings, name, **options):
    with pytest.raises(ConfigError, match=f"^{name}: |, {name}: "):
        plan_run(settings, Alone(), **options)


@pytest.mark.parametrize(
    "changes", [{"tokenizer": "char"}, {"tokenizer": "misspelt/"}, {"vocab_size": 4096}, {"preset": "gpt2-xl"}]
)
def test_beside_a_model(tiny, model_folder, changes):
    settings = tiny(**{"init_from": str(model_folder), "tokenizer": "bpe", "preset": "small-cpu", **changes})
    refused(settings, next(iter(changes)))


def test_beside_a_model_what_agrees_is_accepted(tiny, model_folder):
    plan_run(tiny(init_from=str(model_folder), tokenizer="bpe", preset="tiny", vocab_size=300), Alone())


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": "char"},
        {"vocab_size": 300},
        {"separator": "\n\n"},
        {"specials": "refuse"},
        {"errors": "replace"},
        {"encoding": "utf-16"},
        {"text_field": "content"},
        {"split": "line"},
        {"normalize": ("nfkc",)},
        {"validation_fraction": 0.2},
        {"split_seed": 5},
    ],
)
def test_beside_prepared_shards(tiny, prepared, changes):
    settings = tiny(**{"data": (str(prepared()),), "order": "epochs", "tokenizer": "bpe", **changes})
    refused(settings, next(iter(changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"zero": True},
        {"decay_steps": 5},
        {"decay_steps": 5, "schedule": "linear"},
        {"final_fraction": 0.3, "schedule": "constant"},
        {"prompt": "the cat"},
        {"sample_tokens": 7},
        {"vocab_size": 400},
        {"text_field": "content"},
        {"decay_groups": ("wqe.*=0.1",)},
    ],
)
def test_alone(tiny, changes):
    refused(tiny(**changes), next(iter(changes)))


@pytest.mark.parametrize("changes", [{"rope_theta": 5e5}, {"rope_theta": 10_000.0}, {"window_from": 0}])
def test_settings_of_parts_that_the_model_does_not_have(tiny, changes):
    refused(tiny(**changes), next(iter(changes)))
    plan_run(tiny(**changes, preset="llama-tiny", sliding_window=9), Alone())


def test_settings_of_other_kinds_of_files(tiny, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join('{"content": "the cat sat on the mat again and again"}' for _ in range(300)))
    plan_run(tiny(data=(str(path),), text_field="content"), Alone())
    refused(tiny(data=(str(path),), separator="|", text_field="content"), "separator")
    for changes in ({"errors": "replace"}, {"encoding": "cp1252"}, {"separator": "|"}):
        refused(tiny(data=("python-docs",), **changes), next(iter(changes)))


def test_a_flag_counts_even_with_the_default_s_value(tiny, model_folder, capsys):
    settings = tiny(init_from=str(model_folder), tokenizer="bpe", preset="small-cpu")
    plan_run(settings, Alone())
    refused(settings, "preset", given={"preset"})
    words = [
        "train",
        "--dry-run",
        "--init-from",
        str(model_folder),
        "--data",
        settings.data[0],
        "--preset",
        "small-cpu",
    ]
    assert main(words) == 2
    assert "preset" in capsys.readouterr().err


def test_every_condition_is_used_and_can_hold_and_fail():
    fields = dataclasses.fields(Settings)
    assert {field.metadata.get("when") for field in fields} - {None} == set(CONDITIONS)
    facts = [
        Circumstances(True, True),
        Circumstances(files=frozenset({"text", "json"}), mpi=True),
        Circumstances(files=frozenset({"built-in"})),
    ]
    settings = [
        Settings(),
        Settings(init_from="M", block_size=5, sample_every=0, schedule="constant"),
        Settings(init_from="M", sample_every=0),
        Settings(schedule="wsd", split="json"),
        Settings(preset="llama-tiny", sliding_window=3),
    ]
    for name, condition in CONDITIONS.items():
        assert {bool(condition.holds(s, c)) for s in settings for c in facts} == {True, False}, name


def test_the_defaults_are_never_refused():
    for facts in (Circumstances(True, True), Circumstances(files=frozenset({"built-in"}))):
        check_relevant(Settings(), facts)


def test_the_written_settings_show_what_has_no_effect(tiny, prepared):
    settings = tiny(data=(str(prepared()),), order="epochs", tokenizer="bpe")
    plan = plan_run(settings, Alone())
    text = config_file.format(plan.settings, plan.unused)
    line = next(line for line in text.splitlines() if "tokenizer = " in line)
    assert line.startswith("# ") and line.endswith("only with plain text, not prepared shards")
    assert "seed = 3" in text.splitlines()[-1] or any(line.startswith("seed = 3") for line in text.splitlines())


def test_help_names_the_conditions(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Settings):
        if (condition := condition_of(field)) is not None:
            assert f"only with {condition.text}" in text


def test_unused_names_the_condition():
    found = unused(Settings(), Circumstances(files=frozenset({"text"})))
    assert found["zero"] == "--mpi" and "seed" not in found and "separator" not in found
