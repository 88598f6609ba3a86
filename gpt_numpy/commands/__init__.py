"""The ``gpt-numpy`` command: one module a subcommand, imported only when it is called.

A subcommand's module has ``configure(parser)``, which adds its arguments, and ``run(args)``, which does
the work and returns an exit code or None. What goes wrong on purpose (``gpt_numpy.errors``) becomes one
line on standard error and the error's own exit code; ``--debug`` shows the traceback instead.
"""

import argparse
import importlib
import os
import signal
import sys

from .. import __version__
from ..errors import GPTNumpyError

# name → one line of help; the module of the same name (dashes as underscores) does the work
SUBCOMMANDS = {
    "train": "train a GPT on text, or go on with a run",
    "runs": "list and compare training runs",
    "download": "fetch data or a published model, resumable and verified",
    "data": "prepare, inspect and verify folders of token shards",
    "gradcheck": "check every gradient against difference quotients, in float64",
    "generate": "continue a prompt with a trained model",
    "convert": "turn a model into another file format: Hugging Face's folder, llm.c's .bin",
    "quantize": "keep a model's weights in fewer bytes, and measure what that costs",
    "score": "say how probable a model finds a text",
    "microscope": "write one page that shows every value and gradient of a model for a text",
    "study": "planted gradient bugs as riddles: the symptom, a hint, the answer",
    "tokenizer": "train a vocabulary, encode, decode, show a text by token, compare two",
    "info": "what a model costs in parameters, operations, bytes and time, and what holds this machine back",
}


def build_parser(chosen=None):
    """The argument parser; only the subcommand named ``chosen`` is imported and gets its arguments."""
    parser = argparse.ArgumentParser(
        prog="gpt-numpy", description="GPT-2 in NumPy: train it, read its gradients, generate with it, measure it."
    )
    parser.add_argument("--version", action="version", version=f"gpt-numpy {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, summary in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        if name == chosen:
            module = importlib.import_module(f".{name.replace('-', '_')}", __name__)
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv=None):
    """Run the command line ``argv`` (default: the process's own); returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    args = build_parser(chosen).parse_args(argv)
    try:
        return args.run(args) or 0
    except GPTNumpyError as error:
        return _fail(args, error, error.exit_code)
    except OSError as error:
        return _fail(args, error, 3)
    except KeyboardInterrupt as error:
        return _fail(args, error, 128 + signal.SIGINT, "interrupted")


def _fail(args, error, code, text=None):
    if args.debug:
        raise error
    if isinstance(error, BrokenPipeError):
        # The reader went away (`… | head`): nothing to tell anyone. Point stdout at nothing, so that
        # the interpreter's last flush does not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    text = " ".join(str(text or error).split()) or type(error).__name__
    print(f"gpt-numpy {args.subcommand}: {text}", file=sys.stderr)
    return code
