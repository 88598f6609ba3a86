"""The lessons as files: their cells, read aloud in a terminal or turned into notebooks that have been run.

A lesson is a Python script in percent format. ``# %%`` begins a cell of code, ``# %% [markdown]`` a cell of text, and
``# %% [answer]`` the answer to a question, and ``# %% [proof]`` code that shows the answer to be right. A notebook folds
an answer into ``<details>`` and collapses a proof; a terminal waits for a key before an answer. Jupyter (with jupytext)
and VS Code open a lesson without conversion.
"""

from __future__ import annotations

import contextlib
import importlib.util
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
_MARK = re.compile(r"^# %%(?P<kind> \[(?:markdown|answer|proof)\])?\n", re.MULTILINE)
CODE = ("code", "proof")
_COLLAPSED = {"jupyter": {"source_hidden": True, "outputs_hidden": True}}


def lessons(numbers=(), folder: Path = FOLDER) -> list[Path]:
    """Paths of the lessons with these numbers ("04"; "08" is three files), or of all, in order."""
    paths = sorted(folder.glob("[0-9][0-9]_*.py"))
    unknown = {str(n) for n in numbers} - {path.name[:2] for path in paths}
    if unknown:
        known = f"{paths[0].name[:2]} to {paths[-1].name[:2]}" if paths else "none"
        raise ConfigError(f"no lesson {', '.join(sorted(unknown))}", expected=known)
    return [path for path in paths if not numbers or path.name[:2] in numbers]


def labs(folder: Path = FOLDER) -> dict[str, Path]:
    """Name → path of the labs, in order: ``lab_2_limits.py`` is the lab ``limits``."""
    return {path.stem.split("_", 2)[2]: path for path in sorted(folder.glob("lab_[0-9]_*.py"))}


def title(path: Path) -> str:
    """The heading of a lesson or a lab, without its number."""
    return cells(path)[0][1].split("\n")[0].partition(". ")[2]


def cells(path: Path) -> list[tuple[str, str]]:
    """The lesson's cells: ``("markdown", "answer", "proof" or "code", text)``."""
    text = path.read_text(encoding="utf-8")
    marks = list(_MARK.finditer(text))
    found = []
    for mark, following in zip(marks, [*marks[1:], None]):
        body = text[mark.end() : following.start() if following else None].strip("\n")
        kind = (mark["kind"] or " [code]").strip(" []")
        if kind not in CODE:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        found.append((kind, body))
    return found


# ---- notebooks -------------------------------------------------------------------------------------------------------


def notebook(path: Path, executed: bool = False) -> dict:
    """The lesson as the content of an ``.ipynb`` file (nbformat 4.5); ``executed``: with the outputs of a run."""
    found, outputs = [], _outputs(path) if executed else iter(())
    count = 0
    parts = cells(path)
    for number, (kind, text) in enumerate(parts):
        if kind == "answer":
            proven = [following for following, _ in parts[number + 1 : number + 2]] == ["proof"]
            text += "\n\n*(The collapsed cell below checks this answer.)*" if proven else ""
            text = f"<details><summary>Answer (think first)</summary>\n\n{text}\n\n</details>"
        cell_type = "code" if kind in CODE else "markdown"
        source, metadata = text.splitlines(keepends=True), _COLLAPSED if kind == "proof" else {}
        cell: dict[str, Any] = {"id": f"cell-{number}", "cell_type": cell_type, "metadata": metadata, "source": source}
        if kind in CODE:
            count += 1
            cell.update(execution_count=count if executed else None, outputs=next(outputs, []))
        found.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(path: Path, folder: Path) -> Path:
    """Run the lesson and write it as a notebook, with its outputs, into ``folder``; returns the file's path."""
    target = folder / f"{path.stem}.ipynb"
    content = json.dumps(notebook(path, executed=True), indent=1, ensure_ascii=False)
    target.write_text(content + "\n", encoding="utf-8")
    return target


def shipped_notebook(path: Path) -> Path:
    """The notebook of a lesson that comes with the package, with the outputs of a run.

    ``run.py --to-notebook`` makes these files. A test compares each with what its lesson gives.
    """
    return path.parent / "notebooks" / f"{path.stem}.ipynb"


def copy_notebook(path: Path, folder: Path, again: bool = False) -> tuple[Path, bool]:
    """Copy the shipped notebook of a lesson into ``folder``: ``(the file's path, whether it is a new copy)``.

    A copy that is there already is the reader's, and is kept unless ``again``.
    """
    target = folder / f"{path.stem}.ipynb"
    if target.exists() and not again:
        return target, False
    target.write_bytes(shipped_notebook(path).read_bytes())
    if importlib.util.find_spec("nbformat"):
        _trust(target)
    return target, True


def _trust(path):
    """Sign a notebook as ``jupyter trust`` does. Jupyter shows no SVG of a notebook that it does not trust."""
    import nbformat.sign

    nbformat.sign.NotebookNotary().sign(nbformat.read(path, as_version=4))


def _outputs(path):
    """The output of each code cell, text and pictures, in the form of a notebook's outputs."""
    namespace = {"__name__": "__main__", "__file__": str(path)}
    for kind, text in cells(path):
        if kind in CODE:
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
        if kind in CODE:
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
