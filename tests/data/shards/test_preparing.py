"""Preparing a corpus: the tokens are the ones the plain functions give, whatever interrupts the work."""

import contextlib
import dataclasses
import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.data import epoch_batch, normalize, pack, read_documents
from gpt_numpy.data.shards import encoding
from gpt_numpy.data.shards import preparing as prepare_module
from gpt_numpy.data.shards.dataset import open_dataset
from gpt_numpy.data.shards.encoding import in_validation
from gpt_numpy.data.shards.preparing import Settings, prepare
from gpt_numpy.data.text import opening, reading
from gpt_numpy.errors import ConfigError, DataError, RunLocked
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer
from gpt_numpy.tokenizer.vocabulary import Origin
from tests.data.shards.content import folder_bytes


def encoded_documents(inputs, tokenizer, **reading_options):
    """Every document's tokens by the plain functions, end-of-text included."""
    texts = [normalize(text) for text in read_documents(inputs, **reading_options)]
    begin = tokenizer.begin_ids
    return [[*begin, *tokenizer.encode_ordinary(text), tokenizer.eot_id] for text in texts if text]


@pytest.fixture
def beginning(tokenizer):
    """The tokenizer with a token in front of every text."""
    return Tokenizer(dataclasses.replace(tokenizer.vocabulary, begin=("<|endoftext|>",), origin=Origin(), made=None))


@pytest.fixture
def small_pieces(monkeypatch):
    """Documents in many pieces and units, as in a large corpus."""
    monkeypatch.setattr(reading, "PIECE_CHARACTERS", 100)
    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 300)
    monkeypatch.setattr(opening, "CHUNK_BYTES", 64)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shard_tokens", [97, 1000, 1 << 25])
def test_shards_hold_the_tokens_of_the_documents_in_order(
    corpus, tokenizer, tmp_path, small_pieces, threads, shard_tokens
):
    manifest = prepare([corpus], tokenizer, tmp_path / "out", Settings(shard_tokens=shard_tokens), threads=threads)
    documents = encoded_documents([corpus], tokenizer)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.train[:].tolist() == sum(documents, [])
    train = manifest["splits"]["train"]
    assert train["documents"] == len(documents) == 22
    assert train["tokens"] == len(dataset.train)
    assert train["text_bytes"] == sum(len(normalize(text).encode()) for text in read_documents([corpus]))
    sizes = [shard["tokens"] for shard in train["shards"]]
    assert sizes[:-1] == [shard_tokens] * (len(sizes) - 1)
    assert Tokenizer.load(dataset.tokenizer).encode("the of") == tokenizer.encode("the of")
    assert [record["name"] for record in manifest["inputs"]] == opening.find_files([corpus])


@pytest.mark.parametrize("shard_tokens", [66, 300, 1 << 25])
def test_fitted_rows_hold_every_token_once(corpus, tokenizer, tmp_path, small_pieces, shard_tokens):
    settings = Settings(block_size=64, shard_tokens=shard_tokens)
    record = prepare([corpus], tokenizer, tmp_path / "out", settings)["splits"]["train"]
    documents = encoded_documents([corpus], tokenizer)
    dataset = open_dataset(tmp_path / "out")
    tokens = dataset.train[:]
    assert len(tokens) == sum(map(len, documents)) + record["padding"]
    expected = np.bincount(sum(documents, []), minlength=320)
    expected[tokenizer.eot_id] += record["padding"]
    assert np.array_equal(np.bincount(tokens, minlength=320), expected)
    assert record["documents"] == len(documents)
    rows = [",".join(map(str, row)) for row in tokens.reshape(-1, 65).tolist()]
    whole = [any(",".join(map(str, document)) in row for row in rows) for document in documents]
    assert whole.count(False) == record["cut_documents"]
    assert record["cuts"] >= record["cut_documents"]
    longer = sum(len(document) > 65 for document in documents)
    assert longer <= record["cut_documents"]
    if shard_tokens == 1 << 25:
        assert record["padding"] <= 0.02 * len(tokens)
        assert longer < len(documents) / 2
    inputs, targets = epoch_batch(dataset.train, 4, 64, seed=0, step=0, stride=dataset.stride(64))
    for row in np.concatenate([inputs, targets[:, -1:]], axis=1).tolist():
        assert ",".join(map(str, row)) in rows
    assert dataset.stride(64) == 65
    with pytest.raises(DataError, match="block_size.*32.*64"):
        dataset.stride(32)


