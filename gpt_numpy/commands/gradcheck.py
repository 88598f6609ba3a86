"""``gpt-numpy gradcheck``: prove every gradient against difference quotients, in float64."""

import importlib
import time

from ..config import nearest
from ..errors import ConfigError

MODEL = "model"


def configure(parser):
    from ..study.gradients import TOLERANCE

    parser.add_argument("layers", nargs="*", metavar="LAYER", help="which to check, also 'model' (none named: all)")
    parser.add_argument("--ops", choices=("layers", "kernels"), default="layers", help="whose gradients")
    parser.add_argument("--seed", type=int, default=0, help="of the values and the random output gradient")
    parser.add_argument("--step", type=float, help="difference step h (unset: near the best for float64)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest relative error that passes")


def run(args):
    from ..study import cases, table, whole_model

    chosen = _choose(args.layers, (*cases.layer_names(), MODEL))
    ops = importlib.import_module(f"gpt_numpy.{args.ops}")
    options = {"seed": args.seed, "step": args.step, "tolerance": args.tolerance}
    started = time.perf_counter()
    print(f"gpt_numpy.{args.ops}, float64, tolerance {args.tolerance:g}")
    print(table.heading())
    reports = []
    for case in cases.layer_cases(ops, args.seed):
        if case.layer in chosen:
            reports.append(_show(case.name, cases.check_case(case, **options)))
    if MODEL in chosen:
        for variant in whole_model.model_variants():
            name = f"{MODEL} ({variant})" if variant else MODEL
            reports.append(_show(name, whole_model.check_model(ops, variant, **options)))
    return _conclude(reports, time.perf_counter() - started)


def _choose(names, known):
    for name in names:
        if name not in known:
            raise ConfigError(f"no layer {name!r}{nearest(name, known)}", expected=", ".join(known))
    return names or known


def _show(name, report):
    from ..study import table

    for line in table.lines(name, report):
        print(line, flush=True)
    return report


def _conclude(reports, seconds):
    tensors = [t for r in reports for t in r.tensors]
    n_failed = sum(not t.passed for t in tensors) + sum(len(r.violations) for r in reports)
    entries = sum(t.checked for t in tensors if t.method == "entries")
    directions = sum(t.checked for t in tensors) - entries
    worst = max((t.error for t in tensors), default=0.0)
    print(
        f"{len(tensors)} tensors, {entries} entries and {directions} directions in {seconds:.1f} s: "
        f"largest error {worst:.1e}, {n_failed} failed"
    )
    return 1 if n_failed else 0
