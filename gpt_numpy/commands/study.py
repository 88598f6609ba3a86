"""``gpt-numpy study``: lessons, exercises, planted bugs as riddles, curvature."""

import sys
import textwrap
from pathlib import Path

from ..config import check_integer, nearest
from ..errors import ConfigError
from ..host import terminal
from ..wording import counted

_PARTS = ("symptom", "hint", "answer")
TRAIN = "train"
LABS = ("sweep", "limits", "attention", "architecture")


EXAMPLES = (
    ("gpt-numpy study lesson 04", "a lesson as a notebook (--terminal: here)"),
    ("gpt-numpy study lab limits --terminal", "a lab: measure, predict, compare"),
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
        help="experiments: predict a sweep, measure prefill and decode, diagnose broken models, change the architecture",
        description="Without NAME: list the labs. --notebook opens a lab in Jupyter, --terminal reads it here. sweep and "
        "attention with neither: the experiment itself. sweep trains once for each value of one setting and compares with "
        "your prediction; attention trains, breaks the model in one of four ways, and writes its microscope page.",
    )
    lab.add_argument("lab", nargs="?", metavar="NAME", choices=LABS, help=", ".join(LABS))
    lab.add_argument("--notebook", action="store_true", help="open the lab as a notebook")
    lab.add_argument("--terminal", action="store_true", help="read the lab here")
    _configure_notebook(lab)
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
        description="Without NN: list the lessons. With NN: copy the lesson's notebook, with the outputs of a run, into "
        "this folder and open it in Jupyter. --terminal needs no Jupyter: prose, code and results, one cell at a time.",
    )
    lesson.add_argument("number", nargs="?", metavar="NN", help="the lesson's number, such as 04")
    lesson.add_argument("--terminal", action="store_true", help="read the lesson here")
    _configure_notebook(lesson)


def _configure_notebook(parser):
    parser.add_argument("--no-open", action="store_true", help="write the notebook and do not start Jupyter")
    parser.add_argument("--again", action="store_true", help="replace a notebook that is there by a fresh one")
    parser.add_argument("--folder", default=".", metavar="DIR", help="folder to write the notebook into")


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
    from ..study import lesson_files

    if args.number is None:
        for path in lesson_files.lessons():
            print(f"{path.name[:2]}  {lesson_files.title(path)}")
        return 0
    paths = lesson_files.lessons([f"{args.number:0>2}"])
    return _read(paths) if args.terminal else _notebooks(paths, args)


def _read(paths):
    from ..study import lesson_files

    for path in paths:
        lesson_files.read_aloud(path, terminal.columns())
    return 0


def _notebooks(paths, args):
    from ..study import lesson_files

    place = Path(args.folder)
    place.mkdir(parents=True, exist_ok=True)
    copies = [lesson_files.copy_notebook(path, place, args.again) for path in paths]
    for path, new in copies:
        print(path if new else f"{path}: as you left it (--again for a fresh one)")
    return 0 if args.no_open else _open(copies[0][0])


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
    from .. import layers
    from ..model import GPT
    from ..study.exercises import folder

    check_integer("--steps", args.steps, minimum=1)
    found = folder.written(place)
    print(f"trains on your {', '.join(found.names)}; everything else is the package's own")
    losses = folder.train(found, args.steps)
    own = folder.train(folder.Written(gpt=GPT, names=[], ops=layers), args.steps, report=lambda line: None)
    apart = max(abs(a - b) for a, b in zip(losses, own))
    print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}; a model that knows nothing has {folder.loss_of_nothing():.3f}")
    print(
        f"The package's own functions, from the same start on the same batches: → {own[-1]:.3f}, at most {apart:.0e} apart."
    )
    print("So your gradients are those of this model's loss, step after step: each step builds on all steps before it.")


# ---- curvature -------------------------------------------------------------------------------------------------------


