"""``gpt-numpy study``: lessons, exercises, planted bugs as riddles, curvature."""

import sys
import textwrap
from pathlib import Path

from ..config import check_integer, nearest
from ..errors import ConfigError
from ..host import terminal

_PARTS = ("symptom", "hint", "answer")
TRAIN = "train"


EXAMPLES = (
    ("gpt-numpy study lesson 04", "a lesson as a notebook (--terminal: here)"),
    ("gpt-numpy study exercise layernorm", "a gradient to write; then --check"),
    ("gpt-numpy study bug --random --layer attention", "a riddle"),
    ("gpt-numpy study bugs", "all planted bugs, and the check that catches each"),
    ("gpt-numpy study bug layernorm-mean-term-forgotten", "one: the symptom, then a hint, then the answer"),
)


def configure(parser):
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_lesson(actions)
    _configure_exercise(actions)
    _configure_curvature(actions)
    _configure_lab(actions)
    bugs = actions.add_parser("bugs", help="list the planted bugs and the check that catches each")
    bugs.add_argument("--numbers", action="store_true", help="numbers instead of names, which give the answers away")
    _configure_bug(actions)


def _configure_lab(actions):
    lab = actions.add_parser(
        "lab",
        help="experiments on a model that trains in seconds: a sweep to predict, broken models to diagnose",
        description="sweep: train once for each value of one setting, and compare with your prediction. attention: train, "
        "break the model in one of four ways, and write its microscope page; --answer checks your diagnosis.",
    )
    lab.add_argument("lab", choices=("sweep", "attention"), help="which experiment")
    lab.add_argument("--setting", default="lr", help="sweep: width, heads, layers, context or lr")
    lab.add_argument(
        "--values", type=float, nargs="+", default=[5e-4, 5e-3, 5e-2], metavar="X", help="sweep: its values"
    )
    lab.add_argument("--predict", type=float, metavar="X", help="sweep: the value that you expect to be best")
    lab.add_argument("--data", metavar="FILE", help="sweep: a text of your own (unset: a nursery rhyme)")
    lab.add_argument("--case", type=int, default=1, metavar="N", help="attention: 1 to 4")
    lab.add_argument("--answer", metavar="FAULT", help="attention: your diagnosis")
    lab.add_argument("--out", default="lab.html", metavar="FILE", help="attention: the page to write")
    lab.add_argument("--steps", type=int, default=120, metavar="N", help="training steps")


def _configure_bug(actions):
    bug = actions.add_parser(
        "bug",
        help="one planted bug as a riddle: the symptom, a hint, the answer",
        description="The name gives half the answer away: by number, and with --random, it is hidden until the answer. "
        "--edit writes the broken file for you to mend; --check runs the checks on your copy.",
    )
    bug.add_argument("name", nargs="?", metavar="NAME|N", help="a name or a number from 'gpt-numpy study bugs'")
    bug.add_argument("--random", action="store_true", help="any bug, chosen by the seed of the clock")
    bug.add_argument("--layer", metavar="LAYER", help="with --random: a bug of this layer")
    bug.add_argument("--edit", action="store_true", help="write the broken file into the folder of riddles")
    bug.add_argument("--check", action="store_true", help="check your copy: exit 0 only if nothing fails")
    bug.add_argument("--folder", default="riddles", metavar="DIR", help="folder of the copies")
    bug.add_argument(
        "--show", choices=_PARTS, help="last part to show (unset: Enter shows the next part; into a pipe, all parts)"
    )
    bug.add_argument("--seed", type=int, default=0, help="seed of the values that the checks use")


def _configure_lesson(actions):
    lesson = actions.add_parser(
        "lesson",
        help="open a lesson as a notebook, or read it in the terminal",
        description="Without NN: list the lessons. With NN: write the lesson's notebook, with the outputs of a run, into "
        "this folder and open it in Jupyter. --terminal needs no Jupyter: prose, code and results, one cell at a time.",
    )
    lesson.add_argument("number", nargs="?", metavar="NN", help="the lesson's number, such as 04")
    lesson.add_argument("--terminal", action="store_true", help="read the lesson here")
    lesson.add_argument("--no-open", action="store_true", help="write the notebook and do not start Jupyter")
    lesson.add_argument("--folder", default=".", metavar="DIR", help="folder to write the notebook into")


