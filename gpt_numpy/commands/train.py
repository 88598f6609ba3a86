"""``gpt-numpy train``: train a new model, or go on with a run."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from ..errors import ConfigError, DataError
from ..host import terminal
from ..training import config_file
from ..training.plan.relevance import Circumstances, check_relevant, condition_of
from ..training.settings import MODEL_PARTS, Settings, kind_of, sections

EXAMPLES = (
    ("gpt-numpy train", "Python's own help text, a small model"),
    ("gpt-numpy train notes/ poems.txt --tokenizer char", "your own text, one token for each character"),
    ("gpt-numpy train notes/ --preset mini --lr 1e-3", "a larger model, another learning rate"),
    ("gpt-numpy train notes/ --init-from data/gpt2", "go on from a published model: gpt-numpy download gpt2"),
    ("gpt-numpy train --config recipe.toml --seed 7", "settings from a file; flags win over the file"),
    ("gpt-numpy train --resume runs/notes-1", "go on where a run stopped, however it stopped"),
)
WORDS = {
    "text in that encoding, another encoding, or errors=replace": "--encoding NAME, or --errors replace",
    "text, another encoding, or errors=replace": "text, --encoding NAME, or --errors replace",
    "choose the encoding": "--encoding utf-16 or utf-32",
}
_LONGEST_CHOICES = 60  # letters of the choices that stand beside a flag; more stand in its help
_ALIASES = {"learning_rate": ("--lr",)}


def configure(parser, settings=None):
    """Add the command's arguments; the help shows the values of ``settings`` (default: ``Settings()``) as defaults."""
    files = parser.add_argument("files", nargs="+", metavar="DATA", help="text files and folders: the same as --data")
    files.required = False  # nargs="*" would be taken for empty where flags come first
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder from its newest checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print what the run would do, and write nothing")
    parser.add_argument("--config", metavar="FILE", help="a TOML file of the settings below; flags win over it")
    parser.add_argument("--mpi", action="store_true", help="one rank of several: mpiexec -n 4 gpt-numpy train --mpi …")
    for section, fields in sections().items():
        group = parser.add_argument_group(f"{section} settings")
        for field in fields:
            _add_flag(group, field, getattr(settings or Settings(), field.name))
    parser.set_defaults(settings=settings)


def recipe(settings):
    """Run ``gpt-numpy train`` with ``settings`` as its defaults: the body of a script.

    The script takes all flags of the command, its --help shows the script's own values, and --config FILE and flags win
    over ``settings``. Ends the process with the command's exit code.
    """
    from ..command_line import Parser
    from . import execute, prepare

    parser = Parser(description=f"gpt-numpy train with the settings of {sys.argv[0]}; flags win over them.")
    configure(parser, settings)
    prepare(parser, sys.modules[__name__])
    name = os.path.basename(sys.argv[0])
    raise SystemExit(terminal.run_program(name, lambda: execute(parser.parse_args()), survives=True))


def flags_of(settings):
    """The flags that make ``settings`` of the defaults."""
    flags, defaults = [], Settings()
    for field in dataclasses.fields(settings):
        value, flag = getattr(settings, field.name), field.name.replace("_", "-")
        if value == getattr(defaults, field.name):
            continue
        if kind_of(field) is bool:
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


def add_shape_flags(group):
    """Add the flags that choose the sizes and parts of a model, but for ``--preset`` and ``--block-size``."""
    for field in sections()["model"]:
        if field.name in ("n_layer", "n_head", "n_embd", *MODEL_PARTS):
            _add_flag(group, field, None if field.name == "positions" else field.default, conditions=False)


def given_settings(args):
    """Name → value of the settings that the command line gives."""
    return {name.removeprefix("set_"): value for name, value in vars(args).items() if name.startswith("set_")}


def shape_of(args, preset):
    """The ``GPTConfig`` of ``add_shape_flags``' values and a preset."""
    values = given_settings(args)
    settings = Settings(**values, preset=preset)
    check_relevant(settings, Circumstances(), values)
    return settings.model_config()


def _add_flag(group, field, default, conditions=True):
    kind, flag = kind_of(field), f"--{field.name.replace('_', '-')}"
    default = default if kind is not tuple else " ".join(default)
    suffix = "" if default in (None, "") or "(default" in field.metadata["help"] else f" (default: {default})"
    options = {"dest": f"set_{field.name}", "default": argparse.SUPPRESS}
    condition = condition_of(field) if conditions else None
    when = f"; only with {condition.text}" if condition is not None else ""
    options["help"] = (field.metadata["help"] + when).replace("%", "%%") + suffix
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif kind is tuple:
        options |= {"nargs": "*", "metavar": field.name.upper()}
    else:
        options |= {"type": kind, "choices": field.metadata.get("choices")}
        options["metavar"] = None if options["choices"] else kind.__name__.upper()
        if options["choices"] and len(" ".join(options["choices"])) > _LONGEST_CHOICES:
            options["metavar"] = "NAME"
            options["help"] = f"{options['help']}; one of {', '.join(options['choices'])}"
    group.add_argument(flag, *_ALIASES.get(field.name, ()), **options)


def run(args):
    from ..training.ranks.distributed import Alone
    from ..training.session import dry_run, resume, start

    values, given = values_of(args)
    group = _mpi_group() if args.mpi else Alone()
    with group.guard():
        if args.resume:
            if args.dry_run:
                raise ConfigError("is for a new run", field="--dry-run", found="--resume")
            return resume(args.resume, values, group).exit_code
        settings = Settings.from_mapping(values)
        _check_downloads(settings)
        if args.dry_run:
            dry_run(settings, group, given)
            return 0
        return start(settings, args.out, group, given).exit_code


def values_of(args):
    """(name → value, names) of settings: those of the script, --config and flags (later ones win); names of the flags."""
    flags = given_settings(args)
    if args.files is not None:
        if "data" in flags:
            raise ConfigError("given twice", field="--data", found=" ".join(args.files), expected="DATA or --data")
        flags["data"] = args.files
    # A run that goes on has its settings already.
    own = args.settings.to_dict() if args.settings is not None and not args.resume else {}
    values = {**own, **(config_file.read(args.config) if args.config else {}), **flags}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}, set(flags)


def _check_downloads(settings):
    """``DataError`` that names the download command, where ``data`` names a file of the catalogue that is missing."""
    from .download import CATALOGUE

    for path in map(Path, settings.data):
        name = next((part for part in path.parts if part in CATALOGUE), None)
        if name is not None and not path.exists():
            raise DataError("there is no such file or folder", path=path, expected=f"after 'gpt-numpy download {name}'")


def _mpi_group():
    try:
        from ..training.ranks.mpi import MPIGroup
    except (ImportError, RuntimeError) as error:  # RuntimeError, of many lines: there is no MPI for mpi4py to load
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"mpi4py cannot be used ({reason})", field="--mpi", expected='pip install ".[mpi]"') from None
    return MPIGroup()
