"""NFC with the characters of Unicode 9: as ``tokenizers`` has it, whatever version Python has."""

import random
import unicodedata

from tokenizers import normalizers

from gpt_numpy.unicode.normal_form import _LATER, normalized


def test_every_character_beside_marks_as_tokenizers_has_it():
    form = normalizers.NFC()
    for code in range(0x80, 0x110000):
        character = chr(code)
        if 0xD800 <= code < 0xE000 or not (
            unicodedata.combining(character) or unicodedata.decomposition(character) or _LATER.match(character)
        ):
            continue
        apart = unicodedata.normalize("NFD", character)
        for text in (character, apart, f"a\u0301{character}", f"a{character}\u0323\u0301", f"{character}{character}"):
            assert normalized(text) == form.normalize_str(text), ascii(text)


def test_random_marks():
    form, rng = normalizers.NFC(), random.Random(4)
    later = [chr(code) for code in range(0x80, 0x20000) if _LATER.match(chr(code))]
    marks = [chr(code) for code in range(0x300, 0x370)] + later
    for _ in range(3000):
        text = "".join(rng.choices(["e", "가", "ᄀ", "ᅡ", "ᆨ", "क", "़", *rng.sample(marks, 4)], k=8))
        assert normalized(text) == form.normalize_str(text), ascii(text)
    assert normalized("plain") == "plain"
