"""Run the lessons and labs, or turn them into Jupyter notebooks.

    python scripts/lessons/run.py                          all of them, in order
    python scripts/lessons/run.py 04 08                    some (08 is three files)
    python scripts/lessons/run.py limits                   a lab
    python scripts/lessons/run.py --to-notebook notebooks  write .ipynb files instead, with the outputs of a run

In a terminal a lesson is printed as it runs: text, code, results. It waits for a key before an answer. ``gpt-numpy
study lesson 04`` does the same for an installed package.
"""

import argparse
import pathlib
import sys
import time

from gpt_numpy.errors import ConfigError
from gpt_numpy.study import lesson_files
from gpt_numpy.study.lesson_files import cells, notebook

__all__ = ["FOLDER", "cells", "chosen", "lessons", "main", "notebook"]

FOLDER = pathlib.Path(__file__).parent


def lessons(numbers=()):
    """Paths of the lessons with these numbers ("04"), or of all, in order."""
    return lesson_files.lessons(numbers, FOLDER)


def chosen(names):
    """Paths of the lessons and labs with these numbers and names; of all lessons and labs where there are none."""
    labs = lesson_files.labs(FOLDER)
    if not names:
        return [*lessons(), *labs.values()]
    numbers = [name for name in names if name not in labs]
    return [*(lessons(numbers) if numbers else []), *(labs[name] for name in names if name in labs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="lessons by number, labs by name (none: all)")
    parser.add_argument("--to-notebook", metavar="FOLDER", type=pathlib.Path, help="write notebooks instead of running")
    args = parser.parse_args()
    try:
        paths = chosen(args.numbers)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    for path in paths:
        if args.to_notebook:
            args.to_notebook.mkdir(parents=True, exist_ok=True)
            print(lesson_files.write_notebook(path, args.to_notebook))
        else:
            print(f"──── {path.stem} ", "─" * 40, flush=True)
            started = time.perf_counter()
            lesson_files.read_aloud(path)
            print(f"({time.perf_counter() - started:.1f} s)\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
