"""Mutants of every file that may come from elsewhere: the project's own error, or what the mutant says; never another value.

Files with a hash (checkpoints, shards, packed weights, compiled code) either give what was written or are refused. Of the
others, what is read agrees with an independent reader of the same bytes. Each reading has bounded time and memory. Every
fifth mutant is reached through a symbolic link.
"""

import json
import random
import time
import tomllib
import warnings

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from gpt_numpy import GPT, layers
from gpt_numpy.commands import runs
from gpt_numpy.data import open_dataset
from gpt_numpy.data.shards.token_files import read_token_file
from gpt_numpy.data.text.reading_record import reading_of
from gpt_numpy.errors import GPTNumpyError
from gpt_numpy.evaluating import tasks
from gpt_numpy.inference.loading import load_decoder
from gpt_numpy.interop import huggingface, llmc
from gpt_numpy.kernels.runtime import code_files
from gpt_numpy.locating import find_model
from gpt_numpy.sweeping import Sweep
from gpt_numpy.tokenizer import load_tokenizer
from gpt_numpy.training import Settings, checkpoint, config_file, metrics
from gpt_numpy.training.settings import sections
from tests.files.limits import within_seconds
from tests.files.mutating import mutant

SCREEN = 24 * 80
SECONDS, ROOM = 1, 200 << 20  # of one reading: seconds of the processor, bytes beyond the size of the file
TEXTS = ("a text of words", "wörds; 文 and\n\n a\ttext's", "")


# ---- readings: a function of the path that gives a value to compare -------------------------------------------------


def checkpoint_at(path):
    found = checkpoint.load(path.parent)
    arrays = (found.params.flat, found.first, found.second)
    ids = ids_of(found.tokenizer)
    return [array.tobytes() for array in arrays], repr(found.config), found.step, json.dumps(found.state), ids


def dataset_at(path):
    folder = path.parents[1] if path.parent.name == "tokenizer" else path.parent
    dataset = open_dataset(folder)
    return np.asarray(dataset.train[: len(dataset.train)]).tolist(), ids_of(load_tokenizer(dataset.tokenizer))


def packed_at(path):
    decoder, _ = load_decoder(path.parent)
    weights = decoder.weights
    return [np.asarray(a).tobytes() for a in (weights.data, weights.vectors, weights.positions)], repr(weights.config)


def code_at(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return code_files.CodeFiles("function", "version", "stamp").load("key") or _refused()


def _refused():
    raise GPTNumpyError("a warning, and the code is compiled anew")


def model_at(path):
    model = GPT.load(path.parent, ops=layers)
    return {name: array.tolist() for name, array in model.params.items()}


def ids_of(tokenizer):
    """The ids of some texts; each is checked to be the text again."""
    ids = []
    for text in TEXTS:
        try:
            ids.append([int(i) for i in tokenizer.encode_ordinary(text)])
        except GPTNumpyError:  # a character that the vocabulary lacks
            ids.append(None)
        else:
            read = tokenizer.decode(ids[-1])
            assert read in (text, " " + text), f"{text!r} became {read!r}"  # a blank before the text may be asked for
    return ids


def tokenizer_at(path):
    return ids_of(load_tokenizer(path.parent))


def run_at(path):
    runs.table([path.parent])
    runs.chart(metrics.read_metrics(path), 80)


# ---- independent readers: what the mutant says -------------------------------------------------------------------------


def sizes_by_json(path):
    """That a loaded config.json has the sizes that Python's reader finds in it."""
    config, fields = huggingface.load_config(path.parent), json.loads(path.read_bytes())
    for ours, names in (("n_head", "n_head num_attention_heads"), ("n_layer", "n_layer num_hidden_layers")):
        given = {fields[name] for name in names.split() if name in fields}
        assert given == {getattr(config[0], ours)}


def tensors_by_safetensors(path):
    """That loaded parameters are those that the makers' library reads."""
    ours = GPT.load(path.parent, ops=layers).params
    theirs = safetensors.numpy.load(path.read_bytes())
    for name, array in theirs.items():
        if (own := huggingface.canonical_name(name)) in ours:
            np.testing.assert_array_equal(ours[own], array.astype(np.float32))


def ids_by_tokenizers(path):
    """That the ids are those of Hugging Face's library, where that reads the file at all."""
    ours = tokenizer_at(path)
    try:
        if path.name == "tokenizer.json":
            theirs = tokenizers.Tokenizer.from_file(str(path))
        else:
            names = ("encoder.json", "vocab.bpe") if path.parent.name == "openai" else ("vocab.json", "merges.txt")
            theirs = tokenizers.ByteLevelBPETokenizer(*(str(path.parent / name) for name in names))
    except Exception:
        return
    for text, ids in zip(TEXTS, ours):
        assert theirs.encode(text, add_special_tokens=False).ids == ids, f"other ids of {text!r}"


def settings_by_tomllib(path):
    ours, told = config_file.read(path), {}
    for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
        told |= value if key in sections() else {key: value}
    assert ours == {n: tuple(v) if isinstance(v, list) else v for n, v in told.items()}


# What was written, or refused: file → reading.
HASHED = {
    "run/checkpoints/step-2/manifest.json": checkpoint_at,
    "run/checkpoints/step-2/trainer_state.json": checkpoint_at,
    "run/checkpoints/step-2/model.safetensors": checkpoint_at,
    "run/checkpoints/step-2/optimizer.safetensors": checkpoint_at,
    "run/checkpoints/step-2/config.json": checkpoint_at,
    "run/checkpoints/step-2/vocab.json": checkpoint_at,
    "run/checkpoints/step-2/reading.json": checkpoint_at,
    "shards/manifest.json": dataset_at,
    "shards/train-00000.bin": dataset_at,
    "shards/tokenizer/tokenizer.json": dataset_at,
    "packed/packed.safetensors": packed_at,
    "packed/config.json": packed_at,
    "sharded/model.safetensors.index.json": model_at,
    "code/function.nbi": code_at,
    "code/function.nbc": code_at,
}
# What the mutant says, or refused: file → comparison with an independent reader.
COMPARED = {
    "model/config.json": sizes_by_json,
    "model/model.safetensors": tensors_by_safetensors,
    "sharded/model-00001-of-00001.safetensors": tensors_by_safetensors,
    "huggingface/tokenizer.json": ids_by_tokenizers,
    "two files/vocab.json": ids_by_tokenizers,
    "two files/merges.txt": ids_by_tokenizers,
    "openai/encoder.json": ids_by_tokenizers,
    "openai/vocab.bpe": ids_by_tokenizers,
    "run/config.toml": settings_by_tomllib,
}
# Read or refused: file → reading.
READ = {
    "two files/tokenizer_config.json": tokenizer_at,
    "two files/added_tokens.json": tokenizer_at,
    "two files/special_tokens_map.json": tokenizer_at,
    "tiktoken/ranks.tiktoken": tokenizer_at,
    "characters/vocab.json": tokenizer_at,
    "model/generation_config.json": lambda path: huggingface.end_of_text_ids(path.parent),
    "llm.bin": llmc.load,
    "nano.bin": lambda path: read_token_file(path, 270),
    "run/metrics.jsonl": run_at,
    "run/reading.json": lambda path: reading_of(path.parent),
    "run/checkpoints/step-2/trainer_state.json": lambda path: find_model(path.parents[2]),
    "questions.jsonl": lambda path: tasks.read_questions(path),
    "sweep/sweep.json": lambda path: Sweep(path.parent, Settings(), {"seed": (1, 2)}).is_in(path.parent),
}


JOBS = [(kind, name) for kind, table in (("hashed", HASHED), ("compared", COMPARED), ("read", READ)) for name in table]


def place_of(made, name, monkeypatch):
    """The path of a file; compiled code is made where the package looks for it."""
    if not name.startswith("code/"):
        return made / name
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(made / "code"))
    code_files._writable_folder.cache_clear()
    code_files.CodeFiles("function", "version", "stamp").save("key", bytes(range(256)) * 8)
    return next(code_files.folders()[0].glob(f"function*{name[-4:]}"))


