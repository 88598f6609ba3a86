"""The pinned table against tiktoken's, and texts that do not depend on the installed ``regex``."""

import numpy as np
import pytest
import regex

from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.pretokenize import split
from gpt_numpy.unicode import classes, data, tables_from_tiktoken


@pytest.mark.parametrize("name", [r"\p{L}", r"\p{N}", r"\s"])
def test_classes_are_tiktokens(name):
    pytest.importorskip("tiktoken")
    ours = {r"\p{L}": classes.letters, r"\p{N}": classes.numbers, r"\s": classes.spaces}[name]()
    assert np.flatnonzero(ours).tolist() == tables_from_tiktoken.characters_of(name)


@pytest.mark.campaign
def test_the_table_is_what_the_generator_writes():
    pytest.importorskip("tiktoken")
    parts = {
        name: tables_from_tiktoken.as_ranges(tables_from_tiktoken.characters_of(rf"\p{{{name}}}"))
        for name in tables_from_tiktoken.CATEGORIES
    }
    assert {name: ranges.split() for name, ranges in data.CATEGORIES.items()} == parts


def test_every_character_encodes_as_with_tiktoken(gpt2, tiktoken_gpt2, characters):
    for start in range(0, len(characters), 1 << 16):
        text = "".join(f"a{c}1{c}{c} {c}  {c}\n" for c in characters[start : start + (1 << 16)])
        assert gpt2.encode_ordinary(text) == tiktoken_gpt2.encode_ordinary(text)


@pytest.mark.parametrize("name", ["L", "N", "M", "P", "S", "Lu", "Ll", "Lm", "Lo"])
def test_regex_sees_the_pinned_categories(characters, name):
    text = "".join(characters)
    seen = classes.seen_by_regex(text)
    assert len(seen) == len(text)
    found = [characters[match.start()] for match in regex.finditer(rf"\p{{{name}}}", seen)]
    names = [category for category in data.CATEGORIES if category.startswith(name)]
    expected = np.zeros(classes.N_CODE_POINTS, bool)
    for category in names:
        classes._fill(expected, data.CATEGORIES[category], True)
    assert [ord(character) for character in found] == np.flatnonzero(expected).tolist()


def test_a_letter_of_a_later_version_is_none():
    assert split("ab\u088fcd \U00033000", GPT2_PATTERN) == ["ab", "\u088f", "cd", " \U00033000"]
    assert split("ab\u088fcd", r"\p{L}+|\P{L}+") == ["ab", "\u088f", "cd"]
