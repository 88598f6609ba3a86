import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_numpy.errors import TokenizerError
from gpt_numpy.tokenizer import pretokenize
from gpt_numpy.tokenizer.pretokenize import GPT2_PATTERN, split


@pytest.mark.parametrize(
    "text, words",
    [
        ("", []),
        ("It's", ["It", "'s"]),
        ("IT'S", ["IT", "'", "S"]),
        ("we'll've", ["we", "'ll", "'ve"]),
        ("a  b", ["a", " ", " b"]),
        ("a \n b", ["a", " \n", " b"]),
        ("end  ", ["end", "  "]),
        ("\r\n\r\nx", ["\r\n\r", "\n", "x"]),
        ("x2²½ y", ["x", "2²½", " y"]),
        ("\x00\u200d!", ["\x00\u200d!"]),
        (" e\u0301", [" e", "\u0301"]),
        ("\u00a0a", ["\u00a0", "a"]),
    ],
)
def test_gpt2s_pattern(text, words):
    assert split(text, GPT2_PATTERN) == words


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_words_joined_are_the_text(text):
    assert "".join(split(text, GPT2_PATTERN)) == text


def test_a_pattern_that_leaves_characters_out_is_refused_with_the_position():
    with pytest.raises(TokenizerError, match="offset 2: .*' b'"):
        split("aa b", r"\w+")
    with pytest.raises(TokenizerError, match="offset 2"):
        split("aa!", r"\w+")


def test_a_pattern_with_groups_and_empty_matches():
    assert split("aab", r"(a)|b*") == ["a", "a", "b"]


def test_a_bad_pattern():
    with pytest.raises(TokenizerError, match="does not compile"):
        split("a", "(")
    with pytest.raises(TypeError, match="pattern is a str"):
        split("a", None)


def test_a_pattern_without_end_is_refused_in_bounded_time(monkeypatch):
    monkeypatch.setattr(pretokenize, "TIME_LIMIT", 0.1)
    with pytest.raises(TokenizerError, match="takes too long on this text.*a[|]a"):
        pretokenize.split("a" * 40 + "b", r"(a|a)+$|[\s\S]")
