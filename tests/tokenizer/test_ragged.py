"""Many texts in two arrays, there and back, against one text after the other."""

import numpy as np
import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.kernels.bpe import texts as kernel_texts
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer
from gpt_numpy.tokenizer.ids import TokenJoiner
from gpt_numpy.tokenizer.ragged import RaggedIds

TEXTS = ["one two", "", "été 日本語 🙂", "'s", "", " ", "x" * 5000, "\n\n", "it's <|endoftext|>", "a\xa0b", "🙂"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS * 3, 298)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("allowed", ["all", ()])
def test_arrays_hold_what_the_lists_hold(tokenizer, threads, allowed):
    options = {"allowed_special": allowed, "disallowed_special": ()}
    expected = [tokenizer.encode(text, **options) for text in TEXTS]
    for texts in (TEXTS, iter(TEXTS), [text.encode() for text in TEXTS]):
        batch = tokenizer.encode_batch(texts, threads=threads, as_arrays=True, **options)
        assert [row.tolist() for row in batch.rows()] == expected
        assert batch.ids.dtype == tokenizer.dtype and batch.offsets[0] == 0
    assert tokenizer.encode_batch([text.encode() for text in TEXTS], **options) == expected


def test_texts_of_any_characters(gpt2, hard_strings):
    texts = hard_strings(3000, 11)
    expected = [gpt2.encode_ordinary(text) for text in texts]
    for threads in (1, 2):
        batch = gpt2.encode_batch(texts, disallowed_special=(), as_arrays=True, threads=threads)
        assert [row.tolist() for row in batch.rows()] == expected
    assert gpt2.decode_batch(batch) == texts
    data, offsets = gpt2.decode_batch(batch, as_arrays=True)
    assert data.tobytes().decode() == "".join(texts)
    assert np.diff(offsets).tolist() == [len(text.encode()) for text in texts]


def test_many_ids_are_decoded_by_the_kernel_as_by_numpy(gpt2, hard_strings, monkeypatch):
    texts = [*hard_strings(300, 3), "", "-" * 80, "word " * 9]  # of tokens of up to 80 bytes
    batch = gpt2.encode_batch(texts, disallowed_special=(), as_arrays=True)
    calls = []
    spelled = kernel_texts.spelled
    monkeypatch.setattr(kernel_texts, "spelled", lambda *args: calls.append(1) or spelled(*args))
    for many, expected_calls in ((1 << 40, 0), (1, 3)):
        monkeypatch.setattr(TokenJoiner, "MANY", many)
        data, offsets = gpt2.decode_batch(batch, as_arrays=True)
        assert data.tobytes() == "".join(texts).encode() and data.dtype == np.uint8
        assert np.diff(offsets).tolist() == [len(text.encode()) for text in texts] and offsets.dtype == np.int64
        assert gpt2.decode_batch(batch) == texts
        assert gpt2.decode_bytes(batch.ids) == "".join(texts).encode()
        assert len(calls) == expected_calls


def test_no_texts(tokenizer):
    batch = tokenizer.encode_batch([], as_arrays=True)
    assert batch.ids.tolist() == [] and batch.offsets.tolist() == [0]
    assert tokenizer.decode_batch(batch) == tokenizer.decode_batch([]) == []
    assert tokenizer.decode_batch([[], []]) == ["", ""]


def test_a_special_token_that_two_texts_make_together_is_none(tokenizer):
    texts = ["ab<|endof", "text|>c"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(TokenizerError, match="offset 2, text 1: the text holds"):
        tokenizer.encode_batch([b"a", b"ab<|endoftext|>"], as_arrays=True)


def test_bytes_that_are_no_text_are_named(tokenizer):
    for bad in ([b"fine", b"ab\xff"], [b"fine", b"ab" + "é".encode()[:1], "é".encode()[1:]]):
        with pytest.raises(TokenizerError, match="offset 2, text 1: not UTF-8"):
            tokenizer.encode_batch(bad, as_arrays=True)
    for mixed in ([b"a", "a"], ["a", b"a"], ["a", None], [bytearray(b"a")]):
        with pytest.raises(TypeError):
            tokenizer.encode_batch(mixed, as_arrays=True)


def test_ids_that_are_none_are_named(tokenizer):
    with pytest.raises(TokenizerError, match=r"row 1.*position 2"):
        tokenizer.decode_batch([[1], [1, 2, 298]])
    with pytest.raises(TokenizerError, match="position 1"):
        tokenizer.decode_batch(RaggedIds(np.array([1, 298]), np.array([0, 2])))
    for offsets in ([0, 1], [1, 2], [0, 2, 1, 2], [], [0.0, 2.0]):
        with pytest.raises(TokenizerError, match="offsets"):
            tokenizer.decode_batch(RaggedIds(np.array([1, 2]), np.array(offsets)))
    assert tokenizer.decode_batch([(104, 105), np.array([33])]) == ["hi", "!"]


def test_characters_have_the_same_interface():
    tokenizer = CharTokenizer.train("abc")
    batch = tokenizer.encode_batch(["ab", "", "c"], as_arrays=True)
    assert [row.tolist() for row in batch.rows()] == tokenizer.encode_batch(["ab", "", "c"])