def _configure_curvature(actions):
    curvature = actions.add_parser(
        "curvature",
        help="the loss's second derivatives for a model: largest eigenvalue, trace, gradient noise scale",
        description="Hessian-vector products are exact: the hand-written backward, differentiated by the complex step.",
    )
    curvature.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    curvature.add_argument("--data", metavar="FILE", help="text for the loss (unset: Python's own documentation)")
    curvature.add_argument("--sequences", type=int, default=4, metavar="N", help="sequences in the batch, at least 2")
    curvature.add_argument("--length", type=int, default=64, metavar="T", help="tokens a sequence, at most")
    curvature.add_argument("--products", type=int, default=20, metavar="N", help="Lanczos steps for the eigenvalues")
    curvature.add_argument("--probes", type=int, default=8, metavar="N", help="random vectors for the trace")
    curvature.add_argument("--seed", type=int, default=0, help="seed of the batch and the random vectors")


def _configure_exercise(actions):
    exercise = actions.add_parser(
        "exercise",
        help="write a gradient yourself, and have it checked",
        description="Without NAME: list the exercises and the state of each. With NAME: write the exercise's file. "
        "With NAME --check: check the file. 'train' trains a small model on your own functions.",
    )
    exercise.add_argument("name", nargs="?", metavar="NAME", help="an exercise from the list, or 'train'")
    exercise.add_argument("--check", action="store_true", help="check the file; exit 0 only if everything is right")
    exercise.add_argument("--hint", action="store_true", help="with --check: say more about a recognised mistake")
    exercise.add_argument(
        "--level",
        choices=("steps", "function", "blank"),
        default="function",
        help="how much of the file is given: named steps to complete, one function's body, or nothing",
    )
    exercise.add_argument("--again", action="store_true", help="replace a file that you have worked on")
    exercise.add_argument("--folder", default="exercises", metavar="DIR", help="folder of the exercises")
    exercise.add_argument("--steps", type=int, default=60, metavar="N", help="with 'train': training steps")


def run(args):
    actions = {
        "lesson": _lesson,
        "exercise": _exercise,
        "curvature": _curvature,
        "lab": _lab,
        "bugs": _bugs,
        "bug": _bug,
    }
    return actions[args.action](args)


# ---- lessons ---------------------------------------------------------------------------------------------------------


def _lesson(args):
    import shutil

    from ..study import lesson_files

    if args.number is None:
        for path in lesson_files.lessons():
            print(f"{path.name[:2]}  {lesson_files.title(path)}")
        return 0
    paths = lesson_files.lessons([f"{args.number:0>2}"])
    if args.terminal:
        for path in paths:
            lesson_files.read_aloud(path, shutil.get_terminal_size().columns)
        return 0
    place = Path(args.folder)
    place.mkdir(parents=True, exist_ok=True)
    written = [lesson_files.write_notebook(path, place) for path in paths]
    print("\n".join(map(str, written)))
    return 0 if args.no_open else _open(written[0])


def _open(notebook):
    import importlib.util
    import subprocess

    for module in ("jupyterlab", "notebook"):
        if importlib.util.find_spec(module):
            name = {"jupyterlab": "lab", "notebook": "notebook"}[module]
            return subprocess.run([sys.executable, "-m", "jupyter", name, str(notebook)]).returncode
    raise ConfigError("Jupyter is not installed", expected="pip install notebook, or --terminal, or --no-open")


# ---- exercises -------------------------------------------------------------------------------------------------------


def _exercise(args):
    from ..study.exercises import exercise_named, folder

    place = Path(args.folder)
    if args.name is None:
        return _list(place)
    if args.name == TRAIN:
        return _train(args, place)
    exercise = exercise_named(args.name)
    if not args.check:
        path = folder.write(exercise, place, args.level, args.again)
        print(f"{path}: write {', '.join(exercise.written)}; lesson {exercise.lesson} derives what is needed")
        print(f"then: gpt-numpy study exercise {exercise.name} --check")
        return 0
    verdict = folder.check_file(exercise, place)
    print(verdict.text(args.hint))
    if verdict.hint and not args.hint:
        print("  (--hint says more)")
    return 0 if verdict else 1


