"""The scan by blocks against the pattern itself."""

import random

import numpy as np

from gpt_numpy.kernels.bpe import pretokenizer, scanner
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.pretokenize import split as split_by_pattern


@kernel(_nrt=False)
def _scan(text, extent, table, joins, starts, masks):
    return scanner.scan(text, extent, table, joins, starts, 0, masks)


def word_starts(data, stop=None):
    """Where words of ``data[:stop]`` begin; behind the data stands what a scanner must not look at."""
    text = np.full(len(data) + 128, ord("e"), np.uint8)
    text[: len(data)] = np.frombuffer(data, np.uint8)
    starts, masks = np.zeros(len(data) + 128, np.uint16), np.zeros(6, np.uint64)
    stop = len(data) if stop is None else stop
    joins = np.full(1 << 16, 2**64 - 1, np.uint64)  # every pair of bytes may be joined: no word is divided
    return starts[: _scan(text, (0, stop, len(data)), pretokenizer.character_classes(), joins, starts, masks)].tolist()


def expected_starts(text):
    starts, position = [], 0
    for word in split_by_pattern(text, GPT2_PATTERN):
        starts.append(position)
        position += len(word.encode())
    return starts


def test_words_are_those_of_the_pattern(hard_strings):
    for text in map("".join, zip(*[iter(hard_strings(9000, 0))] * 3, strict=True)):
        assert word_starts(text.encode()) == expected_starts(text), text


def test_every_character_is_of_its_class():
    """Frequent characters have their classes from comparisons of bytes instead of the table: two beside each other."""
    characters = [chr(code) for code in (*range(0x80, 0xD800), *range(0xE000, 0x20100), *range(0xE0000, 0xE0200))]
    for start in range(0, len(characters), 4000):
        for around in ("a{}", "-{}", "1{}{}"):
            text = "".join(around.format(character, character) for character in characters[start : start + 4000])
            assert word_starts(text.encode()) == expected_starts(text), (start, around)


def test_every_position_of_every_awkward_string_in_a_block():
    units = (
        "'s",
        "'ll",
        "'",
        " '",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\u3000",
        "\xa0 ",
        " \xa0",
        "é",
        "中",
        "🙂",
        "١",
        "½",
        "l",
        "s!",
    )
    rng = random.Random(0)
    for offset in range(55, 68):
        for filler in ("a", " ", "é", "-"):
            for _ in range(40):
                text = (filler * 70)[:offset] + "".join(rng.choices(units, k=4)) + rng.choice(["", "x", " ", "中"])
                assert word_starts(text.encode()) == expected_starts(text), text


def test_all_but_the_last_start_are_final_where_the_text_goes_on(hard_strings):
    for text in map("".join, zip(*[iter(hard_strings(3000, 1))] * 2, strict=True)):
        stop = random.Random(len(text)).randrange(len(text.encode()) + 1)
        found, expected = word_starts(text.encode(), stop), expected_starts(text)
        assert found == expected[: len(found)], (text, stop)


def test_wide_words_are_divided_only_where_no_merge_joins(gpt2, encoder):
    """All tokens of the vocabulary, and pairs of them: no token may be cut."""
    joins, vocabulary = encoder._tables.joins, gpt2.vocabulary
    for left, right in vocabulary.merges:
        a, b = vocabulary.tokens[left], vocabulary.tokens[right]
        for before in a[-2:-1] or bytes(range(8)):
            for behind in b[1:2] or bytes(range(8)):
                bit = (before & 7) << 3 | behind & 7
                assert int(joins[a[-1] << 8 | b[0]]) >> bit & 1, (a, b)


def test_texts_of_wide_words_encode_as_with_tiktoken(encoder, tiktoken_gpt2, gpt2):
    rng = random.Random(3)
    tokens = [token.decode(errors="ignore") for token in gpt2.vocabulary.tokens]
    wide = [token for token in tokens if token > "\u2fff"]
    for _ in range(300):
        letters = [chr(rng.choice((rng.randrange(0x3040, 0x3100), rng.randrange(0x4E00, 0x9FA6)))) for _ in range(30)]
        pieces = rng.choices([*letters, *rng.choices(wide, k=30), "a", " ", "\u3000", "🙂", "。", "１"], k=60)
        assert encoder.encode("".join(pieces)) == tiktoken_gpt2.encode_ordinary("".join(pieces))
