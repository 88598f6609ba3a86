import random

import pytest

from gpt_numpy.errors import DataError, TokenizerError
from gpt_numpy.tokenizer import StreamDecoder, Tokenizer, streaming
from gpt_numpy.tokenizer.streaming import stable_parts

TEXT = "é 日本語 🙂👩‍👩‍👧 plain \ufffd \x00 end"


def test_no_character_is_cut():
    tokenizer = Tokenizer.train(["日本"], 258)
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.feed(i) for i in tokenizer.encode(TEXT)]
    assert "".join(pieces) + decoder.finish() == TEXT
    assert "" in pieces and all("\ufffd" not in piece or piece == "\ufffd" for piece in pieces)


def test_any_ids_in_any_portions_give_what_decode_gives():
    tokenizer = Tokenizer.train([TEXT], 270)
    for seed in range(300):
        rng = random.Random(seed)
        ids = [rng.randrange(tokenizer.n_vocab) for _ in range(rng.randrange(30))]
        decoder, out, start = StreamDecoder(tokenizer), "", 0
        while start < len(ids):
            stop = start + rng.randrange(1, 5)
            out += decoder.feed(ids[start:stop])
            start = stop
        assert out + decoder.finish() == tokenizer.decode(ids)


def test_an_unfinished_character_is_replaced_at_the_end():
    decoder = StreamDecoder(Tokenizer.train(["a b"], 258))
    assert (decoder.feed([0xF0, 0x9F]), decoder.feed(0x99), decoder.finish()) == ("", "", "\ufffd")


CHUNKED = [
    "The cat's hat 123abc  'tis\n\n  x\u3000日本語。テスト <|endoftext|><|end of text|> don't!! ",
    "'ll a1b2 \t\r\n é\u0301 🙂 ^^ ",
]


def cut_at_random(rng, text):
    places = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]


def test_a_stream_has_the_tokens_of_the_whole():
    tokenizer = Tokenizer.train(CHUNKED, 300, special_tokens=("<|endoftext|>", "<|end of text|>", " <|endoftext|"))
    for seed in range(400):
        rng = random.Random(seed)
        text = "".join(rng.choices(CHUNKED, k=3)) if seed % 2 else "".join(rng.choices("ab1 '\ns<|>", k=60))
        chunks = cut_at_random(rng, text)
        for options in ({"allowed_special": "all"}, {"disallowed_special": ()}):
            parts = list(tokenizer.encode_stream(chunks, **options))
            assert [i for part in parts for i in part.tolist()] == tokenizer.encode(text, **options), seed
            assert all(part.dtype == tokenizer.dtype for part in parts)


def test_a_stream_is_refused_where_the_whole_would_be():
    tokenizer = Tokenizer.train(["ab"], 258)
    with pytest.raises(TokenizerError, match="offset 13: the text holds the special token"):
        list(tokenizer.encode_stream(["some words, ", " <|endof", "text|>"]))
    with pytest.raises(TokenizerError, match="offset 8: a lone surrogate"):
        list(tokenizer.encode_stream(["so", "me b c\udc00 d", " e"]))
    with pytest.raises(TypeError, match="a text to encode is a str"):
        list(tokenizer.encode_stream([b"a"]))


def test_a_file(tmp_path, monkeypatch):
    tokenizer = Tokenizer.train(CHUNKED, 300)
    path, text = tmp_path / "text", "".join(CHUNKED) * 9
    path.write_bytes(text.encode())
    for size in (1, 3, 50, 1 << 20):
        monkeypatch.setattr(streaming, "CHUNK_BYTES", size)
        ids = [i for part in tokenizer.encode_file(path, allowed_special="all") for i in part.tolist()]
        assert ids == tokenizer.encode(text, allowed_special="all")
        for bad, offset in ((b"\xff", 7), (b"\xe6\x97!", 7), (b"\xe6\x97", 7)):
            (tmp_path / "bad").write_bytes(b"some \xc3\xa9" + bad)
            with pytest.raises(DataError, match=f"bad, offset {offset}: not UTF-8"):
                list(tokenizer.encode_file(tmp_path / "bad"))


def test_a_stream_holds_little():
    held = [len(part) for part in stable_parts(["some words and more, " * 50 for _ in range(40)], ["<|endoftext|>"])]
    assert len(held) >= 40 and max(held) < 1_200


def test_parts_joined_are_the_text():
    for seed in range(200):
        rng = random.Random(seed)
        text = "".join(rng.choices("ab1 '\n。<|>", k=80))
        assert "".join(stable_parts(cut_at_random(rng, text), ["<|", "<|>"])) == text


@pytest.mark.parametrize("unit", ["\n", "x", "é", "ab ", " <|endof"])
def test_no_character_is_looked_at_again_and_again(unit, monkeypatch):
    """The work is counted, not timed: characters searched for a word's end and for special tokens."""
    looked_at = []
    see, find = streaming.seen_by_regex, streaming.find_specials
    monkeypatch.setattr(streaming, "seen_by_regex", lambda text: looked_at.append(len(text)) or see(text))
    monkeypatch.setattr(
        streaming, "find_specials", lambda text, tokens: looked_at.append(len(text)) or find(text, tokens)
    )
    text = unit * 3000
    assert "".join(stable_parts(text, ["<|endoftext|>"])) == text
    assert sum(looked_at) < 60 * len(text)
