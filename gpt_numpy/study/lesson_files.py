"""The lessons as files: their cells, read aloud in a terminal or turned into notebooks that have been run.

A lesson is a Python script in percent format. ``# %%`` begins a cell of code, ``# %% [markdown]`` a cell of text, and
``# %% [answer]`` the answer to a question. A notebook folds an answer into ``<details>``; a terminal
waits for a key before it. Jupyter (with jupytext) and VS Code open a lesson without conversion.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import drawing

INSTALLED = Path(__file__).with_name("lessons")
FOLDER = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[2] / "scripts" / "lessons"  # in a checkout
_MARK = re.compile(r"^# %%(?P<kind> \[(?:markdown|answer)\])?\n", re.MULTILINE)


def lessons(numbers=(), folder: Path = FOLDER) -> list[Path]:
    """Paths of the lessons with these numbers ("04"; "08" is three files), or of all, in order."""
    paths = sorted(folder.glob("[0-9][0-9]_*.py"))
    unknown = {str(n) for n in numbers} - {path.name[:2] for path in paths}
    if unknown:
        known = f"{paths[0].name[:2]} to {paths[-1].name[:2]}" if paths else "none"
        raise ConfigError(f"no lesson {', '.join(sorted(unknown))}", expected=known)
    return [path for path in paths if not numbers or path.name[:2] in numbers]


def title(path: Path) -> str:
    """The lesson's heading, without its number."""
    return cells(path)[0][1].split("\n")[0].partition(". ")[2]


def cells(path: Path) -> list[tuple[str, str]]:
    """The lesson's cells: ``("markdown", "answer" or "code", text)``."""
    text = path.read_text(encoding="utf-8")
    marks = list(_MARK.finditer(text))
    found = []
    for mark, following in zip(marks, [*marks[1:], None]):
        body = text[mark.end() : following.start() if following else None].strip("\n")
        kind = (mark["kind"] or " [code]").strip(" []")
        if kind != "code":
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        found.append((kind, body))
    return found


# ---- notebooks -------------------------------------------------------------------------------------------------------


def notebook(path: Path, executed: bool = False) -> dict:
    """The lesson as the content of an ``.ipynb`` file (nbformat 4.5); ``executed``: with the outputs of a run."""
    found, outputs = [], _outputs(path) if executed else iter(())
    count = 0
    for number, (kind, text) in enumerate(cells(path)):
        if kind == "answer":
            text = f"<details><summary>Answer (think first)</summary>\n\n{text}\n\n</details>"
        cell_type = "code" if kind == "code" else "markdown"
        source = text.splitlines(keepends=True)
        cell: dict[str, Any] = {"id": f"cell-{number}", "cell_type": cell_type, "metadata": {}, "source": source}
        if kind == "code":
            count += 1
            cell.update(execution_count=count if executed else None, outputs=next(outputs, []))
        found.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(path: Path, folder: Path) -> Path:
    """Write the lesson as a notebook that has been run into ``folder``; returns the file's path."""
    target = folder / f"{path.stem}.ipynb"
    content = json.dumps(notebook(path, executed=True), indent=1, ensure_ascii=False)
    target.write_text(content + "\n", encoding="utf-8")
    return target


def _outputs(path):
    """The output of each code cell, text and pictures, in the form of a notebook's outputs."""
    namespace = {"__name__": "__main__", "__file__": str(path)}
    for kind, text in cells(path):
        if kind == "code":
            with _collecting() as (printed, pictures):
                exec(compile(text, str(path), "exec"), namespace)
            found = [_svg(picture) for picture in pictures]
            if printed.getvalue():
                lines = printed.getvalue().splitlines(keepends=True)
                found.insert(0, {"output_type": "stream", "name": "stdout", "text": lines})
            yield found


def _svg(picture):
    data = {"image/svg+xml": picture.svg.splitlines(keepends=True), "text/plain": [str(picture)]}
    return {"output_type": "display_data", "metadata": {}, "data": data}


@contextlib.contextmanager
def _collecting():
    printed, pictures = io.StringIO(), []
    before, drawing.on_show = drawing.on_show, pictures.append
    try:
        with contextlib.redirect_stdout(printed):
            yield printed, pictures
    finally:
        drawing.on_show = before


# ---- terminal --------------------------------------------------------------------------------------------------------


def read_aloud(path: Path, width: int = 80, wait=None) -> None:
    """Run a lesson in a terminal: print its prose, code and output; ``wait()`` is called before each answer.

    wait: by default a key press where both ends are a terminal, and nothing elsewhere.
    """
    wait = _wait_for_key if wait is None else wait
    namespace = {"__name__": "__main__", "__file__": str(path)}
    for kind, text in cells(path):
        if kind == "code":
            print(textwrap.indent(text, "    | "), end="\n\n")
            sys.stdout.flush()
            exec(compile(text, str(path), "exec"), namespace)
            print()
            continue
        if kind == "answer":
            wait()
        print(_plain(text, width), end="\n\n")


def _wait_for_key():
    if sys.stdin.isatty() and sys.stdout.isatty():
        input("[think first; Enter shows the answer] ")


def _plain(text, width):
    """Markdown for a terminal: headings underlined, paragraphs filled, formulas and lists as they are."""
    shown = []
    for part in text.split("\n\n"):
        heading = re.fullmatch(r"#+ (.*)", part.strip())
        if heading:
            shown.append(f"{heading[1]}\n{'─' * min(len(heading[1]), width)}")
        elif part.startswith(("    ", "- ", "|", "1. ")):
            shown.append(part)
        else:
            shown.append(textwrap.fill(" ".join(part.replace("**", "").replace("`", "").split()), width))
    return "\n\n".join(shown)
