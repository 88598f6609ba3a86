"""The scan by blocks against the pattern itself."""

import random

import numpy as np

from gpt_numpy.kernels.bpe import pretokenizer, scanner
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.pretokenize import split as split_by_pattern


@kernel(_nrt=False)
def _scan(text, stop, limit, table, starts, masks):
    return scanner.scan(text, (0, stop, limit), table, starts, 0, masks)


def word_starts(data, stop=None):
    """Where words of ``data[:stop]`` begin; behind the data stands what a scanner must not look at."""
    text = np.full(len(data) + 128, ord("e"), np.uint8)
    text[: len(data)] = np.frombuffer(data, np.uint8)
    starts, masks = np.zeros(len(data) + 128, np.uint16), np.zeros(6, np.uint64)
    stop = len(data) if stop is None else stop
    return starts[: _scan(text, stop, len(data), pretokenizer.character_classes(), starts, masks)].tolist()


def expected_starts(text):
    starts, position = [], 0
    for word in split_by_pattern(text, GPT2_PATTERN):
        starts.append(position)
        position += len(word.encode())
    return starts


def test_words_are_those_of_the_pattern(hard_strings):
    for text in map("".join, zip(*[iter(hard_strings(9000, 0))] * 3, strict=True)):
        assert word_starts(text.encode()) == expected_starts(text), text


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
