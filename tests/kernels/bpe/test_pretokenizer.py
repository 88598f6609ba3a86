"""The scanner against the pattern itself, and where a text may be cut."""

import random

import numpy as np
import pytest
import regex

from gpt_numpy.kernels.bpe import pretokenizer
from gpt_numpy.kernels.bpe.bits import padded
from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.pretokenize import split as split_by_pattern
from gpt_numpy.unicode import classes as unicode_classes


def words(data):
    ends = pretokenizer.split(data).tolist()
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_every_character_has_the_class_of_the_pinned_table(characters):
    table = pretokenizer.character_classes()
    codes = np.array([ord(character) for character in characters])
    expected = np.full(unicode_classes.N_CODE_POINTS, pretokenizer.OTHER)
    expected[unicode_classes.letters()] = pretokenizer.LETTER
    expected[unicode_classes.numbers()] = pretokenizer.NUMBER
    expected[unicode_classes.spaces()] = pretokenizer.SPACE
    assert np.array_equal(table.classes[table.pages[codes >> 8], codes & 255], expected[codes])
    assert table.ascii.tolist() == expected[:128].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_words_are_those_of_the_pattern(hard_strings, seed):
    for text in hard_strings(4000, seed):
        assert words(text.encode()) == [word.encode() for word in split_by_pattern(text, GPT2_PATTERN)], text


def test_all_short_strings_of_the_awkward_characters():
    alphabet = " '\nsvelrd1é½\u3000"
    for first in alphabet:
        for second in alphabet:
            for third in alphabet:
                for last in ("", " ", "e", "l", "!"):
                    text = first + second + third + last
                    assert [word.decode() for word in words(text.encode())] == regex.findall(GPT2_PATTERN, text)


def test_runs_across_the_eight_bytes_of_a_step():
    for unit in ("a", "é", "aé", "1", "²", "^", "'", " ", "\n", "中", "a中"):
        for n in range(1, 40):
            for text in (unit * n, " " + unit * n + " ", "x" + unit * n + "!"):
                assert [word.decode() for word in words(text.encode())] == regex.findall(GPT2_PATTERN, text)


def test_no_text_has_no_words():
    assert words(b"") == []


def last_cut(data, start=0):
    return pretokenizer._last_cut(padded(data), start, len(data), pretokenizer.character_classes())


def test_any_text_may_follow_a_cut(hard_strings):
    for head, tail in zip(hard_strings(1500, 2), hard_strings(1500, 3), strict=True):
        whole = (head + tail).encode()
        for size in {len(head.encode()), random.Random(len(whole)).randrange(len(whole) + 1)}:  # may cut a character
            cut = last_cut(whole[:size])
            assert 0 <= cut <= size
            assert words(whole[:cut]) + words(whole[cut:]) == words(whole), (head, tail, size)


@pytest.mark.parametrize(
    ("text", "cut"),
    [("a b", 1), ("ab", 0), ("it's", 2), ("a  ", 1), ("!!", 0), ("! ", 1), ("a1b", 2), ("'s x", 2), ("a é", 1)],
)
def test_the_last_cut_is_as_late_as_can_be(text, cut):
    assert last_cut(text.encode()) == cut


def test_a_cut_is_looked_for_behind_the_start_only():
    assert last_cut(b"one two three", 0) == 7
    assert last_cut(b"one two three", 7) == 7
    assert last_cut("one é".encode()[:-1], 3) == 3


def test_pieces_have_the_words_of_the_whole(hard_strings):
    data = "".join(hard_strings(300, 4)).encode()
    positions = pretokenizer.cuts(padded(data), 0, len(data), 50)
    assert len(positions) > 20
    pieces = [word for start, end in zip(positions, positions[1:], strict=False) for word in words(data[start:end])]
    assert pieces == words(data)