def _curvature(args):
    import numpy as np

    from ..data import batch, builtin_corpus, read_documents
    from ..inference.loading import load_model
    from ..study import curvature
    from ..tokenizer.specials import begun

    for flag, least in (("sequences", 2), ("length", 1), ("products", 1), ("probes", 2)):
        check_integer(f"--{flag}", getattr(args, flag), minimum=least)
    model, tokenizer = load_model(args.model, np.float64)
    documents = read_documents([args.data]) if args.data else builtin_corpus("python-docs")
    ids = np.array(begun(tokenizer, tokenizer.encode_ordinary("\n".join(documents))))
    length = min(args.length, model.config.block_size)
    tokens, targets = batch(ids, args.sequences, length, args.seed, step=0)
    print(f"{counted(model.params.flat.size, 'parameter')}; {args.sequences} sequences of {length} tokens")
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
    from ..study import lesson_files

    paths = lesson_files.labs()
    if args.lab is None:
        for name, path in paths.items():
            print(f"{name:<14} {lesson_files.title(path)}")
        print("'gpt-numpy study lab NAME --notebook' opens one in Jupyter, --terminal reads it here")
        return 0
    if args.notebook:
        return _notebooks([paths[args.lab]], args)
    if args.terminal or args.lab not in ("sweep", "attention"):
        return _read([paths[args.lab]])
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
    name, length = f"case {args.case}", model.config.block_size
    page = build_page(model, run.tokenizer, labs.TEXT, name, length, say_faults=False)
    Path(args.out).write_text(page, encoding="utf-8")
    print(f"{args.out}: open it, compare the attention maps (boxes attn.weights) of all heads, and the losses")
    print(f"then: gpt-numpy study lab attention --case {args.case} --answer {'|'.join(labs.FAULTS)}")
    return 0


# ---- riddles ---------------------------------------------------------------------------------------------------------


def _bugs(args):
    from ..study import table
    from ..study.bugs import BUGS

    columns = table.line_width()
    for number, bug in enumerate(BUGS.values(), start=1):
        line = f"{number:<3} {bug.layer}" if args.numbers else f"{bug.name:<42} {bug.caught_by}"
        print(line if len(line) <= columns else f"{bug.name}\n{'':<4}{bug.caught_by}")


def _bug(args):
    from ..study.bugs import riddles

    riddle = riddles.at_random(args.layer) if args.random else riddles.chosen(args.name)
    if args.edit:
        path = riddles.write_copy(riddle, Path(args.folder))
        print(f"{path}: one mistake is in it. Mend it, then: gpt-numpy study bug {riddle.number} --check")
        return 0
    if args.check:
        wrong = riddles.verdict(riddle, Path(args.folder), args.seed)
        print("solved: every check passes" if not wrong else "\n".join(["not yet:", *(f"  {line}" for line in wrong)]))
        return 1 if wrong else 0
    asked = args.show is None and sys.stdin.isatty() and sys.stdout.isatty()
    for part in _PARTS[: _PARTS.index(args.show or "answer") + 1]:
        if asked and part != "symptom":
            input(f"\n[Enter for the {part}] ")
        print(f"\n{part.capitalize()}\n" if part != "symptom" else f"{riddle.title}\n")
        if part == "answer" and riddle.hidden:
            print(f"{riddle.bug.name}\n")
        _SHOW[part](riddle.bug, args.seed)
    return 0


def _symptom(bug, seed):
    from ..study import table
    from ..study.bugs import reports_of

    print(table.heading(dots=False))
    for name, report in reports_of(bug, seed).items():
        for line in table.lines(name, report, dots=False):
            print(line, file=terminal.unescaped(sys.stdout))


def _hint(bug, seed):
    _explain(bug.hint, bug.layer)


def _explain(text, layer):
    from ..study import glossary

    symbols = glossary.explained(text, layer)
    for part in (text, f"({symbols})" if symbols else ""):
        print(textwrap.fill(part, min(100, terminal.columns())), end="\n" if part else "")


def _answer(bug, seed):
    _explain(bug.answer, bug.layer)
    print(f"\n{bug.diff()}")


_SHOW = {"symptom": _symptom, "hint": _hint, "answer": _answer}
