"""The ``gpt-numpy`` command: one module a subcommand, imported only when it is called.

A subcommand's module has ``configure(parser)``, which adds its arguments, and ``run(args)``, which does the work and
returns an exit code or None; ``EXAMPLES``, pairs (command line, what for) that end its help; and, where errors of the
library need other words here, ``WORDS`` (word of the library → word of the command). An error of
``gpt_numpy.errors`` becomes one line on standard error and the error's own exit code; ``--debug`` shows the
traceback instead.
"""

import importlib
import os
import signal
import sys

from .. import __version__
from ..command_line import Parser, in_flags
from ..errors import GPTNumpyError
from ..host import compiling, terminal
from ..wording import in_words

# name → one line of help; the module of the same name (dashes as underscores) does the work
SUBCOMMANDS = {
    "train": "train a GPT on text, or go on with a run",
    "runs": "list and compare training runs",
    "sweep": "train every combination of some settings, one run after the other, and compare",
    "download": "fetch data or a published model, resumable and verified",
    "data": "prepare, inspect and verify folders of token shards",
    "gradcheck": "check every gradient against difference quotients, in float64",
    "generate": "continue a prompt with a trained model",
    "convert": "turn a model into another file format: Hugging Face's folder, llm.c's .bin, llama.cpp's .gguf",
    "quantize": "keep a model's weights in fewer bytes, and measure what that costs",
    "eval": "measure a model on local files: perplexity, the next word, multiple choice",
    "score": "say how probable a model finds a text",
    "microscope": "write one page that shows every value and gradient of a model for a text",
    "study": "planted gradient bugs as riddles: the symptom, a hint, the answer",
    "tokenizer": "train a vocabulary, encode, decode, show a text by token, compare two",
    "bench": "measure kernels, training steps and the tokenizer next to other libraries",
    "info": "what a model costs in parameters, operations, bytes and time, and what holds this machine back",
}

_FIRST_STEPS = """first steps:
  gpt-numpy train                        a small model on Python's own help text
  gpt-numpy train notes/                 on text files of yours
  gpt-numpy generate --model RUN         RUN: the folder that training named
  gpt-numpy COMMAND --help               flags and examples of a command

completion by Tab, in bash and zsh (after pip install argcomplete):
  eval "$(register-python-argcomplete gpt-numpy)"
"""


def build_parser(chosen=None):
    """The argument parser; only the subcommand named ``chosen`` is imported and gets its arguments."""
    parser = Parser(
        prog="gpt-numpy",
        description="GPT-2 in NumPy: train it, read its gradients, generate with it, measure it.",
        epilog=_FIRST_STEPS,
    )
    parser.add_argument("--version", action="version", version=f"gpt-numpy {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True, title="commands")
    for name, summary in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = importlib.import_module(f".{name.replace('-', '_')}", __name__)
            module.configure(subparser)
            prepare(subparser, module)
    return parser


def prepare(parser, module):
    """Add the defaults that ``execute`` needs, and the module's examples, to a parser configured by ``module``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if examples := getattr(module, "EXAMPLES", ()):
        parser.epilog = "examples:\n" + "\n".join(f"  {line}" + f"\n      {why}" * bool(why) for line, why in examples)
    words = getattr(module, "WORDS", {})
    parser.set_defaults(run=module.run, flags=parser.flags(), words=words, command=parser.prog)


def main(argv=None):
    """Run the command line ``argv`` (default: the process's own); returns the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    if argv is None:
        return _be_the_program(sys.argv[1:])
    argv = list(argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = build_parser(chosen)
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    return execute(parser.parse_args(argv))


def _be_the_program(argv):
    """The command as a whole process: `main`, with standard output and error replaced."""
    chosen = next((word for word in argv if word in SUBCOMMANDS), None)
    name = f"gpt-numpy {chosen}" if chosen else "gpt-numpy"

    def run():
        compiling.announce()
        return main(argv)

    return terminal.run_program(name, run, survives=chosen == "train")


def execute(args):
    """Run the subcommand whose parsed arguments are ``args``; returns the exit code."""
    try:
        return args.run(args) or 0
    except GPTNumpyError as error:
        return _fail(args, error, error.exit_code, in_flags(error, args.flags, args.words))
    except OSError as error:
        return _fail(args, error, 3, in_words(error))
    except MemoryError as error:
        return _fail(args, error, 3, f"the memory is used up ({str(error) or 'no more can be taken'})")
    except KeyboardInterrupt as error:
        return _fail(args, error, 128 + signal.SIGINT, "interrupted")


def say_checkpoint(path):
    """Say on a terminal which checkpoint is taken, where ``path`` is a run's folder."""
    from ..locating import describe

    if sys.stderr.isatty() and (text := describe(path)) is not None:
        print(text, file=sys.stderr)


def _complete():
    """Print completions for the shell, by argcomplete; ends the process."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()[1:]
    argcomplete.autocomplete(build_parser(next((word for word in words if word in SUBCOMMANDS), None)))


def _fail(args, error, code, text):
    if args.debug:
        raise error
    if isinstance(error, BrokenPipeError):
        # The reader has closed the pipe (`… | head`): no message is possible, and the interpreter's last flush must not fail.
        terminal.discard(sys.stdout)
        return 128 + 13  # SIGPIPE, which Windows does not have
    print(f"{args.command}: {' '.join(text.split())}", file=sys.stderr)
    return code