def _list(place):
    from ..study.exercises import EXERCISES, folder

    states = folder.states(place)
    for name, state in states.items():
        exercise = EXERCISES[name]
        print(f"{name:<22} {state:<10} lesson {exercise.lesson}  {exercise.title}")
    right = sum(state == "right" for state in states.values())
    print(f"{right} of {len(states)} right; 'gpt-numpy study exercise NAME' writes {place / 'NAME.py'}")


def _train(args, place):
    from ..study.exercises import folder

    check_integer("--steps", args.steps, minimum=1)
    found = folder.written(place)
    print(f"trains on your {', '.join(found.names)}; everything else is the package's own")
    losses = folder.train(found, args.steps)
    print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")


# ---- curvature -------------------------------------------------------------------------------------------------------


def _curvature(args):
    import numpy as np

    from ..data import batch, builtin_corpus, read_documents
    from ..inference.loading import load_model
    from ..study import curvature

    for flag, least in (("sequences", 2), ("length", 1), ("products", 1), ("probes", 2)):
        check_integer(f"--{flag}", getattr(args, flag), minimum=least)
    model, tokenizer = load_model(args.model, np.float64)
    documents = read_documents([args.data]) if args.data else builtin_corpus("python-docs")
    ids = np.array(tokenizer.encode_ordinary("\n".join(documents)))
    length = min(args.length, model.config.block_size)
    tokens, targets = batch(ids, args.sequences, length, args.seed, step=0)
    print(f"{model.params.flat.size:,} parameters; {args.sequences} sequences of {length} tokens")
    print(f"loss                 {model.loss(tokens, targets):.4f}")
    found = curvature.eigenvalues(model, tokens, targets, args.products, args.seed)
    print(f"largest eigenvalue   {found.largest:.4g}  (within {found.residual:.1g}, {found.products} products)")
    print(f"smallest eigenvalue  {found.smallest:.4g}")
    trace, error = curvature.trace_estimate(model, tokens, targets, args.probes, args.seed)
    print(f"trace                {trace:.4g} ± {error:.1g}  ({args.probes} random vectors)")
    scale = curvature.gradient_noise_scale(model, tokens, targets)
    print(f"gradient noise scale {_noise(scale)}")
    print(f"Gradient descent is stable below a learning rate of 2 / largest eigenvalue = {2 / found.largest:.3g}.")


def _noise(scale):
    if not 0 < scale < float("inf"):
        return "not measurable with so few sequences: the mean gradient is smaller than its noise (--sequences)"
    return f"{scale:.3g} sequences"


# ---- labs ------------------------------------------------------------------------------------------------------------


def _lab(args):
    check_integer("--steps", args.steps, minimum=1)
    return _sweep(args) if args.lab == "sweep" else _attention_lab(args)


def _sweep(args):
    from ..data import read_documents
    from ..study import labs
    from ..study.drawing import bars

    text = "\n".join(read_documents([args.data])) if args.data else labs.TEXT
    if args.predict is None:
        print("Which value will be best? Write it down (--predict X) before you read on.\n")
    losses = labs.sweep(args.setting, args.values, args.steps, text)
    print(bars({f"{args.setting} {value:g}": loss for value, loss in losses.items()}, "loss on text not trained on"))
    best = min(losses, key=lambda value: losses[value])
    print(f"best: {args.setting} = {best:g}, loss {losses[best]:.3f}")
    if args.predict is not None:
        print("as you predicted" if args.predict == best else f"you predicted {args.predict:g}")


def _attention_lab(args):
    from ..study import labs
    from ..study.microscope import build_page

    fault = labs.fault_of(args.case)
    if args.answer is not None:
        if args.answer not in labs.FAULTS:
            known = ", ".join(labs.FAULTS)
            raise ConfigError(f"no fault {args.answer!r}{nearest(args.answer, labs.FAULTS)}", expected=known)
        print("right" if args.answer == fault else "no: look again")
        return 0 if args.answer == fault else 1
    run = labs.train(args.steps)
    model = labs.damaged(run, fault)
    with labs.shown(model):
        page = build_page(model, run.tokenizer, labs.TEXT, f"case {args.case}", model.config.block_size)
    Path(args.out).write_text(page, encoding="utf-8")
    print(f"{args.out}: open it, compare the attention maps (boxes attn.weights) of all heads, and the losses")
    print(f"then: gpt-numpy study lab attention --case {args.case} --answer {'|'.join(labs.FAULTS)}")
    return 0


