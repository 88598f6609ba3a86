"""Special tokens that a training text spells out: the token, an error that names the setting, or text."""

import numpy as np
import pytest

from gpt_numpy.data.text.special_text import document_end, encode_documents, refuse_special_text
from gpt_numpy.errors import DataError
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer

SPECIALS = ["<|endoftext|>", "<|pad|>"]


@pytest.fixture(scope="module", params=["bpe", "char"])
def either(request):
    text = "one two <|endoftext|> <|pad|> three"
    if request.param == "bpe":
        return Tokenizer.train([text * 3], 268, SPECIALS)
    return CharTokenizer(CharTokenizer.train([text]).characters, SPECIALS)


def test_a_document_ends_where_the_token_is_spelled_out(either):
    assert document_end("token", either) == document_end("token") == "<|endoftext|>"
    assert document_end("text", either) is document_end("refuse", either) is None
    with pytest.raises(DataError, match="specials.*'keep'.*token, refuse, text"):
        document_end("keep")


def test_other_specials_are_the_token_or_text(either):
    (ids,) = encode_documents(["one <|pad|> two"], either, "token")
    assert either.special_tokens["<|pad|>"] in ids.tolist()
    (ids,) = encode_documents(["one <|pad|> two"], either, "text")
    assert not set(ids.tolist()) & set(either.special_tokens.values())
    assert either.decode(ids) == "one <|pad|> two"


def test_an_end_that_normalising_made_does_not_end_a_document(either):
    (ids,) = encode_documents(["one<|endoftext|>two"], either, "token")
    assert either.eot_id not in ids.tolist()


def test_refusing_names_the_setting_and_the_place(either):
    for call in (
        lambda: encode_documents(["fine", "one <|pad|>"], either, "refuse"),
        lambda: refuse_special_text("one <|pad|>", either.special_tokens, "a.txt", 1),
    ):
        with pytest.raises(DataError, match=r"'<\|pad\|>' at character 4 of document 1.*--specials"):
            call()
    assert np.array_equal(*(encode_documents(["one two"], either, how)[0] for how in ("refuse", "token")))
