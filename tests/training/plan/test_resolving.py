"""Checks before the first step, and what a resumed run accepts as the same."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.data import Reading, reading_of
from gpt_numpy.errors import ConfigError, DataError, TokenizerError
from gpt_numpy.machine import memory
from gpt_numpy.tokenizer import CharTokenizer
from gpt_numpy.training import Settings, resume, start
from gpt_numpy.training.checkpoint import list_checkpoints
from gpt_numpy.training.evaluation import evaluate
from gpt_numpy.training.plan.corpus import Corpus
from gpt_numpy.training.plan.resolving import plan_run
from gpt_numpy.training.ranks.distributed import Alone
from gpt_numpy.training.watcher import sample


def plan(settings):
    return plan_run(settings, Alone())


@pytest.mark.parametrize("epsilon", [0.0, 1e-50])
def test_an_epsilon_that_is_0_in_float32(tiny, tmp_path, epsilon):
    with pytest.raises(ConfigError, match="epsilon: is 0 in float32"):
        start(tiny(epsilon=epsilon), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip"])
def test_a_number_that_float32_cannot_hold(tiny, name):
    with pytest.raises(ConfigError, match=f"{name}: too large for float32"):
        plan(tiny(**{name: 1e39}))


@pytest.mark.parametrize("tokenizer,needed", [("char", 33), ("bpe", 33)])
def test_a_text_shorter_than_a_block_states_both_lengths(tiny, tmp_path, tokenizer, needed):
    (tmp_path / "t.txt").write_text("hello world")
    with pytest.raises(DataError, match=f"training text has [0-9]+ tokens.*at least {needed}"):
        start(tiny(data=(str(tmp_path / "t.txt"),), tokenizer=tokenizer), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_text_of_one_token(tiny, tmp_path):
    (tmp_path / "t.txt").write_text("hello world " * 9)
    with pytest.raises(DataError, match="validation text has 1 token:.*at least 2"):
        plan(tiny(data=(str(tmp_path / "t.txt"),), validation_fraction=0.01, block_size=8))


def test_nothing_to_predict(tiny):
    tokens = np.full(200, 2, np.uint16)
    tokenizer = CharTokenizer("ab", ("<|endoftext|>",))
    corpus = Corpus(tokenizer, tokens, tokens, np.array([1, 1, 0]))
    from gpt_numpy.training.plan.batches import Batches

    apart = Batches(tiny(documents="apart"), corpus, 8)
    with pytest.raises(DataError, match="no token to predict.*end-of-text only"):
        apart.check_targets()
    Batches(tiny(), corpus, 8).check_targets()
    model = GPT(GPTConfig(3, 8, 1, 2, 8), 1, ops=layers)
    with pytest.raises(DataError, match="no token to predict"):
        evaluate(model, corpus, 4, mask=apart.masked)


def test_a_prompt_that_cannot_be_encoded(tiny, tmp_path):
    settings = tiny(prompt="Ω", sample_every=5)
    with pytest.raises(TokenizerError, match="Ω"):
        start(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_preset_for_studying_fits_its_own_defaults(text_file, capsys):
    assert main(["train", "--dry-run", "--preset", "tiny", "--data", str(text_file)]) == 0
    assert "tokenizer   a new bpe tokenizer, trained on the data" in capsys.readouterr().out


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "--tokenizer", "char", "--data", str(text_file), "--out", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        *("text", "tokenizer", "training", "validation", "model", "step", "output")
    ]
    assert not os.listdir(tmp_path)


# ---- encodings and kinds of files, as data prepare has them ----------------------------------------------------


def test_files_in_other_encodings(tiny, tmp_path, texts):
    plain = plan(tiny()).corpus
    for encoding in ("utf-16", "cp1252"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes(texts["own"].encode(encoding))
        read = plan(tiny(data=(str(path),), encoding=encoding)).corpus
        assert read.fingerprint() == plain.fingerprint()
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"content": texts["own"]}) + "\n")
    assert plan(tiny(data=(str(records),), text_field="content")).corpus.fingerprint() == plain.fingerprint()


def test_the_same_file_named_twice_would_be_in_both_splits(tiny, text_file):
    with pytest.raises(DataError, match="same file"):
        plan(tiny(data=(str(text_file), str(text_file.parent))))


# ---- how text is read, recorded ------------------------------------------------------------------------------


def test_a_run_and_its_checkpoints_say_how_text_is_read(tiny, tmp_path, texts):
    crlf = tmp_path / "crlf.txt"
    crlf.write_bytes(("\ufeff" + texts["own"].replace("\n", "\r\n")).encode())
    start(tiny(data=(str(crlf),)), tmp_path / "run")
    _, newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    for folder in (tmp_path / "run", newest):
        reading = reading_of(folder)
        assert reading.normalize == ("bom", "nfc", "newlines") and reading.documents == "joined"
        assert reading.block_size == 32 and len(reading.tokenizer_sha256) == 64
        assert reading.normalized("\ufeffa\r\nb") == "a\nb"
    assert reading_of(tmp_path) is None
    start(tiny(data=(str(crlf),), normalize=()), tmp_path / "raw")
    assert reading_of(tmp_path / "raw").normalized("a\r\nb") == "a\r\nb"


@pytest.mark.parametrize("damage", [{"format": "x"}, {"normalize": ["nope"]}, {"normalize": "nfc"}, {"extra": 1}])
def test_a_damaged_record_is_refused(tmp_path, damage):
    fields = {**Reading(("nfc",)).fields(), **damage}
    (tmp_path / "reading.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="reading.json"):
        reading_of(tmp_path)


def test_a_record_comes_back_as_it_was(tmp_path):
    reading = Reading(("nfc", "newlines"), separator="\n\n", documents="apart", row_length=9, block_size=8)
    (tmp_path / "reading.json").write_bytes(reading.to_json())
    assert reading_of(tmp_path) == reading


def test_a_prompt_is_normalised_as_the_text_was(tiny):
    settings = tiny(sample_every=5, prompt="the cat\r\n")
    corpus = plan(settings).corpus
    model = GPT(settings.model_config(corpus.tokenizer.n_vocab), seed=2, ops=layers)
    assert sample(model, corpus, "the cat\r\n", 9, seed=5).startswith("the cat\n")


def test_ids_without_text_are_never_drawn(tiny, tokenizers):
    corpus = plan(tiny(tokenizer="bpe", vocab_size=300)).corpus
    model = GPT(GPTConfig.preset("tiny", vocab_size=320), seed=1, ops=layers)
    model.params["wte.weight"][310] *= 50
    for seed in range(5):
        assert sample(model, corpus, "the cat", 20, seed=seed).startswith("the cat")


# ---- resumed elsewhere ---------------------------------------------------------------------------------------


@pytest.fixture
def moved(tiny, tmp_path, texts, monkeypatch):
    """A run started inside ``p`` with relative paths; the test goes on in ``tmp_path``."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.txt").write_text(texts["own"], encoding="utf-8")
    monkeypatch.chdir(tmp_path / "p")
    start(tiny(data=("a.txt",)), "r")
    monkeypatch.chdir(tmp_path)


