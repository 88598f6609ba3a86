"""``gpt-numpy train``: train a new model, or go on with a run."""

import argparse
import dataclasses
import sys

from ..errors import ConfigError
from ..training import config_file
from ..training.settings import Settings, kind_of, sections


def configure(parser):
    parser.formatter_class = argparse.HelpFormatter  # the defaults are in the help texts below
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder from its newest checkpoint")
    parser.add_argument("--config", metavar="FILE", help="a TOML file of the settings below; flags win over it")
    parser.add_argument("--mpi", action="store_true", help="one rank of several: mpiexec -n 4 gpt-numpy train --mpi …")
    for section, fields in sections().items():
        group = parser.add_argument_group(f"{section} settings")
        for field in fields:
            _add_flag(group, field)


def recipe(settings):
    """The whole of a script that has ``settings`` of its own: ``gpt-numpy train`` with them, and the caller's flags on top.

    Ends the process with the command's exit code.
    """
    from . import main

    raise SystemExit(main(["train", *flags_of(settings), *sys.argv[1:]]))


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


def _add_flag(group, field):
    kind, flag = kind_of(field), f"--{field.name.replace('_', '-')}"
    default = field.default if kind is not tuple else " ".join(field.default_factory())
    suffix = "" if default in (None, "") or "(default" in field.metadata["help"] else f" (default: {default})"
    options = {"dest": f"set_{field.name}", "default": argparse.SUPPRESS}
    options["help"] = field.metadata["help"].replace("%", "%%") + suffix
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif kind is tuple:
        options |= {"nargs": "*", "metavar": field.name.upper()}
    else:
        options |= {"type": kind, "choices": field.metadata.get("choices")}
        options["metavar"] = None if options["choices"] else kind.__name__.upper()
    group.add_argument(flag, **options)


def run(args):
    from ..training import resume, start
    from ..training.distributed import Alone

    flags = {name.removeprefix("set_"): value for name, value in vars(args).items() if name.startswith("set_")}
    values = {**(config_file.read(args.config) if args.config else {}), **flags}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    group = _mpi_group() if args.mpi else Alone()
    with group.guard():
        if args.resume:
            outcome = resume(args.resume, values, group)
        else:
            outcome = start(Settings.from_mapping(values), args.out, group)
    return outcome.exit_code


def _mpi_group():
    try:
        from ..training.mpi import MPIGroup
    except ImportError as error:
        raise ConfigError(f"mpi4py cannot be used ({error})", field="--mpi", expected='pip install ".[mpi]"') from None
    return MPIGroup()
