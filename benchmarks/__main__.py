"""``python -m benchmarks list | run | peers | tokenizer | recipe | step | assembly``; the last line is JSON."""

import argparse
import json
import sys

from gpt_numpy.machine import environment, hindrances

from . import assembly, bpe, ladder, peers, recipe, step, timing


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the ladders and the peer runs")
    run = commands.add_parser("run", help="climb ladders: every rung checked against float64, then timed")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ladder.CASES)}; all when none is given")
    run.add_argument("--plot", metavar="FILE", help="draw the rungs on this machine's roofline (needs matplotlib)")
    against = commands.add_parser("peers", help="whole programs next to other libraries, each in its own process")
    against.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(peers.RUNS)}; all when none is given")
    against.add_argument(
        "--only",
        action="append",
        metavar="CONTENDER",
        help="run this contender alone, named as in `list`; may be repeated (all contenders of a run are in memory together)",
    )
    against.add_argument("--rounds", type=int, default=7, help="timed rounds of each contender (default 7)")
    tokenizer = commands.add_parser("tokenizer", help="the tokenizer next to tiktoken, tokenizers and rustbpe")
    bpe.configure(tokenizer)
    whole = commands.add_parser("recipe", help="a whole training run, start-up included, next to PyTorch")
    recipe.configure(whole)
    parts = commands.add_parser("step", help="one training step by operation: time, share of the limit, Python's part")
    step.configure(parts)
    code = commands.add_parser(
        "assembly", help="a kernel's machine code: vector width, spills, instructions of its loops"
    )
    assembly.configure(code)
    run.set_defaults(measure=_run, known=ladder.CASES)
    against.set_defaults(measure=_peers, known=peers.RUNS)
    tokenizer.set_defaults(measure=_tokenizer, known=bpe.CASES)
    whole.set_defaults(measure=_recipe, known=(), names=())
    parts.set_defaults(measure=step.run, known=step.SHAPES)
    code.set_defaults(measure=assembly.run, known=assembly.NAMES)
    for command in (run, against, tokenizer, whole, parts, code):
        command.add_argument("--json", metavar="FILE", help="also write the results to FILE")
    args = parser.parse_args(argv)
    if args.command == "list":
        return _list()
    unknown = [name for name in args.names if name not in args.known]
    if unknown:
        parser.error(f"unknown name {unknown[0]!r}; known: {', '.join(args.known)}")
    for line in hindrances():
        print(f"note: {line}", file=sys.stderr)
    results = args.measure(args)
    document = {"environment": environment(), **results}
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
    print(json.dumps(document))
    return 0


def _list():
    for name in ladder.CASES:
        case = ladder.load(name)
        print(f"run       {name:20} {case.summary}: {', '.join(rung.name for rung in case.rungs)}")
    for name, run in peers.RUNS.items():
        print(f"peers     {name:20} {run.summary}: {', '.join(run.contenders)}")
    for name, summary in bpe.CASES.items():
        print(f"tokenizer {name:20} {summary}")
    print("recipe    --data FILE          a whole training run, start-up included, next to PyTorch")
    for name, spec in step.SHAPES.items():
        print(f"step      {name:20} {_sizes(spec)}")
    print(f"assembly  {', '.join(assembly.NAMES)}")
    return 0


def _run(args):
    limits = timing.limits()
    print(timing.limits_line(limits))
    results = []
    for name in args.names or ladder.CASES:
        case = ladder.load(name)
        print(f"\n{case.name}: {case.summary}   {_sizes(case.size)}   (* on {_sizes(case.small_size)})")
        heads = f"{'GFLOP/s':>10}{'GB/s':>10}{'of limit':>10}{'in':>10}{'memory':>10}{'compile':>9}"
        print(f"  {'rung':28}{'error':>10}{'time':>12}{heads}")
        results += ladder.climb(case, limits, _print_rung)
    if args.plot:
        from . import plot

        plot.roofline(results, limits, args.plot)
        print(f"\nwrote {args.plot}")
    return {"limits": limits, "results": [result._asdict() for result in results]}


def _print_rung(result):
    star = "*" if result.size != ladder.load(result.case).size else " "
    if result.seconds is None:
        print(f"  {result.rung + star:28}{result.error:>10.1e}   fails its oracle, not timed")
        return
    print(
        f"  {result.rung + star:28}{result.error:>10.1e}{timing.format_seconds(result.seconds['median']):>12}"
        f"{result.gflops:>10.3g}{result.gbytes:>10.3g}{result.share:>10.1%}{result.products:>10}{result.memory / 1e6:>7.1f} MB"
        f"{result.compile_seconds:>7.1f} s"
    )


def _peers(args):
    results, chosen = {}, {name: peers.RUNS[name] for name in args.names or peers.RUNS}
    contenders = {contender for run in chosen.values() for contender in run.contenders}
    unknown = set(args.only or ()) - contenders
    if unknown:
        sys.exit(f"error: --only: no contender {sorted(unknown)[0]!r}; known: {', '.join(sorted(contenders))}")
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
