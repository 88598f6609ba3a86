import json
import os

import numpy as np
import pytest

import gpt_numpy
from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.tokenizer import CharTokenizer, load_tokenizer

TEXTS = ["hello\r\n", "wörld \x00🙂\u2028"]


@pytest.fixture()
def tokenizer():
    return CharTokenizer.train(TEXTS, special_tokens=("<|endoftext|>", "<|pad|>"))


def test_ids_follow_code_points_and_specials_come_last(tokenizer):
    characters = sorted(set("".join(TEXTS)))
    assert tokenizer.encode("".join(characters)) == list(range(len(characters)))
    assert tokenizer.special_tokens == {"<|endoftext|>": len(characters), "<|pad|>": len(characters) + 1}
    assert tokenizer.n_vocab == tokenizer.vocab_size == len(characters) + 2
    assert tokenizer.eot_id == len(characters)


def test_round_trip(tokenizer):
    for text in (*TEXTS, ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode("lo<|endoftext|>", allowed_special="all")
    assert ids[-1] == tokenizer.eot_id and tokenizer.decode_bytes(ids) == b"lo<|endoftext|>"


def test_arrays_and_batches(tokenizer):
    for text in (*TEXTS, "", "lo<|pad|>"):
        ids = tokenizer.encode(text, allowed_special="all")
        array = tokenizer.encode_to_array(text, allowed_special="all")
        assert (array.dtype, array.tolist()) == (np.uint16, ids)
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    everything = CharTokenizer.train("".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000))
    assert everything.encode_to_array("\U0010ffff").tolist() == [everything.n_vocab - 1]
    assert everything.dtype == np.uint32


def test_unknown_characters_and_specials_are_refused_with_the_position(tokenizer):
    with pytest.raises(TokenizerError, match="offset 17: a character.*'z'"):
        tokenizer.encode("hell<|endoftext|>z", allowed_special="all")
    with pytest.raises(TokenizerError, match="offset 1: a character.*U0010ffff"):
        tokenizer.encode("h\U0010ffff")
    with pytest.raises(TokenizerError, match="offset 4: the text holds the special token"):
        tokenizer.encode("hell<|pad|>")
    with pytest.raises(TokenizerError, match="offset 0"):
        tokenizer.encode_ordinary("<|pad|>")
    with pytest.raises(TypeError, match="a text to encode is a str"):
        tokenizer.encode(b"h")
    with pytest.raises(TokenizerError, match="position 1"):
        tokenizer.decode([0, tokenizer.n_vocab])


def test_training_arguments():
    assert CharTokenizer.train("abab", 2).n_vocab == 2
    with pytest.raises(TokenizerError, match="2 characters and 0 special tokens do not fit"):
        CharTokenizer.train("ab", 1)
    with pytest.raises(TokenizerError, match="no text to train on"):
        CharTokenizer.train([""])
    with pytest.raises(VocabError, match="twice"):
        CharTokenizer("ab", ["a"])


def test_saving_and_loading(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    assert gpt_numpy.CharTokenizer is CharTokenizer
    for loaded in (CharTokenizer.load(tmp_path / "new"), load_tokenizer(tmp_path / "new")):
        assert isinstance(loaded, CharTokenizer)
        assert loaded.special_tokens == tokenizer.special_tokens
        assert loaded.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
def test_every_truncation_is_an_error(tokenizer, tmp_path, name):
    tokenizer.save(tmp_path)
    for n in reversed(range((tmp_path / name).stat().st_size)):
        os.truncate(tmp_path / name, n)
        with pytest.raises(VocabError, match=name):
            CharTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"a": 0, "bc": 1}, "line 1: a token that is not one character"),
        ({"a": 0, "b": 2}, "no token has the id 1"),
        (["a"], "not a table of tokens"),
    ],
)
def test_bad_tables(tmp_path, change, message):
    CharTokenizer.train("ab").save(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(change))
    with pytest.raises(VocabError, match=message):
        CharTokenizer.load(tmp_path)
