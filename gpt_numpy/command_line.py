"""The parser of command lines: it suggests the nearest flag, reports a mistake in one sentence and shows examples.

``Parser`` is argparse's, with these differences. A mistake prints a usage of one line and then one
sentence. An unknown flag is reported before missing arguments, with the known flag that is most like it.
Errors of the library name its arguments (``max_steps``); ``in_flags`` names the flags that the caller wrote.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys

from .errors import ConfigError, GenerationError, GPTNumpyError
from .host.terminal import columns

FLAG = "[FLAG ...]"
_WIDEST_HELP = 110
_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)")
_SPOKEN = (  # argparse's sentences → ours
    (re.compile(r"argument [A-Z]+: (no command .*)"), r"\1"),
    (re.compile(r"the following arguments are required: (.*)"), r"\1 is missing"),
    (re.compile(r"argument ([^\s:/]+)[^:]*: expected (?:one argument|1 argument)"), r"\1 needs a value"),
    (re.compile(r"argument ([^\s:/]+)[^:]*: expected at least one argument"), r"\1 needs a value"),
    (re.compile(r"argument ([^\s:/]+)[^:]*: (.*)"), r"\1: \2"),
)


def whole_number(text: str) -> int:
    """The integer that ``text`` spells: the type of flags that count."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """The number that ``text`` spells: the type of flags that measure."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


class Help(argparse.RawDescriptionHelpFormatter):
    """Help texts followed by their defaults, unless there is no default or the text gives it."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=30, width=min(columns(), _WIDEST_HELP) - 2)

    def add_argument(self, action):
        super().add_argument(action)
        if action.nargs == argparse.PARSER:  # argparse forgets that commands are indented further
            self._action_max_length += 2

    def _get_help_string(self, action):
        text, default = action.help or "", action.default
        said = "(default" in text or "(unset" in text or "%(default)" in text
        if said or default is None or isinstance(default, bool) or default in (argparse.SUPPRESS, "") or default == []:
            return text
        default = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
        return f"{text} (default: {default.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that answers mistakes in one sentence."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", Help)
        super().__init__(*args, **kwargs)
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def flags(self):
        """dest → the flag that sets it, as the help spells it; flags of the subcommands included."""
        found = {}
        for action in self._actions:
            names = [name for name in action.option_strings if name.startswith("--")]
            if names:
                found.setdefault(action.dest.removeprefix("set_"), names[0])
        branches = self._branches()
        for parser in branches.choices.values() if branches else ():
            found = {**parser.flags(), **found}
        return found

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        self._refuse_unknown_flags(args)
        found, extras = super().parse_known_args(args, namespace)
        if extras and self._branches() is None:
            self.error(f"nothing takes {extras[0]!r} here")
        return found, extras

    def format_usage(self):
        return self._with_short_usage(super().format_usage)

    def format_help(self):
        return self._with_short_usage(super().format_help)

    def error(self, message):
        """End the process with code 2: a usage of one line, and below it the message."""
        for pattern, sentence in _SPOKEN:
            if pattern.fullmatch(message):
                message = pattern.sub(sentence, message)
                break
        print(f"{self.format_usage().strip()}\n{self.prog}: {message}", file=sys.stderr)
        self.exit(2)

    def _with_short_usage(self, format):
        if self.usage is not None:
            return format()
        self.usage = self._short_usage()
        try:
            return format()
        finally:
            self.usage = None

    def _short_usage(self):
        words = [self.prog.replace("%", "%%")]
        for action in self._actions:
            name = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper())
            if action.option_strings:
                if action.required:
                    words.append(f"{action.option_strings[0]} {name}")
            elif action.nargs == argparse.PARSER:
                words.append(f"{name} ...")
            elif action.nargs in ("?", "*") or not action.required:
                words.append(f"[{name} ...]" if action.nargs in ("*", "+") else f"[{name}]")
            else:
                words.append(f"{name} [{name} ...]" if action.nargs == "+" else str(name))
        return " ".join([*words, FLAG])

    def _branches(self):
        return next((action for action in self._actions if action.nargs == argparse.PARSER), None)

    def _refuse_unknown_flags(self, args):
        known = [name for action in self._actions for name in action.option_strings]
        hands_on = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions)
        for word in args:
            if word == "--" or (hands_on and not word.startswith("-")):
                return  # the rest holds no flags, or another parser's
            name = word.split("=", 1)[0]
            if not word.startswith("-") or word == "-" or " " in name or _NUMBER.match(word) or name in known:
                continue
            if not (name.startswith("--") and any(flag.startswith(name) for flag in known)):  # an abbreviation
                stems = [flag.lstrip("-") for flag in known]
                close = difflib.get_close_matches(name.lstrip("-"), stems, n=1)
                end = f"did you mean --{close[0]}?" if close else f"'{self.prog} --help' lists them"
                self.error(f"no flag {name}; {end}")

    def _check_value(self, action, value):
        # argparse lists all choices and does not suggest the nearest.
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = difflib.get_close_matches(str(value), known, n=1)
        end = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        what = "command" if action.nargs == argparse.PARSER else "choice"
        raise argparse.ArgumentError(action, f"no {what} {value!r}; {end}")


def in_flags(error: GPTNumpyError, flags: dict[str, str], words: dict[str, str]) -> str:
    """The message of ``error`` in the words of the command line.

    flags: an argument of the library → the flag that sets it. words: other words of the library → the command's.
    Quotations from a file are not changed.
    """
    text = str(error)
    for word, own in words.items():
        text = text.replace(word, own)
    of_a_file = str(error.path).endswith(".toml") or not isinstance(error, (ConfigError, GenerationError))
    if of_a_file:
        return text
    head = str(error.path) if error.path is not None and text.startswith(str(error.path)) else ""
    rest = text[len(head) :]
    if error.field in flags:  # also a name that is an ordinary word, such as seed
        rest = re.sub(rf"(?<![\w-]){re.escape(error.field)}(?=:)", flags[error.field], rest, count=1)
    compound = [re.escape(name) for name in flags if "_" in name]
    if compound:
        rest = re.sub(rf"(?<![\w./-])({'|'.join(compound)})(?![\w./-])", lambda m: flags[m[1]], rest)
    return head + rest
