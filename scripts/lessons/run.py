"""Run the lessons, or turn them into Jupyter notebooks.

    python scripts/lessons/run.py                          all of them, in order
    python scripts/lessons/run.py 04 08                    some
    python scripts/lessons/run.py --to-notebook notebooks  write .ipynb files instead

A lesson is a Python script in percent format: ``# %%`` begins a cell, ``# %% [markdown]`` a cell of text. Jupyter
(with jupytext) and VS Code open it as it is.
"""

import argparse
import json
import pathlib
import re
import runpy
import sys
import time

FOLDER = pathlib.Path(__file__).parent
_MARK = re.compile(r"^# %%(?P<markdown> \[markdown\])?\n", re.MULTILINE)


def lessons(numbers=()):
    """Paths of the lessons with these numbers ("04"), or of all, in order."""
    paths = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    unknown = set(numbers) - {path.name[:2] for path in paths}
    if unknown:
        known = f"{paths[0].name[:2]} to {paths[-1].name[:2]}"
        raise SystemExit(f"no lesson {', '.join(sorted(unknown))}; there are {known}")
    return [path for path in paths if not numbers or path.name[:2] in numbers]


def cells(path):
    """The lesson's cells: ``("markdown" or "code", text)``."""
    text = path.read_text(encoding="utf-8")
    marks = list(_MARK.finditer(text))
    found = []
    for mark, following in zip(marks, [*marks[1:], None]):
        body = text[mark.end() : following.start() if following else None].strip("\n")
        if mark["markdown"]:
            found.append(("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))))
        else:
            found.append(("code", body))
    return found


def notebook(path):
    """The lesson as the content of an ``.ipynb`` file (nbformat 4.5)."""
    found = []
    for number, (kind, text) in enumerate(cells(path)):
        cell = {"id": f"cell-{number}", "cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
        if kind == "code":
            cell.update(execution_count=None, outputs=[])
        found.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="lessons by number (none: all)")
    parser.add_argument("--to-notebook", metavar="FOLDER", type=pathlib.Path, help="write notebooks instead of running")
    args = parser.parse_args()
    for path in lessons(args.numbers):
        if args.to_notebook:
            args.to_notebook.mkdir(parents=True, exist_ok=True)
            target = args.to_notebook / f"{path.stem}.ipynb"
            target.write_text(json.dumps(notebook(path), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(target)
        else:
            print(f"──── {path.stem} ", "─" * 40, flush=True)
            started = time.perf_counter()
            runpy.run_path(str(path), run_name="__main__")
            print(f"({time.perf_counter() - started:.1f} s)\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
