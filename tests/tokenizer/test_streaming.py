import random

from gpt_numpy.tokenizer import StreamDecoder, Tokenizer

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
