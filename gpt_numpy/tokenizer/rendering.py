"""A text with its tokens made visible: coloured in the terminal, or as a page for the browser.

A token is a string of bytes and may be half a character, so every token is shown by itself: as text where
its bytes are text, and in hexadecimal where they are not. Tokens that share a character are shown as a group. Blanks and
controls get a visible sign.
"""

from __future__ import annotations

import codecs
import html
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from ..wording import counted

SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
SIGNS.update({chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in SIGNS})
_BACKGROUNDS = (24, 58, 22, 89, 60, 94)  # of the 256 terminal colours: dark ones, under white letters
_INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Mn", "Me")


def visible(token: bytes) -> str:
    """``token`` on one line: its text, with signs for blanks and controls, or its bytes as ``‹e2 82›``."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return f"‹{token.hex(' ')}›"
    return "".join(SIGNS.get(c) or (f"‹{ord(c):04x}›" if unicodedata.category(c) in _INVISIBLE else c) for c in text)


def width(text: str) -> int:
    """How many cells of a terminal ``text`` takes: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def groups(ids: Sequence[int], tokens: Mapping[int, bytes]) -> Iterator[list[int]]:
    """``ids`` divided into the fewest in a row whose bytes end with a whole character."""
    decoder, group = codecs.getincrementaldecoder("utf-8")("replace"), []
    for i in ids:
        group.append(i)
        decoder.decode(tokens[i])
        if not decoder.getstate()[0]:
            yield group
            group = []
    if group:
        yield group


def terminal_lines(ids: Sequence[int], tokens: Mapping[int, bytes], columns: int, colour: bool) -> Iterator[str]:
    """Pairs of lines, the tokens of ``ids`` and under each its id. A line ends with a line of the text or at ``columns``.

    ``tokens[i]`` are the bytes of id i. Without ``colour`` the tokens are divided by ``|``, or by ``+`` where they share a
    character; with ``colour`` tokens that share a character have one colour.
    """
    row, used = [], 0
    for n, group in enumerate(groups(ids, tokens)):
        for k, i in enumerate(group, 1):
            text, number = visible(tokens[i]), str(i)
            cells = max(width(text), len(number))
            if row and used + cells > columns:
                yield from _pair_of_lines(row, colour)
                row, used = [], 0
            shown = f"\x1b[97;48;5;{_BACKGROUNDS[n % len(_BACKGROUNDS)]}m{text}\x1b[0m" if colour else text
            divider = " " if colour else "+" if k < len(group) else "|"
            row.append((shown + " " * (cells - width(text)), number.ljust(cells), divider))
            used += cells + 1
            if tokens[i].endswith(b"\n"):
                yield from _pair_of_lines(row, colour)
                row, used = [], 0
    if row:
        yield from _pair_of_lines(row, colour)


def _pair_of_lines(row, colour):
    texts, numbers, dividers = zip(*row)
    yield "".join(part for pair in zip(texts, (*dividers[:-1], "")) for part in pair).rstrip(" ")
    numbers = " ".join(numbers).rstrip(" ")
    yield f"\x1b[2m{numbers}\x1b[0m" if colour else numbers


def html_page(ids: Sequence[int], tokens: Mapping[int, bytes], n_vocab: int, title: str) -> str:
    """A self-contained page: the text coloured by token, each with its id and bytes, and the counts above it."""
    n_bytes = sum(len(tokens[i]) for i in ids)
    facts = {
        "tokens": f"{len(ids):,}",
        "distinct": f"{len(set(ids)):,}",
        "bytes": f"{n_bytes:,}",
        "bytes per token": f"{n_bytes / len(ids):.2f}" if ids else "–",
        "vocabulary": counted(n_vocab, "id"),
    }
    counts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    position, parts = 0, []
    for n, group in enumerate(groups(ids, tokens)):
        inner = "".join(_span(position + k, n, i, tokens[i]) for k, i in enumerate(group))
        position += len(group)
        if len(group) > 1:
            text = "".join(visible(c.encode()) for c in b"".join(tokens[i] for i in group).decode("utf-8", "replace"))
            head = f'<span class="g" title="{counted(len(group), "token")}"><em>{html.escape(text)}</em>'
            inner = f"{head}<span>{inner}</span></span>"
        parts.append(inner)
    spans = "".join(parts)
    return _PAGE.format(title=html.escape(title), style=_STYLE, counts=counts, spans=spans)


def _span(position, n, i, token):
    note = f"token {position}: id {i}, bytes {token.hex(' ')}"
    text = html.escape(visible(token))
    after = "<br>" * token.count(b"\n")
    return f'<span class="t c{n % len(_BACKGROUNDS)}" title="{note}"><b>{text}</b><i>{i}</i></span>{after}'


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fdfdfb; --faint: #6a737d;
  --c0: #cfe4ff; --c1: #ffe3b8; --c2: #cdeecb; --c3: #f6cfe4; --c4: #ddd6fb; --c5: #f3dccb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #16191d; --faint: #9aa4ae;
  --c0: #1f4668; --c1: #5b4417; --c2: #22532b; --c3: #5f2647; --c4: #41356f; --c5: #5d3a24; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1.2rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 0 0 1rem; }
dt { color: var(--faint); font-size: .8rem; } dd { margin: 0; font-variant-numeric: tabular-nums; font-weight: 600; }
main { font-family: ui-monospace, "DejaVu Sans Mono", monospace; line-height: 1.3; }
.t { display: inline-flex; flex-direction: column; vertical-align: top; margin: 0 1px 4px 0; border-radius: 3px;
  white-space: pre; overflow-wrap: anywhere; }
.t b { font-weight: normal; padding: 1px 2px; } .t i { font: 11px/1.2 system-ui; color: var(--faint); padding: 0 2px; }
.g { display: inline-flex; flex-direction: column; vertical-align: top; align-items: stretch; margin: 0 2px 4px 0;
  border: 1px solid var(--faint); border-radius: 4px; } .g em { font-style: normal; text-align: center; padding: 0 3px; }
.g > span { display: flex; } .g .t { margin: 0 1px 0 0; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); }
.c3 { background: var(--c3); } .c4 { background: var(--c4); } .c5 { background: var(--c5); }
.t i { color: color-mix(in srgb, var(--ink) 70%, transparent); }
#ids:not(:checked) ~ main i { display: none; }
label { color: var(--faint); }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><dl>{counts}</dl>
<input type="checkbox" id="ids" checked> <label for="ids">show ids</label>
<main>{spans}</main></body></html>
"""
