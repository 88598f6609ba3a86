"""Where a document ends is known from reading to masks: shards read by a reader of their own, which shares no code.

Every document of the corpora here is one character repeated, unlike in any other document. The tokens of a row then say
by themselves whose they are, and nothing has to be trusted that the package says about boundaries.
"""

import json
import random

import numpy as np
import pytest

from gpt_numpy.data import document_masks
from gpt_numpy.data.shards.preparing import Settings, prepare
from gpt_numpy.tokenizer import CharTokenizer

# Han characters and their first extensions: none changes under NFC.
CHARACTERS = [chr(code) for code in (*range(0x4E00, 0x9FA6), *range(0x20000, 0x28000))]


def read_shards(folder, split):
    """(rows, end-of-text id) of ``split``: int32 words of a header, then tokens, as llm.c lays them out."""
    parts = []
    for path in sorted(folder.glob(f"{split}-*.bin")):
        data = path.read_bytes()
        words = np.frombuffer(data[:1024], "<i4")
        dtype = {20240520: "<u2", 20240801: "<u4"}[int(words[0])]
        parts.append(np.frombuffer(data[1024:], dtype))
        assert len(parts[-1]) == words[2]
    return np.concatenate(parts).astype(np.int64).reshape(-1, words[6]), int(words[5])


def prepared_rows(folder, lengths, block_size, **options):
    """(rows, end-of-text id, padding) that ``prepare`` makes of documents of ``lengths`` characters, one a line."""
    characters = CHARACTERS[: len(lengths)]
    text = folder / "documents.txt"
    text.write_text("\n".join(c * n for c, n in zip(characters, lengths)), encoding="utf-8")
    tokenizer = CharTokenizer(characters, ["<|endoftext|>"])
    manifest = prepare([text], tokenizer, folder / "out", Settings(split="line", block_size=block_size, **options))
    return *read_shards(folder / "out", "train"), manifest["splits"]["train"]["padding"]


def check_rows(rows, eot_id, padding, lengths):
    """No stretch between ends holds two documents, none is lost, and no mask lets one see another; the utilisation."""
    documents = np.where(rows == eot_id, -1, rows)
    inner = (documents[:, :-1] != documents[:, 1:]) & (documents[:, :-1] >= 0) & (documents[:, 1:] >= 0)
    assert not inner.any(), "two documents side by side without an end between them"
    counts = np.bincount(documents[documents >= 0], minlength=len(lengths))
    assert counts.tolist() == lengths
    assert (rows == eot_id).sum() == len(lengths) + padding
    inputs, targets = rows[:, :-1], rows[:, 1:]
    masked, positions, first_key = document_masks(inputs, targets, eot_id)
    check_masks(documents, masked, first_key)
    assert (positions == np.arange(inputs.shape[1]) - first_key).all()
    return (sum(lengths) + len(lengths)) / rows.size


def check_masks(documents, masked, first_key):
    """Each token sees its own document from where that begins in the row; so does the target, where it counts."""
    size = len(documents)
    current, last, start = np.full(size, -1), np.full(size, -1), np.zeros(size, int)
    for i in range(first_key.shape[1]):
        here = documents[:, i]
        start = np.where(here != current, i, start)
        assert (first_key[here >= 0, i] == start[here >= 0]).all()
        last = np.where(here >= 0, i, last)  # the last token of a document so far, and whose it is
        current = np.where(here >= 0, here, -1)
        owner = documents[np.arange(size), last]
        other = (owner != documents[:, i + 1]) & (documents[:, i + 1] >= 0) & (last >= 0)
        assert not (other & (masked[:, i] >= 0) & (first_key[:, i] <= last)).any()
        assert ((here < 0) <= (masked[:, i] < 0)).all()  # nothing is predicted behind an end


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shard_tokens", [200, 1 << 20])
def test_no_row_joins_two_documents_without_an_end(tmp_path, seed, shard_tokens):
    rng = random.Random(seed)
    row = rng.choice([9, 17, 33])
    lengths = [rng.randrange(row // 2, 2 * row) if seed % 2 else rng.randrange(1, row) for _ in range(120)]
    rows, eot_id, padding = prepared_rows(tmp_path, lengths, row - 1, shard_tokens=shard_tokens)
    check_rows(rows, eot_id, padding, lengths)


def test_awkward_lengths_keep_their_ends_and_fill_their_rows(tmp_path):
    rng = random.Random(3)
    lengths = [rng.randrange(500, 1000) for _ in range(400)]
    rows, eot_id, padding = prepared_rows(tmp_path, lengths, 1024)
    assert check_rows(rows, eot_id, padding, lengths) >= 0.98
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["splits"]["train"]["cut_documents"] > 0  # the case in which ends were lost


@pytest.mark.campaign
def test_fifty_thousand_documents(tmp_path):
    rng = random.Random(4)
    lengths = [rng.randrange(500, 1000) for _ in range(50_000)]
    rows, eot_id, padding = prepared_rows(tmp_path, lengths, 1024)
    utilisation = check_rows(rows, eot_id, padding, lengths)
    print(f"{len(rows):,} rows, utilisation {utilisation:.3%}")
    assert utilisation >= 0.98