def test_from_another_working_directory(moved):
    assert resume("p/r", {"max_steps": 14}).step == 14


def test_with_a_folder_that_was_moved_whole(moved):
    os.rename("p", "q")
    assert resume("q/r", {"max_steps": 14}).step == 14


def test_with_data_that_were_moved_and_named(moved, capsys):
    os.rename("p/a.txt", "elsewhere.txt")
    with pytest.raises(DataError, match="a.txt"):
        resume("p/r", {"max_steps": 14})
    assert resume("p/r", {"max_steps": 14, "data": ("elsewhere.txt",)}).step == 14
    assert resume("p/r", {"max_steps": 15}).step == 15  # where it was found the last time
    text = Path("elsewhere.txt").read_text(encoding="utf-8")
    with open("elsewhere.txt", "w", encoding="utf-8") as file:
        file.write(text.replace("cat", "cow"))
    with pytest.raises(DataError, match="not the data"):
        resume("p/r", {"max_steps": 16})


def test_shards_that_were_prepared_again_from_another_place(tiny, tmp_path, prepared):
    folder = prepared()
    start(tiny(data=(str(folder),), tokenizer="bpe", order="epochs"), tmp_path / "run")
    os.rename(tmp_path / "documents-own", tmp_path / "documents-moved")
    from gpt_numpy.data import Settings as Preparation
    from gpt_numpy.data import prepare
    from gpt_numpy.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer")
    shutil.rmtree(folder)
    prepare([str(tmp_path / "documents-moved")], tokenizer, folder, Preparation(validation_every=5))
    assert resume(tmp_path / "run", {"max_steps": 13}).step == 13


def test_a_run_from_before_the_split_had_its_own_seed(tiny, tmp_path):
    from gpt_numpy.training.checkpoint import load_newest
    from gpt_numpy.training.plan.resolving import resumed_settings

    start(tiny(), tmp_path / "run")
    saved = load_newest(tmp_path / "run" / "checkpoints")
    del saved.state["settings"]["split_seed"]
    assert resumed_settings(saved, {}, "run", Alone()).split_seed == 3
    assert Settings().split_seed == 1


# ---- memory --------------------------------------------------------------------------------------------------


class Ranks(Alone):
    """One of ``size`` ranks on one machine."""

    mpi = True

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def sum_on_machine(self, values):
        return [self.size * value for value in values]


def test_each_rank_needs_its_share_and_the_ranks_of_a_machine_add_up(tiny, monkeypatch):
    alone = plan(tiny(batch_size=64)).share
    one, two = (plan_run(tiny(batch_size=64), Ranks(rank, 2)).share for rank in range(2))
    assert (alone.rows, one.rows) == (64, 32) and two.memory < one.memory < alone.memory
    assert two.machine_memory == 2 * two.memory
    zero = plan_run(tiny(batch_size=64, zero=True), Ranks(1, 2)).share
    assert zero.memory < two.memory
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * two.memory - 1)
    with pytest.raises(ConfigError, match=f"{2 * two.memory:,} bytes for the 2 ranks.*{two.memory:,} for this one"):
        plan_run(tiny(batch_size=64), Ranks(1, 2))
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * two.memory)
    plan_run(tiny(batch_size=64), Ranks(1, 2))