def campaign(made, monkeypatch, kind, name, count, seed):
    """``count`` mutants of one file; returns how many were refused. AssertionError for the first that is wrong."""
    path, rng = place_of(made, name, monkeypatch), random.Random(f"{name} {seed}")
    if not path.exists():
        path.write_text('{"eos_token_id": 3}')
    sound, reading = path.read_bytes(), {"hashed": HASHED, "compared": COMPARED, "read": READ}[kind][name]
    expected = reading(path)
    refused, elsewhere = 0, made / "elsewhere"
    for number in range(count):
        content = mutant(sound, path.name, rng)
        path.unlink()
        if number % 5 == 0:
            elsewhere.write_bytes(content)
            path.symlink_to(elsewhere)
        else:
            path.write_bytes(content)
        took, found = outcome(reading, path, len(content))
        if took >= SECONDS or isinstance(found, MemoryError):  # perhaps a kernel was compiled, which happens once
            took, found = outcome(reading, path, len(content))
        if isinstance(found, GPTNumpyError):
            refused += 1
            assert len(str(found)) <= SCREEN and "\n" not in str(found), f"mutant {number}: {str(found)[:100]}"
        elif isinstance(found, Exception):
            what = f"mutant {number} of {name}, {content[:300]!r}: {type(found).__name__}: {str(found)[:300]}"
            raise AssertionError(what) from found
        else:
            assert kind != "hashed" or found == expected, (
                f"mutant {number} of {name}, {content[:900]!r}, gives something else"
            )
        assert took < SECONDS, f"mutant {number} of {name} took {took:.1f} s"
    path.unlink()
    path.write_bytes(sound)
    return refused


def outcome(reading, path, size):
    """(seconds of the processor, what the reading gave or raised)."""
    code_files._warned.clear()
    began = time.process_time()
    try:
        with within_seconds(30, ROOM + size):
            found = reading(path)
    except Exception as error:
        found = error
    return time.process_time() - began, found


@pytest.mark.parametrize("kind, name", JOBS)
def test_a_few_mutants(made, monkeypatch, kind, name):
    assert 0 <= campaign(made, monkeypatch, kind, name, 12, seed=0) <= 12


@pytest.mark.campaign
@pytest.mark.parametrize("kind, name", JOBS)
def test_twenty_thousand_mutants(made, monkeypatch, kind, name):
    count = -(-20_000 // len(JOBS))
    print(f"{name}: {campaign(made, monkeypatch, kind, name, count, seed=1)} of {count} refused")
