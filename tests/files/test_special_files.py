"""A FIFO, a device, a folder or a socket in place of a file: each reader refuses at once, and says what is there."""

import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from gpt_numpy import GPT
from gpt_numpy.commands import main
from gpt_numpy.commands.score import decode_utf8
from gpt_numpy.data import open_dataset
from gpt_numpy.data.shards.token_files import read_header, read_token_file
from gpt_numpy.data.text.reading_record import reading_of
from gpt_numpy.errors import DataError, GPTNumpyError, VocabError
from gpt_numpy.evaluating import tasks
from gpt_numpy.files import durable, regular
from gpt_numpy.inference.loading import load_decoder
from gpt_numpy.interop import huggingface, llmc
from gpt_numpy.locating import find_model
from gpt_numpy.tokenizer import load_tokenizer
from gpt_numpy.training import checkpoint, config_file, metrics, resume
from tests.files.limits import within_seconds

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only on systems with FIFOs")
KINDS = {"fifo": "a FIFO", "zero": "a device", "folder": "a folder", "socket": "a socket", "loop": None}


@contextlib.contextmanager
def in_place_of(path, kind):
    """Something that is no regular file at ``path``, inside the block."""
    kept = Path(tempfile.mkdtemp()) / "kept"
    if path.exists():
        shutil.move(path, kept)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name has at most 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    else:
        path.symlink_to(path.name)
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        if kept.exists():
            shutil.move(kept, path)
        kept.parent.rmdir()


@pytest.mark.parametrize("kind", KINDS)
def test_the_opening_function(tmp_path, kind):
    path = tmp_path / "file"
    calls = (regular.open_regular, regular.read_regular, regular.sha256_of_file, regular.size_of_regular)
    with in_place_of(path, kind):
        for call in calls:
            with within_seconds(), pytest.raises(VocabError) as caught:
                call(path, VocabError, expected="a vocabulary")
            assert str(path) in str(caught.value) and (KINDS[kind] or "symbolic link") in str(caught.value)


def test_links_limits_and_missing_files(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    with pytest.raises(FileNotFoundError):
        regular.open_regular(path)
    path.write_bytes(b"12345")
    link.symlink_to(path)
    assert regular.read_regular(link) == regular.read_regular(path, limit=5) == b"12345"
    assert regular.size_of_regular(link) == 5
    for call in (regular.open_regular, regular.read_regular, regular.sha256_of_file, regular.size_of_regular):
        with pytest.raises(DataError, match="a symbolic link"):
            call(link, follow=False)
    with pytest.raises(DataError, match="5 bytes.*at most 4"):
        regular.read_regular(path, limit=4)


def test_a_log_is_not_written_into_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "log")
    with within_seconds(), pytest.raises(OSError):
        durable.append(tmp_path / "log", b"line\n", 0)


# a file → the calls that read it, each a function of the file's path
READERS = {
    "run/checkpoints/step-2/manifest.json": [
        lambda p: checkpoint.verify(p.parent),
        lambda p: checkpoint.load(p.parent),
    ],
    "run/checkpoints/step-2/trainer_state.json": [lambda p: checkpoint.load(p.parent)],
    "run/checkpoints/step-2/model.safetensors": [lambda p: checkpoint.load(p.parent)],
    "run/checkpoints/step-2/optimizer.safetensors": [lambda p: checkpoint.load(p.parent)],
    "run/checkpoints/step-2/config.json": [lambda p: checkpoint.load(p.parent)],
    "run/config.toml": [config_file.read],
    "run/metrics.jsonl": [metrics.read_metrics, lambda p: resume(p.parent, {"max_steps": 4})],
    "run/samples.txt": [lambda p: resume(p.parent, {"max_steps": 4})],
    "run/reading.json": [lambda p: reading_of(p.parent)],
    "model/config.json": [lambda p: GPT.load(p.parent), lambda p: huggingface.end_of_text_ids(p.parent)],
    "model/generation_config.json": [lambda p: huggingface.end_of_text_ids(p.parent)],
    "model/model.safetensors": [lambda p: GPT.load(p.parent), lambda p: load_decoder(p.parent)],
    "model/packed.safetensors": [lambda p: load_decoder(p.parent)],
    "sharded/model.safetensors.index.json": [lambda p: GPT.load(p.parent)],
    "sharded/model-00001-of-00001.safetensors": [lambda p: GPT.load(p.parent)],
    "llm.bin": [llmc.load],
    "huggingface/tokenizer.json": [lambda p: load_tokenizer(p.parent)],
    "two files/vocab.json": [lambda p: load_tokenizer(p.parent)],
    "two files/merges.txt": [lambda p: load_tokenizer(p.parent)],
    "two files/tokenizer_config.json": [lambda p: load_tokenizer(p.parent)],
    "two files/added_tokens.json": [lambda p: load_tokenizer(p.parent)],
    "two files/special_tokens_map.json": [lambda p: load_tokenizer(p.parent)],
    "openai/encoder.json": [lambda p: load_tokenizer(p.parent)],
    "openai/vocab.bpe": [lambda p: load_tokenizer(p.parent)],
    "tiktoken/ranks.tiktoken": [lambda p: load_tokenizer(p.parent)],
    "characters/vocab.json": [lambda p: load_tokenizer(p.parent)],
    "characters/tokenizer_config.json": [lambda p: load_tokenizer(p.parent)],
    "shards/manifest.json": [lambda p: open_dataset(p.parent)],
    "shards/train-00000.bin": [lambda p: open_dataset(p.parent), read_header, lambda p: read_token_file(p, 270)],
    "shards/tokenizer/tokenizer.json": [lambda p: open_dataset(p.parents[1])],
    "text.txt": [lambda p: list(load_tokenizer(p.parent / "model").encode_file(p)), decode_utf8],
    "tasks.jsonl": [lambda p: list(tasks.read_questions(p))],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses(made, name, kind):
    with in_place_of(made / name, kind):
        for read in READERS[name]:
            with within_seconds(), pytest.raises(GPTNumpyError) as caught:
                read(made / name)
            message = str(caught.value)
            assert str(made / name) in message and "\n" not in message, message
            assert (
                kind == "loop" or f"not a regular file: found '{KINDS[kind]}'" in message or "symbolic link" in message
            )


COMMANDS = {
    "run/config.toml": ["train --config {path} --out {folder}/new"],
    "run/metrics.jsonl": ["runs {folder}/run", "runs {folder}"],
    "text.txt": [
        "train --data {path} --out {folder}/new",
        "tokenizer train {path} --vocab-size 270 --out {folder}/new",
        "tokenizer encode --tokenizer {folder}/model --file {path}",
        "score --model {folder}/model --file {path}",
        "data prepare {path} --tokenizer {folder}/model --out {folder}/new",
    ],
    "shards/train-00000.bin": ["data inspect {path} --tokenizer {folder}/model", "data verify {folder}/shards"],
}


@pytest.mark.parametrize("kind", ["fifo", "zero"])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_in_one_line(made, capsys, name, kind):
    for command in COMMANDS[name]:
        with in_place_of(made / name, kind), within_seconds(30):
            words = [word.format(path=made / name, folder=made) for word in command.split()]
            assert main(words) in (2, 3)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "regular file" in error and not (made / "new").exists(), error
    assert find_model(made / "run") == made / "run" / "checkpoints" / "step-2"
