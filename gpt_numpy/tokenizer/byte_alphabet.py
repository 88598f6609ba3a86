"""GPT-2's printable spelling of bytes in ``vocab.json`` and ``merges.txt``.

A token is a string of bytes, and many bytes (a space, a newline, half a UTF-8 character) cannot be
written in a text file one token a line. GPT-2 therefore spells every byte as one printable character:
the 188 bytes that Latin-1 shows as visible characters stand for themselves, and the other 68, in
order, are the characters from U+0100 on. A space (0x20) becomes ``Ġ`` and a newline (0x0A) ``Ċ``:

>>> spell(b" hi\\n")
'ĠhiĊ'
>>> unspell("ĠhiĊ")
b' hi\\n'
>>> GPT2_BYTE_ORDER[:4]  # GPT-2's own vocabulary numbers the byte tokens in this order
(33, 34, 35, 36)
"""

_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = tuple(byte for byte in range(256) if byte not in _VISIBLE)

# The 256 bytes in the order of their characters: the visible ones first.
GPT2_BYTE_ORDER = _VISIBLE + _HIDDEN

_CHARACTERS = [""] * 256
for _byte in _VISIBLE:
    _CHARACTERS[_byte] = chr(_byte)
for _i, _byte in enumerate(_HIDDEN):
    _CHARACTERS[_byte] = chr(0x100 + _i)
BYTE_TO_CHARACTER = tuple(_CHARACTERS)
CHARACTER_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_TO_CHARACTER)}

_SPELLING = dict(enumerate(BYTE_TO_CHARACTER))  # str.translate from Latin-1, where code point = byte


def spell(token: bytes) -> str:
    """The printable spelling of ``token``, one character a byte."""
    return token.decode("latin-1").translate(_SPELLING)


def unspell(spelling: str) -> bytes:
    """The bytes that ``spelling`` stands for; ``ValueError`` if a character belongs to no byte."""
    try:
        return bytes(map(CHARACTER_TO_BYTE.__getitem__, spelling))
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} spells no byte") from None
