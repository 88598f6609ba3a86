import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import GenerationError, TokenizerError
from gpt_numpy.inference.text import TextStream, stream_text
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer

TEXT = "né 🙂 abcabd – 中文"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["abcabd abcabd"], 262, special_tokens=[END_OF_TEXT])


@pytest.fixture(scope="module")
def model(tokenizer):
    config = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=32, n_layer=1, n_head=2, n_embd=8)
    return GPT(config, seed=1, ops=layers)


def shown(tokenizer, ids, stop=()):
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in ids:
        pieces.append(stream.feed(token))
        if stream.ended:
            break
    return [*pieces, stream.finish()]


def test_no_character_is_cut(tokenizer):
    pieces = shown(tokenizer, tokenizer.encode(TEXT))
    assert "".join(pieces) == TEXT
    assert all("\ufffd" not in piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_what_it_is(tokenizer):
    ids = tokenizer.encode("a🙂")[:-1]
    assert "".join(shown(tokenizer, ids)) == "a\ufffd"


@pytest.mark.parametrize("start", range(len(TEXT)))
@pytest.mark.parametrize("length", [1, 2, 5])
def test_stop_strings_across_token_borders(tokenizer, start, length):
    stop = TEXT[start : start + length]
    expected = TEXT[: TEXT.index(stop)]
    single_bytes = [token for byte in TEXT.encode() for token in tokenizer.encode_bytes(bytes([byte]))]
    for ids in (tokenizer.encode(TEXT), single_bytes):
        pieces = shown(tokenizer, ids, stop)
        assert "".join(pieces) == expected
        for i in range(len(pieces)):  # nothing that would have to be taken back was ever shown
            assert expected.startswith("".join(pieces[:i]))


def test_a_beginning_of_a_stop_string_that_comes_to_nothing_is_shown(tokenizer):
    ids = [i for c in "abab" for i in tokenizer.encode(c)]
    assert "".join(shown(tokenizer, ids, "abac")) == "abab"
    assert "".join(shown(tokenizer, ids, ["abac", "ba"])) == "a"
    assert "".join(shown(tokenizer, ids, ["bab", "ab"])) == ""


def test_text_of_several_prompts_and_samples(model, tokenizer):
    prompts = ["abc", "né"]
    texts = [""] * 6
    for piece in stream_text(model, tokenizer, prompts, 30, samples=3, seed=2, stop=["z"]):
        texts[piece.sequence] += piece.text
    assert len(set(texts)) == 6
    alone = "".join(p.text for p in stream_text(model, tokenizer, "né", 30, seed=2, stop="z"))
    assert alone == texts[3] and "z" not in "".join(texts)


def test_end_of_text_ends_a_text(model, tokenizer):
    bias = {tokenizer.eot_id: 100.0}
    assert list(stream_text(model, tokenizer, "a", 5, logit_bias=bias)) == []
    on = list(stream_text(model, tokenizer, "a", 2, logit_bias=bias, stop_tokens=()))
    assert "".join(p.text for p in on) == 2 * END_OF_TEXT


def test_faults(model, tokenizer):
    for stop in ("", [""], [3]):
        with pytest.raises(GenerationError, match="stop"):
            list(stream_text(model, tokenizer, "a", 2, stop=stop))
    with pytest.raises(TokenizerError):
        list(stream_text(model, tokenizer, "a" + END_OF_TEXT, 2))
    with pytest.raises(GenerationError, match="empty"):
        list(stream_text(model, tokenizer, "", 2))
    ids = np.array(tokenizer.encode("abc"))
    assert "".join(p.text for p in stream_text(model, tokenizer, ids, 4)) == "".join(
        p.text for p in stream_text(model, tokenizer, "abc", 4)
    )


def test_a_text_starts_after_the_end_of_one_or_a_line_break():
    from gpt_numpy.inference.text import start_of_text
    from gpt_numpy.tokenizer import END_OF_TEXT, CharTokenizer

    ended = CharTokenizer.train(["a\n"], special_tokens=(END_OF_TEXT,))
    assert start_of_text(ended) == [ended.eot_id]
    lines = CharTokenizer.train(["a\n"])
    assert start_of_text(lines) == lines.encode("\n")
    with pytest.raises(GenerationError, match="the prompt is empty"):
        start_of_text(CharTokenizer.train(["ab"]))