def test_validation_documents_are_drawn_one_of_each_few(corpus, tokenizer, tmp_path, small_pieces):
    prepare([corpus], tokenizer, tmp_path / "out", Settings(validation_every=4, seed=3, shard_tokens=200))
    dataset = open_dataset(tmp_path / "out")
    texts = [normalize(text) for text in read_documents([corpus])]
    parts = {False: [], True: []}
    for number, text in enumerate(texts):
        parts[in_validation(number, 4, 3)].append(tokenizer.encode_ordinary(text))
    for tokens, documents in ((dataset.train, parts[False]), (dataset.validation, parts[True])):
        assert tokens[:].tolist() == pack(documents, tokenizer.eot_id).tolist()
    assert len(parts[True]) in (5, 6)
    for stratum in range(5):
        assert sum(in_validation(number, 4, 3) for number in range(4 * stratum, 4 * stratum + 4)) == 1
    assert len({tuple(in_validation(number, 4, seed) for number in range(40)) for seed in range(3)}) == 3


def test_every_kind_of_input(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three"))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbffour\r\n")
    settings = Settings(text_field="body")
    manifest = prepare(
        [str(tmp_path / name) for name in ("a.jsonl", "b*", "c.txt")], tokenizer, tmp_path / "out", settings
    )
    assert manifest["splits"]["train"]["documents"] == 4
    text = tokenizer.decode(open_dataset(tmp_path / "out").train[:].tolist())
    assert text == "one<|endoftext|>two<|endoftext|>three<|endoftext|>four\n<|endoftext|>"
    assert manifest["settings"]["normalize"] == ["bom", "nfc", "newlines"]


def test_a_character_tokenizer_serves_too(corpus, tmp_path):
    characters = CharTokenizer.train(map(normalize, read_documents([corpus])), special_tokens=["<|endoftext|>"])
    prepare([corpus], characters, tmp_path / "out")
    assert open_dataset(tmp_path / "out").train[:].tolist() == sum(encoded_documents([corpus], characters), [])


SETTINGS = {
    "concat": Settings(shard_tokens=200, validation_every=6),
    "fit": Settings(shard_tokens=200, block_size=32, validation_every=6),
}


@pytest.mark.parametrize("policy", SETTINGS)
def test_a_failure_at_any_write_is_made_good(corpus, tokenizer, tmp_path, small_pieces, monkeypatch, policy):
    settings = SETTINGS[policy]
    prepare([corpus], tokenizer, tmp_path / "whole", settings)
    expected = folder_bytes(tmp_path / "whole")
    replace, counts = os.replace, []

    def failing(source, target):
        counts.append(target)
        if len(counts) == fail_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    for fail_at in range(1, 1000):
        counts.clear()
        out = tmp_path / f"out{fail_at}"
        try:
            prepare([corpus], tokenizer, out, settings)
        except OSError:
            assert not (out / "manifest.json").exists()
            with pytest.raises(DataError):
                open_dataset(out)
            counts += [None] * 1000
            prepare([corpus], tokenizer, out, settings)
            assert folder_bytes(out) == expected
        else:
            break
    assert len(counts) == fail_at - 1 > 15
    assert folder_bytes(out) == expected


@pytest.mark.parametrize("shard_tokens", [66, 97, 1 << 25])
@pytest.mark.parametrize("block_size", [None, 32])
def test_every_document_begins_also_after_a_kill(
    corpus, beginning, tmp_path, small_pieces, monkeypatch, block_size, shard_tokens
):
    settings = Settings(shard_tokens=shard_tokens, block_size=block_size)
    manifest = prepare([corpus], beginning, tmp_path / "whole", settings)
    documents, tokens = encoded_documents([corpus], beginning), open_dataset(tmp_path / "whole").train[:].tolist()
    assert manifest["settings"]["begin_ids"] == [beginning.eot_id]
    if block_size is None:
        assert tokens == sum(documents, [])
    else:
        padding = manifest["splits"]["train"]["padding"]
        assert sorted(tokens) == sorted(sum(documents, [beginning.eot_id] * padding))
    write = prepare_module.write_durably

    def killed(path, pieces):
        write(path, pieces)
        if len(list((tmp_path / "out").glob("train-*.bin"))) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_module, "write_durably", killed)
    with contextlib.suppress(OSError):
        prepare([corpus], beginning, tmp_path / "out", settings)
    monkeypatch.setattr(prepare_module, "write_durably", write)
    prepare([corpus], beginning, tmp_path / "out", settings)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