# ---- riddles ---------------------------------------------------------------------------------------------------------


def _bugs(args):
    from ..study.bugs import BUGS

    for number, bug in enumerate(BUGS.values(), start=1):
        print(f"{number:<3} {bug.layer}" if args.numbers else f"{bug.name:<42} {bug.caught_by}")


def _bug(args):
    from ..study.bugs import BUGS

    bug, hidden = _chosen(args, list(BUGS.values()))
    number = list(BUGS).index(bug.name) + 1
    path = Path(args.folder) / f"{number:02}_{bug.file}"
    if args.edit:
        return _edit(bug, number, path)
    if args.check:
        return _check_riddle(bug, number, path, args.seed)
    title = f"riddle {number}, in {bug.layer}" if hidden else f"{bug.name}, in {bug.layer}"
    asked = args.show is None and sys.stdin.isatty() and sys.stdout.isatty()
    for part in _PARTS[: _PARTS.index(args.show or "answer") + 1]:
        if asked and part != "symptom":
            input(f"\n[Enter for the {part}] ")
        print(f"\n{part.capitalize()}\n" if part != "symptom" else f"{title}\n")
        if part == "answer" and hidden:
            print(f"{bug.name}\n")
        _SHOW[part](bug, args.seed)


def _chosen(args, bugs):
    """``(bug, whether its name is hidden)``."""
    import random

    if args.random:
        found = [bug for bug in bugs if args.layer in (None, bug.layer)]
        if not found:
            layers = sorted({bug.layer for bug in bugs})
            raise ConfigError(f"no bug in {args.layer!r}{nearest(args.layer, layers)}", expected=", ".join(layers))
        return random.choice(found), True
    if args.name is None:
        raise ConfigError("no bug named", expected="a name, a number, or --random")
    if args.name.isdigit():
        if not 1 <= int(args.name) <= len(bugs):
            raise ConfigError("no such riddle", found=int(args.name), expected=f"1 to {len(bugs)}")
        return bugs[int(args.name) - 1], True
    by_name = {bug.name: bug for bug in bugs}
    if args.name not in by_name:
        raise ConfigError(f"no bug {args.name!r}{nearest(args.name, by_name)}", expected="see 'gpt-numpy study bugs'")
    return by_name[args.name], False


def _edit(bug, number, path):
    if path.exists():
        raise ConfigError("this riddle's file exists already", path=path, expected="--check, or remove the file first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(bug.patched_source(), encoding="utf-8")
    print(f"{path}: one mistake is in it. Mend it, then: gpt-numpy study bug {number} --check")


def _check_riddle(bug, number, path, seed):
    from ..study.bugs import failed_checks, plant_source, reports

    if not path.exists():
        raise ConfigError("no copy to check", path=path, expected=f"'gpt-numpy study bug {number} --edit' before it")
    try:
        ops, gpt = plant_source(bug, path.read_text(encoding="utf-8"))
    except Exception as error:
        print(f"{path} does not run: {type(error).__name__}: {error}")
        return 1
    failed = failed_checks(reports(ops, gpt, bug.layer, seed))
    print("solved: every check passes" if not failed else "\n".join(["not yet:", *(f"  {name}" for name in failed)]))
    return 1 if failed else 0


def _symptom(bug, seed):
    from ..study import table
    from ..study.bugs import reports_of

    print(table.heading())
    for name, report in reports_of(bug, seed).items():
        for line in table.lines(name, report):
            print(line)


def _hint(bug, seed):
    print(textwrap.fill(bug.hint, min(100, terminal.columns())))


def _answer(bug, seed):
    print(textwrap.fill(bug.answer, min(100, terminal.columns())))
    print(f"\n{bug.diff()}")


_SHOW = {"symptom": _symptom, "hint": _hint, "answer": _answer}
