"""``python -m gpt_numpy.unicode.tables_from_tiktoken VERSION``: write ``data.py`` from the tables of the installed tiktoken.

tiktoken does not export its table, but its patterns use the table. For each category, all characters are encoded
with a pattern such as ``\\p{Lu}``, which finds the characters of the category. VERSION is the version of Unicode
that tiktoken's ``regex-syntax`` crate names.
"""

from __future__ import annotations

import sys
from pathlib import Path

CATEGORIES = "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "P", "S"
_WIDTH = 110
_HEAD = '''"""Categories of Unicode {version}, as hexadecimal ranges. Written by ``tables_from_tiktoken``; not to be edited."""

VERSION = "{version}"

'''


def characters_of(name: str) -> list[int]:
    """The code points that tiktoken's pattern ``name`` matches, in ascending order."""
    import tiktoken

    every_byte = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=name, mergeable_ranks=every_byte, special_tokens={})
    everything = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return [ord(character) for character in encoding.decode(encoding.encode_ordinary(everything))]


def as_ranges(codes: list[int]) -> list[str]:
    """Ascending ``codes`` as ``first-last`` in hexadecimal."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return [f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in ranges]


def _lines(items: list[str]) -> list[str]:
    lines = [""]
    for item in items:
        if len(lines[-1]) + len(item) >= _WIDTH:
            lines.append("")
        lines[-1] += f" {item}"
    return [f"{line.strip()}\n" for line in lines]


def source(version: str) -> str:
    """The text of ``data.py``."""
    parts = [_HEAD.format(version=version), "CATEGORIES = {\n"]
    for name in CATEGORIES:
        body = "".join(_lines(as_ranges(characters_of(rf"\p{{{name}}}"))))
        parts.append(f'    "{name}": """\n{body}""",\n')
    body = "".join(_lines(as_ranges(characters_of(r"\s"))))
    parts.append(f'}}\n\nSPACES = """\n{body}"""\n')
    return "".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("data.py").write_text(source(sys.argv[1]), encoding="utf-8")
