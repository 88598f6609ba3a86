"""Which tokenizer a run uses; two that are named and are not the same are refused, both named."""

import pytest

from gpt_numpy.errors import CheckpointMismatch, ConfigError, DataError
from gpt_numpy.tokenizer import CharTokenizer, load_tokenizer
from gpt_numpy.tokenizer.identity import tokenizer_sha256
from gpt_numpy.training import start
from gpt_numpy.training.plan.resolving import plan_run
from gpt_numpy.training.ranks.distributed import Alone


def plan(settings, **options):
    return plan_run(settings, Alone(), **options)


def from_model(tiny, folder, **changes):
    return tiny(**{"init_from": str(folder), "tokenizer": "bpe", "preset": "small-cpu", **changes})


def test_the_identity_is_what_decides_the_ids(tokenizers, tmp_path):
    own, other = tokenizers["own"], tokenizers["other"]
    assert tokenizer_sha256(own) != tokenizer_sha256(other)
    for form in ("huggingface", "openai"):
        own.save(tmp_path / form, form=form)
        assert tokenizer_sha256(load_tokenizer(tmp_path / form)) == tokenizer_sha256(own)
    chars = [CharTokenizer("abc"), CharTokenizer("abd"), CharTokenizer("abc", ("<|endoftext|>",))]
    assert len(set(map(tokenizer_sha256, chars))) == 3


def test_shards_of_another_tokenizer_of_the_same_size(tiny, model_folder, prepared):
    settings = from_model(tiny, model_folder, order="epochs")
    plan(settings.replace(data=(str(prepared("own")),)))
    other = prepared("other", "others")
    with pytest.raises(CheckpointMismatch, match=f"M, tokenizer: .*not the model's.*{other.name}.*the model's own"):
        plan(settings.replace(data=(str(other),)))


def test_a_folder_of_another_tokenizer_of_the_same_size(tiny, model_folder, tokenizers, tmp_path):
    tokenizers["other"].save(tmp_path / "other")
    with pytest.raises(CheckpointMismatch, match="not the model's"):
        plan(from_model(tiny, model_folder, tokenizer=str(tmp_path / "other")))
    tokenizers["own"].save(tmp_path / "own")
    plan(from_model(tiny, model_folder, tokenizer=str(tmp_path / "own")))


@pytest.mark.parametrize("name", ["bpe", "char"])
def test_a_folder_that_is_called_like_a_kind(tiny, model_folder, tokenizers, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tokenizers["other"].save(tmp_path / name)
    chosen = plan(from_model(tiny, model_folder)).corpus.tokenizer
    assert tokenizer_sha256(chosen) == tokenizer_sha256(tokenizers["own"])
    with pytest.raises(CheckpointMismatch):
        plan(from_model(tiny, model_folder, tokenizer=f"./{name}"))


def test_a_model_without_a_tokenizer_needs_one(tiny, model_folder, tokenizers, tmp_path):
    tokenizers["own"].save(tmp_path / "own")
    for path in model_folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(ConfigError, match="no tokenizer.*--tokenizer"):
        plan(from_model(tiny, model_folder))
    plan(from_model(tiny, model_folder, tokenizer=str(tmp_path / "own")))


def test_a_lost_manifest_is_missed(tiny, prepared):
    folder = prepared()
    settings = tiny(data=(str(folder),), tokenizer="bpe", order="epochs")
    plan(settings)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="manifest.json: .*missing"):
        plan(settings)
    with pytest.raises(DataError, match="whole of a run's data.*this folder alone"):
        plan(settings.replace(data=(str(folder.parent),)))  # its tokenizer's merges.txt would be text


def test_two_prepared_folders_are_refused(tiny, prepared, text_file):
    first, second = prepared(), prepared("other", "others")
    for data in ((str(first), str(second)), (str(first), str(text_file))):
        with pytest.raises(DataError, match="whole of a run's data"):
            plan(tiny(data=data, tokenizer="bpe"))


def test_a_preparation_that_was_killed_early(tiny, prepared):
    folder = prepared()
    (folder / "manifest.json").rename(folder / "progress.json")
    for path in folder.glob("*.bin"):
        path.unlink()
    with pytest.raises(DataError, match="not come to its end"):
        plan(tiny(data=(str(folder),), tokenizer="bpe"))


def test_a_model_whose_tokenizer_was_exchanged(tiny, tmp_path, tokenizers):
    start(tiny(tokenizer="bpe", vocab_size=300, max_steps=2), tmp_path / "run")
    plan(from_model(tiny, tmp_path / "run"))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        tokenizers["other"].save(path)
    with pytest.raises(CheckpointMismatch, match="not the tokenizer that this model was trained with.*reading.json"):
        plan(from_model(tiny, tmp_path / "run"))
