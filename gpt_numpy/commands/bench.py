"""``gpt-numpy bench``: the project's ``benchmarks``, which are in its folder and not in what is installed."""

import argparse
import importlib
import sys
from pathlib import Path

from ..errors import ConfigError

_FOLDER = Path(__file__).parents[2]  # of the checkout, where this package is in one

EXAMPLES = (
    ("gpt-numpy bench list", "the ladders and the peer runs"),
    ("gpt-numpy bench run gelu attention", "every rung checked against float64, then timed"),
    ("gpt-numpy bench run --plot roofline.png --json rungs.json", "all ladders as a picture, and as numbers"),
    ("gpt-numpy bench peers train-small", "whole training steps next to PyTorch and JAX"),
    ("gpt-numpy bench peers --help", "flags of one command"),
)


def configure(parser):
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="list, run, peers, tokenizer, recipe, step or assembly, with its arguments",
    )


def run(args) -> int:
    if not (_FOLDER / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the benchmarks are not installed, they are in the project's folder",
            found=str(Path(__file__).parents[1]),
            expected='a clone of the project, and in it: pip install -e ".[plot]"',
        )
    if str(_FOLDER) not in sys.path:
        sys.path.append(str(_FOLDER))  # at the end: an installed package of that name would be another
    return importlib.import_module("benchmarks.__main__").main(args.arguments or ["--help"], "gpt-numpy bench")
