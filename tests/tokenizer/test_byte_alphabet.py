import pytest

from gpt_numpy.tokenizer.byte_alphabet import BYTE_TO_CHARACTER, GPT2_BYTE_ORDER, spell, unspell


def test_every_byte_has_a_character_of_its_own_that_is_visible():
    assert len(set(BYTE_TO_CHARACTER)) == 256
    assert all(character.isprintable() and not character.isspace() for character in BYTE_TO_CHARACTER)
    assert sorted(GPT2_BYTE_ORDER) == list(range(256))


def test_spelling_comes_back():
    everything = bytes(range(256))
    assert unspell(spell(everything)) == everything
    assert spell(b" \n\x00\xad") == "ĠĊĀŃ"


def test_what_spells_no_byte_is_refused():
    with pytest.raises(ValueError, match="' ' spells no byte"):
        unspell("a b")


def test_it_is_gpt2s_own(gpt2):
    assert gpt2.vocabulary.byte_ids == tuple(GPT2_BYTE_ORDER.index(byte) for byte in range(256))
