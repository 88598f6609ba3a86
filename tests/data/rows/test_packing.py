"""Packing documents of ids into one array."""

import numpy as np
import pytest

from gpt_numpy.data.rows.packing import check_tokens, pack, token_dtype
from gpt_numpy.errors import DataError


def test_end_of_text_follows_every_document():
    tokens = pack([[1, 2], [], np.array([3]), (4, 5)], 9)
    assert tokens.tolist() == [1, 2, 9, 3, 9, 4, 5, 9]
    assert tokens.dtype == np.uint16
    assert pack(iter([]), 9, np.uint32).dtype == np.uint32


def test_arrays_packed_apart_join():
    documents = [[1], [2, 3], [4, 5, 6]]
    joined = np.concatenate([pack(documents[:1], 0), pack(documents[1:], 0)])
    assert joined.tolist() == pack(documents, 0).tolist()


@pytest.mark.parametrize("vocab_size, dtype", [(11, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_the_dtype_holds_the_vocabulary(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype
    assert pack([[vocab_size - 1]], 0, token_dtype(vocab_size))[0] == vocab_size - 1


@pytest.mark.parametrize(
    "documents, eot, message",
    [
        ([[1], [2, 65536]], 0, "document 1: position 1 .*65536"),
        ([[-1]], 0, "document 0: position 0 .*-1"),
        ([[1]], 65536, "eot_id.*65536"),
        ([[1.0]], 0, "float64"),
        ([[True]], 0, "bool"),
        ([[[1]]], 0, "shape"),
        (["text"], 0, "document 0"),
    ],
)
def test_ids_that_do_not_fit_are_refused(documents, eot, message):
    with pytest.raises(DataError, match=message):
        pack(documents, eot)


def test_a_token_outside_the_vocabulary_is_found_with_its_position():
    tokens = np.zeros(5_000_000, np.uint16)
    check_tokens(tokens, 1)
    tokens[[4_999_997, 4_999_998]] = 50257
    with pytest.raises(DataError, match="position 4999997 .*50257.*below the vocabulary's 50257"):
        check_tokens(tokens, 50257)