def test_a_failure_leaves_no_thread_behind(corpus, tokenizer, tmp_path, small_pieces, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if Path(target).name == "train-00001.bin":
            raise OSError(28, "No space left on device")
        replace(source, target)

    before = threading.active_count()
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError) as kept:  # with its traceback, and so with all that the frames refer to
        prepare([corpus], tokenizer, tmp_path / "out", Settings(shard_tokens=200))
    assert kept.tb is not None and threading.active_count() == before


def test_a_resumed_run_encodes_only_what_is_left(corpus, tokenizer, tmp_path, monkeypatch):
    settings = Settings(shard_tokens=200)
    encoded = []
    encode = encoding.encode_texts
    monkeypatch.setattr(encoding, "encode_texts", lambda tok, texts: encoded.extend(texts) or encode(tok, texts))
    write = prepare_module.write_durably

    def interrupted(path, parts):
        if Path(path).name == "train-00005.bin":
            raise KeyboardInterrupt
        write(path, parts)

    monkeypatch.setattr(prepare_module, "write_durably", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tokenizer, tmp_path / "out", settings)
    in_all = len(encoded)
    encoded.clear()
    monkeypatch.setattr(prepare_module, "write_durably", write)
    prepare([corpus], tokenizer, tmp_path / "out", settings)
    assert 0 < len(encoded) < in_all


def interrupt(corpus, tokenizer, out, settings=SETTINGS["concat"]):
    """A folder whose preparation ended after a few shards."""
    original = prepare_module.write_durably

    def failing(path, parts):
        if Path(path).name == "train-00003.bin":
            raise OSError(28, "No space left on device")
        original(path, parts)

    prepare_module.write_durably = failing
    try:
        with pytest.raises(OSError):
            prepare([corpus], tokenizer, out, settings)
    finally:
        prepare_module.write_durably = original


@pytest.mark.parametrize(
    "change", ["settings", "tokenizer", "content", "more", "fewer", "shard", "progress", "lost shard"]
)
def test_a_resumed_run_refuses_what_changed(corpus, tokenizer, tmp_path, change):
    out, settings = tmp_path / "out", SETTINGS["concat"]
    interrupt(corpus, tokenizer, out)
    before = folder_bytes(out)
    if change == "settings":
        settings = Settings(shard_tokens=200, validation_every=7)
    elif change == "tokenizer":
        tokenizer = Tokenizer.train(["some other text" * 9], 265)
    elif change == "content":
        (corpus / "more" / "22.txt").write_text("something else")
    elif change == "more":
        (corpus / "zz.txt").write_text("more")
    elif change == "fewer":
        (corpus / "more" / "22.txt").unlink()
    elif change == "lost shard":
        (out / "train-00001.bin").unlink()
    else:
        path = out / {"shard": "train-00001.bin", "progress": "progress.json"}[change]
        damaged = bytearray(path.read_bytes())
        damaged[-20] ^= 1
        path.write_bytes(damaged)
        before = folder_bytes(out)
    with pytest.raises(DataError):
        prepare([corpus], tokenizer, out, settings)
    assert {name: before.get(name) for name in folder_bytes(out)} == folder_bytes(out)
    prepare([corpus], tokenizer, out, settings, restart=True)
    prepare([corpus], tokenizer, tmp_path / "fresh", settings)
    assert folder_bytes(out) == folder_bytes(tmp_path / "fresh")


def test_a_complete_folder_is_left_alone_and_compared(corpus, tokenizer, prepared):
    settings = Settings(shard_tokens=500, validation_every=5)
    before = folder_bytes(prepared)
    prepare([corpus], tokenizer, prepared, settings)
    assert folder_bytes(prepared) == before
    with pytest.raises(DataError, match="shard_tokens.*found 600; expected 500"):
        prepare([corpus], tokenizer, prepared, Settings(shard_tokens=600, validation_every=5))
    first = corpus / "00.md"
    first.write_bytes(first.read_bytes().swapcase())
    with pytest.raises(DataError, match="00.md: the input changed"):
        prepare([corpus], tokenizer, prepared, settings)
    with pytest.raises(DataError, match="other inputs"):
        prepare([corpus / "more"], tokenizer, prepared, settings)
    assert folder_bytes(prepared) == before


