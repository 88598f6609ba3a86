"""``gpt-numpy microscope``: one page that shows a model's values and gradients for a text."""

import importlib
from pathlib import Path

EXAMPLES = (('gpt-numpy microscope --model runs/notes-1 --text "The cat sat" --out page.html', ""),)


def configure(parser):
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    parser.add_argument("--text", required=True, help="the text to look at; - reads it from standard input")
    parser.add_argument("--out", default="microscope.html", metavar="FILE", help="the page to write")
    parser.add_argument("--max-tokens", type=int, default=32, metavar="N", help="tokens of the text to show at most")
    parser.add_argument("--ops", choices=("layers", "kernels"), default="layers", help="whose layers run")


def run(args):
    import sys

    import numpy as np

    from ..config import check_integer
    from ..data import read_as_trained
    from ..inference.loading import load_model
    from ..locating import find_model
    from ..study.microscope import build_page
    from . import say_checkpoint

    check_integer("--max-tokens", args.max_tokens, minimum=1)
    text = sys.stdin.read() if args.text == "-" else args.text
    say_checkpoint(args.model)
    text, _ = read_as_trained(find_model(args.model), text)
    model, tokenizer = load_model(args.model, np.float32, importlib.import_module(f"gpt_numpy.{args.ops}"))
    page = build_page(model, tokenizer, text, Path(args.model).resolve().name, args.max_tokens)
    Path(args.out).write_text(page, encoding="utf-8")
    print(f"{args.out}: {len(page.encode()) / 1e6:.1f} MB")
