"""``python -m benchmarks list | run | peers | tokenizer | recipe | step | assembly``; ``gpt-numpy bench`` is the same.

``--json FILE`` writes the results for a program to read, with the facts of this machine.
"""

import json
import sys
import textwrap
import time
import types
from collections.abc import Sequence
from pathlib import Path

from gpt_numpy.command_line import Parser
from gpt_numpy.commands import execute, prepare
from gpt_numpy.errors import ConfigError
from gpt_numpy.host.processors import others_busy
from gpt_numpy.host.terminal import columns
from gpt_numpy.machine import environment, hindrances
from gpt_numpy.training import plots

from . import assembly, bpe, ladder, peers, recipe, step, timing

_GLANCE = 0.3  # seconds in which other programs' load is measured beforehand


def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks") -> int:
    """Run the command line ``argv`` (default: the process's own); returns the exit code."""
    return execute(build_parser(prog).parse_args(argv))


def build_parser(prog: str) -> Parser:
    """The parser of all commands; errors and help name the program ``prog``."""
    parser = Parser(
        prog=prog, description="Measurements: operations up a ladder of rungs, programs next to their peers."
    )
    commands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True, title="commands")

    def add(name, summary, measure, known=()):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(measure=measure, known=known, names=())
        return command

    listing = add("list", "name the ladders and the peer runs", None)
    run = add("run", "climb ladders: every rung checked against float64, then timed", _run, ladder.CASES)
    run.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ladder.CASES)}; all when none is given")
    run.add_argument("--plot", metavar="FILE", help="draw the rungs on this machine's roofline (needs matplotlib)")
    against = add("peers", "whole programs next to other libraries, each in its own process", _peers, peers.RUNS)
    against.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(peers.RUNS)}; all when none is given")
    against.add_argument(
        "--only",
        action="append",
        metavar="CONTENDER",
        help="run this contender alone, named as in `list`; may be repeated (all contenders of a run are in memory together)",
    )
    against.add_argument("--rounds", type=int, default=7, help="timed rounds of each contender")
    tokenizer = add("tokenizer", "the tokenizer next to tiktoken, tokenizers and rustbpe", _tokenizer, bpe.CASES)
    bpe.configure(tokenizer)
    recipe.configure(add("recipe", "a whole training run, start-up included, next to PyTorch", _recipe))
    parts = add(
        "step", "one training step by operation: time, share of the limit, Python's part", step.run, step.SHAPES
    )
    step.configure(parts)
    loops = "a kernel's machine code: vector width, spills, instructions of its loops"
    assembly.configure(add("assembly", loops, assembly.run, assembly.NAMES))
    for command in commands.choices.values():
        if command is not listing:
            command.add_argument("--json", metavar="FILE", help="write the results to this file, for a program to read")
        prepare(command, types.SimpleNamespace(run=_list if command is listing else _measure))
    return parser


def _measure(args):
    """Say what slows this machine down, run the command, and write what it found to the file of ``--json``."""
    for name in args.names:
        if name not in args.known:
            raise ConfigError("no such name", found=name, expected=f"one of {', '.join(args.known)}")
    _check_files(args)
    notes = list(hindrances())
    time.sleep(_GLANCE)
    busy = others_busy()
    if busy > 0.5:
        notes.append(_busy_note(busy))
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    document = {"environment": environment(), **args.measure(args)}
    if busy <= 0.5 < (during := others_busy()):
        print(f"note: {_busy_note(during)}", file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        print(f"\nwrote {args.json}")


def _check_files(args):
    """Refuse, before minutes of measuring, files that cannot be written afterwards."""
    for flag, path in (("--json", args.json), ("--plot", getattr(args, "plot", None))):
        if path and not Path(path).absolute().parent.is_dir():
            raise ConfigError("there is no such folder", field=flag, path=Path(path).parent)
    if getattr(args, "plot", None) and not plots.available():
        raise ConfigError("matplotlib is not installed", field="--plot", expected='pip install ".[plot]"')


def _busy_note(busy):
    return f"other programs keep {busy:.1f} processors busy: figures are lower than they could be, and vary"


def _list(args):
    rows = [("run", name, ladder.load(name).summary, _names(ladder.load(name).rungs)) for name in ladder.CASES]
    rows += [("peers", name, run.summary, ", ".join(run.contenders)) for name, run in peers.RUNS.items()]
    rows += [("tokenizer", name, summary, "") for name, summary in bpe.CASES.items()]
    rows.append(("recipe", "--data FILE", "a whole training run, start-up included, next to PyTorch", ""))
    rows += [("step", name, _sizes(spec), "") for name, spec in step.SHAPES.items()]
    rows += [("assembly", name, "", "") for name in assembly.NAMES]
    for command, name, summary, contenders in rows:
        text = f"{summary}: {contenders}" if contenders else summary
        head = f"{command:10}{name:20} "
        print(textwrap.fill(text, columns(), initial_indent=head, subsequent_indent=" " * len(head)) if text else head)


def _names(rungs):
    return ", ".join(rung.name for rung in rungs)


def _run(args):
    limits = timing.limits()
    print(timing.limits_line(limits))
    results = []
    for name in args.names or ladder.CASES:
        case = ladder.load(name)
        print(f"\n{case.name}: {case.summary}   {_sizes(case.size)}   (* on {_sizes(case.small_size)})")
        heads = f"{'GFLOP/s':>9}{'GB/s':>8}{'of limit':>9}{'in':>9}" + f"{'memory':>11}{'compile':>9}" * _has_room()
        print(f"  {'rung':24}{'error':>9}{'time':>10}{heads}")
        results += ladder.climb(case, limits, _print_rung)
    if args.plot:
        from . import plot

        plot.roofline(results, limits, args.plot)
        print(f"\nwrote {args.plot}")
    return {"limits": limits, "results": [result._asdict() for result in results]}


def _has_room():
    """Whether the table's last two columns fit the terminal; in a pipe or file they do."""
    return not sys.stdout.isatty() or columns() >= 98


def _print_rung(result):
    star = "*" if result.size != ladder.load(result.case).size else " "
    head = f"  {result.rung + star:24}{result.error:>9.1e}"
    if result.seconds is None:
        print(f"{head}   fails its oracle, not timed")
        return
    memory = f"{result.memory / 1e6:>8.1f} MB{result.compile_seconds:>7.1f} s" * _has_room()
    print(
        f"{head}{timing.format_seconds(result.seconds['median']):>10}"
        f"{result.gflops:>9.3g}{result.gbytes:>8.3g}{result.share:>9.1%}{result.products:>9}{memory}"
    )


def _peers(args):
    results, chosen = {}, {name: peers.RUNS[name] for name in args.names or peers.RUNS}
    contenders = {contender for run in chosen.values() for contender in run.contenders}
    unknown = set(args.only or ()) - contenders
    if unknown:
        raise ConfigError(
            "no such contender",
            field="--only",
            found=sorted(unknown)[0],
            expected=f"one of {', '.join(sorted(contenders))}",
        )
    for name, run in chosen.items():
        print(f"\n{name}: {run.summary}")
        limits = timing.limits(0.1)
        print(timing.limits_line(limits))
        results[name] = peers.compare(run, args.rounds, args.only)
        peers.add_shares(results[name], run, limits)
        peers.print_table(results[name], run.unit)
    return {"peers": results}


def _tokenizer(args):
    return {"tokenizer": bpe.run(args)}


def _recipe(args):
    return {"recipe": recipe.run(args)}


def _sizes(size):
    return ", ".join(f"{key} {value}" for key, value in size.items())


if __name__ == "__main__":
    sys.exit(main())