def test_a_folder_with_anything_else_is_refused(corpus, tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(DataError, match="thesis.tex"):
            prepare([corpus], tokenizer, tmp_path / "out", restart=restart)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("out", [".", "more", "more/../out/deep"])
def test_an_output_inside_the_input_is_refused(corpus, tokenizer, out):
    before = folder_bytes(corpus)
    with pytest.raises(DataError, match="lies inside the input"):
        prepare(corpus, tokenizer, corpus / out)
    assert folder_bytes(corpus) == before


def test_two_preparations_of_one_folder_are_refused(corpus, tokenizer, tmp_path):
    with prepare_module._locked(tmp_path), pytest.raises(RunLocked):
        prepare([corpus], tokenizer, tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(corpus, tokenizer, tmp_path, monkeypatch):
    grown = corpus / "more" / "01.txt"

    def grow(count):
        with open(grown, "a") as file:
            file.write("x" * 50)

    with pytest.raises(DataError, match="01.txt: the file changed while it was read"):
        prepare([corpus], tokenizer, tmp_path / "out", on_bytes=grow)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"block_size": 0}, "block_size"),
        ({"block_size": 64, "shard_tokens": 65}, "shard_tokens"),
        ({"shard_tokens": 0}, "shard_tokens"),
        ({"shard_tokens": 2**31}, "shard_tokens"),
        ({"validation_every": 1}, "validation_every"),
        ({"normalize": ("nfd",)}, "nfd"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)


def test_inputs_that_cannot_be_split_are_refused(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("one document")
    with pytest.raises(DataError, match="too few documents: 1 file, and a file is a document"):
        prepare([tmp_path / "a.txt"], tokenizer, tmp_path / "out", Settings(split="file", validation_every=10))
    with pytest.raises(DataError, match="no document for (train|validation)"):
        prepare([tmp_path / "a.txt"], tokenizer, tmp_path / "out", Settings(validation_every=10))
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(DataError, match="no document for train"):
        prepare([tmp_path / "b.txt"], tokenizer, tmp_path / "out2")
    with pytest.raises(DataError, match="end-of-text"):
        prepare([tmp_path / "a.txt"], CharTokenizer.train(["one document"]), tmp_path / "out3")


def test_a_token_outside_the_vocabulary_is_never_written(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "encode_texts", lambda tok, texts: [np.array([1, 65536 + 2])] * len(texts))
    with pytest.raises(DataError, match="position 1 .*65538.*vocabulary's 320"):
        prepare([corpus], tokenizer, tmp_path / "out")


def test_a_bad_byte_stops_the_work_and_names_its_place(corpus, tokenizer, tmp_path):
    (corpus / "more" / "bad.txt").write_bytes(b"good \xff bad")
    with pytest.raises(DataError, match="bad.txt, offset 5"):
        prepare([corpus], tokenizer, tmp_path / "out")


@pytest.fixture
def stories(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("one story\n<|endoftext|>\nanother story\n" * 500)
    return path


def test_end_of_text_between_stories_is_the_token(stories, tokenizer, tmp_path, small_pieces):
    settings = Settings(validation_every=5, shard_tokens=400)
    manifest = prepare([stories], tokenizer, tmp_path / "out", settings)
    assert manifest["splits"]["train"]["documents"] == 401 and manifest["splits"]["validation"]["documents"] == 100
    dataset = open_dataset(tmp_path / "out")
    tokens = np.concatenate([dataset.train[:], dataset.validation[:]])
    assert (tokens == tokenizer.eot_id).sum() == 501
    assert "<|" not in tokenizer.decode(tokens[tokens != tokenizer.eot_id].tolist())


def test_end_of_text_is_text_or_an_error_where_the_settings_say_so(stories, tokenizer, tmp_path):
    prepare([stories], tokenizer, tmp_path / "text", Settings(specials="text"))
    tokens = open_dataset(tmp_path / "text").train[:]
    assert (tokens == tokenizer.eot_id).sum() == 1
    assert tokenizer.decode(tokens[:-1].tolist()) == stories.read_text()
    with pytest.raises(DataError, match="stories.txt, specials: .*<|endoftext|>.*--specials token"):
        prepare([stories], tokenizer, tmp_path / "refused", Settings(specials="refuse"))


def test_the_separator_of_a_shell_and_of_python_make_one_folder(tokenizer, tmp_path):
    (tmp_path / "poems.txt").write_bytes("\n\n".join(f"poem {n}\nline" for n in range(200)).encode())
    one = prepare([tmp_path / "poems.txt"], tokenizer, tmp_path / "one", Settings(separator=r"\n\n"))
    other = prepare([tmp_path / "poems.txt"], tokenizer, tmp_path / "other", Settings(separator="\n\n"))
    assert one == other and one["splits"]["train"]["documents"] == 200
