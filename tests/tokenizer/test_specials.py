import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.tokenizer import Tokenizer
from gpt_numpy.tokenizer.specials import check_special_tokens, split_specials

SPECIALS = ("<|a|>", "<|a|><|b|>", "<|b|>", ".*")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["some text, some more text"], 256 + 5 + len(SPECIALS), special_tokens=SPECIALS)


def test_special_text_is_refused_unless_allowed(tokenizer):
    with pytest.raises(TokenizerError, match=r"offset 5: .*'<\|b\|>'"):
        tokenizer.encode("some <|b|>")
    with pytest.raises(TokenizerError, match=r"offset 6: .*'<\|b\|>'"):
        tokenizer.encode("<|a|> <|b|>", allowed_special={"<|a|>"})
    with pytest.raises(TokenizerError, match=r"offset 0: .*'<\|a\|><\|b\|>'"):
        tokenizer.encode("<|a|><|b|>", allowed_special={"<|a|>"})
    assert len(tokenizer.encode("<|a|><|b|>", allowed_special={"<|a|><|b|>"})) == 1


def test_the_longest_of_overlapping_specials_is_taken(tokenizer):
    ids = tokenizer.special_tokens
    assert tokenizer.encode("<|a|><|b|><|b|><|a|>", allowed_special="all") == [
        ids["<|a|><|b|>"],
        ids["<|b|>"],
        ids["<|a|>"],
    ]
    assert tokenizer.encode("<|a|><|b|>", allowed_special=["<|a|>", "<|b|>"], disallowed_special=()) == [
        ids["<|a|>"],
        ids["<|b|>"],
    ]


def test_a_special_token_is_no_pattern(tokenizer):
    assert tokenizer.encode("x", allowed_special="all") == [ord("x")]
    assert tokenizer.encode(".*", allowed_special="all") == [tokenizer.special_tokens[".*"]]


def test_special_text_as_ordinary_text(tokenizer):
    text = "some<|a|> text.*"
    ids = tokenizer.encode_ordinary(text)
    assert ids == tokenizer.encode(text, disallowed_special=())
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.decode(ids) == text


def test_only_some_disallowed(tokenizer):
    assert tokenizer.decode(tokenizer.encode("<|a|>.*", disallowed_special={"<|b|>"})) == "<|a|>.*"
    with pytest.raises(TokenizerError, match="offset 1"):
        tokenizer.encode("x.*", disallowed_special=[".*"])


def test_unknown_names_are_refused(tokenizer):
    with pytest.raises(TokenizerError, match="allowed_special: not a special token.*'<|c|>'"):
        tokenizer.encode("x", allowed_special={"<|c|>"})
    with pytest.raises(TypeError, match="not the str"):
        tokenizer.encode("x", allowed_special="<|a|>")


def test_parts_joined_are_the_text():
    text = "<|b|>x<|a|><|b|>.*y<|a|>"
    parts = list(split_specials(text, SPECIALS))
    assert "".join(part for part, _ in parts) == text
    assert [part for part, special in parts if special] == ["<|b|>", "<|a|><|b|>", ".*", "<|a|>"]


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ("<|a|>", TypeError, "not one str"),
        (["<|a|>", 3], TypeError, r"special_tokens\[1\] is a int"),
        ([""], TokenizerError, r"special_tokens\[0\]: a special token is empty"),
        (["x", "y", "x"], TokenizerError, r"special_tokens\[2\]: the same special token twice"),
        (["\ud800"], TokenizerError, "lone surrogate"),
    ],
)
def test_bad_special_tokens(bad, error, message):
    with pytest.raises(error, match=message):
        check_special_tokens(bad)
