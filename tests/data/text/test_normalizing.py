"""The normalising steps: what each does, that nothing else happens, and that each is linear."""

import random
import time
import unicodedata

import pytest

from gpt_numpy.data.text import normalizing
from gpt_numpy.data.text.normalizing import DEFAULT_STEPS, STEPS, check_steps, normalize
from gpt_numpy.errors import ConfigError


@pytest.mark.parametrize(
    "step, before, after",
    [
        ("bom", "\ufeffa\ufeff", "a\ufeff"),
        ("bom", "\ufeff\ufeffa", "a"),
        ("nfc", "e\u0301 ﬁ ①", "é ﬁ ①"),
        ("nfkc", "e\u0301 ﬁ ①", "é fi 1"),
        ("newlines", "a\r\nb\rc\n\r\r\n\x85\u2028", "a\nb\nc\n\n\n\x85\u2028"),
        ("controls", "a\0\x07b\tc\n\r\x85\x7f\x9f", "ab\tc\n\r\x85"),
        ("trailing-space", " a \t\n b\t\n\nc  d \t ", " a\n b\n\nc  d"),
        ("blank-lines", "a\n\n\n\nb\n\nc\nd\n \n\n\n", "a\n\nb\n\nc\nd\n \n\n"),
    ],
)
def test_each_step(step, before, after):
    assert normalize(before, [step]) == after


def test_no_steps_change_nothing_and_the_default_is_documented():
    text = "\ufeffe\u0301\r\n \n\n\n\n\x07 "
    assert normalize(text, ()) == text
    assert DEFAULT_STEPS == ("bom", "nfc", "newlines")
    assert normalize(text) == "é\n \n\n\n\n\x07 "


def test_steps_run_in_one_order_and_twice_is_once():
    assert check_steps(["blank-lines", "newlines", "bom"]) == ("bom", "newlines", "blank-lines")
    text = "a\r\n\x01 \r\n\r\n \n\rb\ufb01 "
    for form in ("nfc", "nfkc"):
        steps = [step for step in STEPS if step not in {"nfc", "nfkc"} - {form}]
        once = normalize(text, steps)
        assert once == normalize(text, steps[::-1]) == normalize(once, steps)


@pytest.mark.parametrize(
    "steps, message", [(["nfcc"], "'nfc'"), (["bom", "bom"], "twice"), (["nfc", "nfkc"], "two forms"), ([3], "3")]
)
def test_bad_steps_are_refused(steps, message):
    with pytest.raises(ConfigError, match=message):
        normalize("a", steps)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_long_runs_of_marks_reach_the_exact_normal_form(form):
    decomposing = ["\u0f73", "\u0344", "\u0f81", "\uff9e", "\u0340"]
    marks = ["\u0301", "\u0323", "\u0345", "\u0327", "\u3099", "\U0001d165", *decomposing]
    rng = random.Random(form)
    for starter in ("a", "e\u0301", "é", "가", "\u0915", "か", "", "\u00a8"):
        for length in (29, 31, 32, 33, 150):
            text = starter + "".join(rng.choices(marks, k=length)) + "b\u0308"
            assert normalize(text, [form.lower()]) == unicodedata.normalize(form, text)


def test_no_mark_lies_before_the_first():
    for code in range(normalizing._FIRST_MARK):
        assert not unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "unit",
    [
        "\u0301\u0323",
        "\u0f73",
        "\u0344\u0323",
        "\uff9e\u0301",
        " ",
        "\t\n",
        "\n",
        "\r",
        "\x07",
        "e\u0301",
        " x",
        "字",
        "가" * 40 + "\u0301\u0323",
    ],
)
def test_hostile_megabytes_take_less_than_a_second_each(step, unit):
    text = "a" + unit * (1_000_000 // len(unit.encode())) + "b"
    normalize("é", [step])  # the tables of marks are made once
    start = time.process_time()
    normalize(text, [step])
    assert time.process_time() - start < 2, "the promise is 1 s per MB; twice that allows for a slow machine"


@pytest.mark.parametrize("seed", range(30))
def test_a_normalised_text_stays_as_it_is(seed):
    rng = random.Random(seed)
    parts = ["\ufeff", "\0", "\x07", "e", "\u0301", "\u0323", "\r", "\n", " ", "\t", "\ufb01", "\u1e9b", "\x7f", "a"]
    for _ in range(200):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        steps = rng.sample([step for step in STEPS if step != rng.choice(["nfc", "nfkc"])], rng.randrange(1, 6))
        steps = [step for step in steps if step != "nfkc"] if "nfc" in steps else steps
        once = normalize(text, steps)
        assert normalize(once, steps) == once, (text, steps)
