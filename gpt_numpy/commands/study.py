"""``gpt-numpy study``: the planted bugs, as riddles."""

import sys
import textwrap

from ..config import nearest
from ..errors import ConfigError

_PARTS = ("symptom", "hint", "answer")


EXAMPLES = (
    ("gpt-numpy study bugs", "all planted bugs, and the check that catches each"),
    ("gpt-numpy study bug layernorm-mean-term-forgotten", "one: the symptom, then a hint, then the answer"),
)


def configure(parser):
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("bugs", help="list the planted bugs and the check that catches each")
    bug = actions.add_parser("bug", help="one planted bug: the symptom, a hint, the answer")
    bug.add_argument("name", metavar="NAME", help="a name from 'gpt-numpy study bugs'")
    bug.add_argument(
        "--show", choices=_PARTS, help="up to which part (unset: a key press uncovers the next, or all into a pipe)"
    )
    bug.add_argument("--seed", type=int, default=0, help="of the values that the checks use")


def run(args):
    from ..study.bugs import BUGS

    if args.action == "bugs":
        for bug in BUGS.values():
            print(f"{bug.name:<42} {bug.caught_by}")
        return
    if args.name not in BUGS:
        raise ConfigError(f"no bug {args.name!r}{nearest(args.name, BUGS)}", expected="see 'gpt-numpy study bugs'")
    asked = args.show is None and sys.stdin.isatty() and sys.stdout.isatty()
    for part in _PARTS[: _PARTS.index(args.show or "answer") + 1]:
        if asked and part != "symptom":
            input(f"\n[Enter for the {part}] ")
        print(f"\n{part.capitalize()}\n" if part != "symptom" else f"{args.name}, in {BUGS[args.name].layer}\n")
        _SHOW[part](BUGS[args.name], args.seed)


def _symptom(bug, seed):
    from ..study import table
    from ..study.bugs import reports_of

    print(table.heading())
    for name, report in reports_of(bug, seed).items():
        for line in table.lines(name, report):
            print(line)


def _hint(bug, seed):
    print(textwrap.fill(bug.hint, 100))


def _answer(bug, seed):
    print(textwrap.fill(bug.answer, 100))
    print(f"\n{bug.diff()}")


_SHOW = {"symptom": _symptom, "hint": _hint, "answer": _answer}
