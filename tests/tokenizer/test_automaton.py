"""Automata of pre-tokenization patterns against ``regex``: the same words, or no automaton."""

import itertools
import random

import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.tokenizer import GPT2_PATTERN
from gpt_numpy.tokenizer.automaton import automaton_of, walk
from gpt_numpy.tokenizer.pretokenize import split

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERNS = {
    "gpt2": GPT2_PATTERN,
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s"
    ),
    "o200k": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "llama3": LLAMA3,
    "qwen2": LLAMA3.replace("{1,3}", ""),
    "deepseek": (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "backtracking": r"(?:b|ca?)?x?(?:ab|a)(?:c|bcd)|ab*c|[ab]+(?=c)|\S|\s",
    "skips": r"\p{L}+(?: \p{N}|\p{N}+)?|\p{N}{2,4}",
}
UNITS = [
    *"xbcd  \n\r\t'''sStTrReEvVlLmMdDſKkK aAbBcCzZ019²½Ⅷ-!/._~éÉǅʰß中の한🙂\u0301\u200d\xa0\u3000\u2028\x85\x1c\0",
    "'ll",
    "'LL",
    "'ſ",
    "\r\n",
    "   ",
    "12345",
    "abc",
]


def hard_texts(count, seed):
    rng = random.Random(seed)
    return ["".join(rng.choices(UNITS, k=rng.randrange(1, 14))) for _ in range(count)]


def ends_by_regex(text, pattern):
    """Where words end, or None if the pattern leaves a character out."""
    try:
        return list(itertools.accumulate(map(len, split(text, pattern))))
    except TokenizerError:
        return None


@pytest.mark.parametrize("name", PATTERNS)
def test_words_are_those_of_regex(name):
    automaton = automaton_of(PATTERNS[name])
    for text in hard_texts(3000, 1):
        found, expected = walk(automaton, text), ends_by_regex(text, PATTERNS[name])
        assert found == expected if expected is not None else (found or [0])[-1] < len(text), text


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+|\W",  # classes that the pinned tables lack
        r"\p{Han}+|\s|\S",
        r"a+?b|[\s\S]",  # lazy
        r"(a)\1|[\s\S]",  # looks back
        r"(?<=a)b|[\s\S]",
        r"a(?!bc)|[\s\S]",  # looks further ahead than a character
        r"(?:a|b)++|[\s\S]",
        r"(?:a*)*|[\s\S]",
        r"\s+$|[\s\S]",  # $ matches before a line feed
        r"[a-z&&[^aeiou]]|[\s\S]",
        r"(?i:é)|[\s\S]",
        r"^a|[\s\S]",
        r"(?i)a|[\s\S]",
        r"(?i:[^a])|[\s\S]",
        r"a{2,}|[\s\S]",
        "a{1,500}{1,500}|.",
        "(" * 5000,
    ],
)
def test_patterns_that_need_more_are_left_to_regex(pattern):
    assert automaton_of(pattern) is None
