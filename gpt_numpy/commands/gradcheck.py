"""``gpt-numpy gradcheck``: check every gradient against difference quotients, in float64."""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from ..config import nearest
from ..errors import ConfigError
from ..host import terminal
from ..wording import counted

MODEL = "model"


EXAMPLES = (
    ("gpt-numpy gradcheck", "every layer, then the model"),
    ("gpt-numpy gradcheck gelu linear --ops kernels", "two layers of the kernels"),
    ("gpt-numpy gradcheck --method complex", "no subtraction, so no rounding: errors near 5e-16"),
    ("gpt-numpy gradcheck gelu --v-curve --plot v.png", "the error against the step of the difference"),
)


def configure(parser):
    from ..study.gradients import TOLERANCE

    parser.add_argument("layers", nargs="*", metavar="LAYER", help="layers to check, or 'model' (default: all)")
    parser.add_argument("--ops", choices=("layers", "kernels"), default="layers", help="whose gradients")
    parser.add_argument("--seed", type=int, default=0, help="seed of the values and of the random output gradient")
    parser.add_argument("--step", type=float, help="difference step h (unset: near the best for float64)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest relative error that passes")
    parser.add_argument(
        "--method",
        choices=("central", "complex"),
        default="central",
        help="central differences, or the complex step (NumPy layers but the loss: exact to rounding)",
    )
    parser.add_argument(
        "--dot-product",
        action=argparse.BooleanOptionalAction,
        help="a column with the error of ⟨u, Jv⟩ = ⟨Jᵀu, v⟩, a check without a step size (unset: where the forward takes "
        "complex numbers, which is for --ops layers, but not for the loss)",
    )
    parser.add_argument("--v-curve", action="store_true", help="show the error against the step instead")
    parser.add_argument("--plot", metavar="FILE", help="with --v-curve: draw it into this picture")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the table")


def run(args):
    from ..study import cases, table, whole_model

    chosen = _choose(args.layers, (*cases.layer_names(), cases.OPTIMIZER, MODEL))
    ops = importlib.import_module(f"gpt_numpy.{args.ops}")
    every = cases.layer_cases(ops, args.seed) + cases.optimizer_cases(ops, args.seed)
    found = [case for case in every if case.layer in chosen]
    if args.method == "complex":
        found = [case for case in found if cases.is_analytic(case)]
        if args.ops != "layers" or not found:
            raise ConfigError("not analytic", field="--method complex", found=", ".join(chosen), expected="layers")
    if args.v_curve:
        return _v_curve(found, args)
    if args.plot:
        raise ConfigError("nothing to draw", field="--plot", expected="--v-curve with it")
    options = {"seed": args.seed, "step": args.step, "tolerance": args.tolerance}
    started = time.perf_counter()
    if args.dot_product and args.ops != "layers":
        raise ConfigError("needs complex numbers", field="--dot-product", found=args.ops, expected="--ops layers")
    dots = args.ops == "layers" and args.dot_product is not False

    def show(name, report):
        if not args.json:
            print("\n".join(table.lines(name, report, dots=dots)), file=terminal.unescaped(sys.stdout), flush=True)
        return name, report

    if not args.json:
        print(f"{Path(ops.__file__).parent}: float64, {args.method} differences, tolerance {args.tolerance:g}")
        print(table.heading(dots=dots))
    reports = []
    for case in found:
        dot_product = dots and cases.is_analytic(case)
        report = cases.check_case(case, dot_product=dot_product, method=args.method, **options)
        reports.append(show(case.name, report))
    if MODEL in chosen and args.method == "central":
        for variant in whole_model.model_variants():
            name = f"{MODEL} ({variant})" if variant else MODEL
            reports.append(show(name, whole_model.check_model(ops, variant, **options)))
    if args.json:
        print(json.dumps([_plain(name, report) for name, report in reports], indent=2))
    reports = [report for _, report in reports]
    return _conclude(reports, time.perf_counter() - started, args.json, dots)


def _v_curve(found, args):
    from ..study import cases, step_size

    curves = []
    for case in found:
        methods = ["central"]
        if args.ops == "layers" and cases.is_analytic(case):
            methods.append("complex")
        for method in methods:
            curves.append(step_size.v_curve(case, method, seed=args.seed))
            print("\n".join(step_size.lines(curves[-1])), flush=True)
    if not curves:
        raise ConfigError("no curve for the whole model", field="--v-curve", expected="a layer")
    if args.plot:
        step_size.plot(curves, args.plot)


def _choose(names, known):
    for name in names:
        if name not in known:
            raise ConfigError(f"no layer {name!r}{nearest(name, known)}", expected=", ".join(known))
    return names or known


def _plain(name, report):
    """A report in JSON's types."""
    tensors = [{**check._asdict(), "passed": check.passed, "ulps": check.ulps} for check in report.tensors]
    violations = [violation._asdict() for violation in report.violations]
    return {"layer": name, "passed": report.passed, "tensors": tensors, "violations": violations}


def _conclude(reports, seconds, quiet, dots):
    from ..study import table

    tensors = [t for r in reports for t in r.tensors]
    n_failed = sum(not t.passed for t in tensors) + sum(len(r.violations) for r in reports)
    entries = sum(t.checked for t in tensors if t.method == "entries")
    directions = sum(t.checked for t in tensors) - entries
    worst = max((t.error for t in tensors), default=0.0)
    checked = f"{counted(entries, 'entry', 'entries')} and {counted(directions, 'direction')}"
    if not quiet:
        if sys.stdout.isatty():
            print(f"\n{table.legend(dots)}\n")
        print(
            f"{counted(len(tensors), 'tensor')}, {checked} in {seconds:.1f} s: "
            f"largest error {worst:.1e}, {n_failed} failed"
        )
    return 1 if n_failed else 0
