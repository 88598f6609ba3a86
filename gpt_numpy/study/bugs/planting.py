"""A bug as a named patch of one source file, and the checks that have to catch it.

A ``Bug`` replaces one piece of text that occurs exactly once in a file of ``layers``, or in ``model`` or ``parts``. The
patched file is compiled into a copy of the package under another name. Installed files and imported modules do not
change. If the text no longer occurs in the file, planting raises an error.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import pathlib
import sys
import types
from typing import NamedTuple

from ... import layers
from ... import model as model_module
from ...errors import ConfigError
from .. import cases, whole_model
from ..gradients import GradientReport, Violation

_serial = itertools.count()
MODEL_FILES = ("model.py", "architecture/parts.py")


class Bug(NamedTuple):
    name: str
    file: str  # "attention.py" of layers, "model.py", or "architecture/parts.py"
    old: str  # the correct text, which occurs exactly once in the file
    new: str  # the text with the mistake
    caught_by: str  # the check that must fail, as ``failed_checks`` names it
    hint: str
    answer: str

    @property
    def layer(self):
        """The layer, or "model", whose checks catch the bug."""
        return self.caught_by.partition(":")[0].partition(" (")[0]

    @property
    def path(self):
        home = model_module if self.file in MODEL_FILES else layers
        return pathlib.Path(home.__file__).parent / self.file

    def patched_source(self):
        """The file's text with the bug in it."""
        source = self.path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ConfigError(
                f"bug {self.name!r} no longer fits its file",
                path=self.path,
                found=source.count(self.old),
                expected="its text exactly once",
            )
        return source.replace(self.old, self.new)

    def diff(self):
        """The patch as a unified diff of three lines of context."""
        before = self.path.read_text(encoding="utf-8").splitlines()
        lines = difflib.unified_diff(before, self.patched_source().splitlines(), self.file, self.file, lineterm="")
        return "\n".join(lines)


def plant(bug):
    """``(ops, GPT)`` with the bug in one of the two: a copy of ``layers``, or the class of a copy of ``model``."""
    return plant_source(bug, bug.patched_source())


def plant_source(bug, source):
    """``(ops, GPT)`` with ``source`` instead of the file that ``bug`` is in: a reader's attempt to mend the bug."""
    name = f"gpt_numpy.planted_{next(_serial)}"
    with _temporary_modules(name):
        if bug.file == "model.py":
            return layers, _execute(name, bug.path, source).GPT
        if bug.file == "architecture/parts.py":
            path = pathlib.Path(model_module.__file__)
            broken = _execute(name, path, path.read_text(encoding="utf-8"))
            broken.Parts = _execute(f"gpt_numpy.architecture.{name.rpartition('.')[2]}", bug.path, source).Parts
            return layers, broken.GPT
        return _copy_of_layers(name, bug, source), model_module.GPT


def _copy_of_layers(name, bug, source):
    package = types.ModuleType(name)
    package.__path__ = list(layers.__path__)
    package.__package__ = name
    sys.modules[name] = package
    # The patched module is loaded first, so that the other modules of the copy import it.
    stem = bug.file.removesuffix(".py")
    setattr(package, stem, _execute(f"{name}.{stem}", bug.path, source))
    exec(compile(pathlib.Path(layers.__file__).read_text(encoding="utf-8"), layers.__file__, "exec"), package.__dict__)
    return package


def _execute(name, path, source):
    module = types.ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(source, f"{path} with a planted bug", "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def _temporary_modules(prefix):
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n == prefix or n.startswith(prefix + ".")]:
            del sys.modules[name]


def reports(ops, gpt=model_module.GPT, layer=None, seed=0, **options):
    """Name → ``GradientReport`` of every case of ``layer``, or of all layers and the model.

    The model is checked along a few random directions, which is quick: a wrong entry shows in each of them.
    options: those of ``check_gradients``.
    """
    found = {}
    for case in cases.layer_cases(ops, seed):
        if layer in (None, case.layer):
            found[case.name] = _guarded(cases.check_case, case, seed=seed, **options)
    if layer in (None, "model"):
        for variant in whole_model.model_variants():
            name = f"model ({variant})" if variant else "model"
            quick = {"max_entries": 12, "n_directions": 6, **options}
            found[name] = _guarded(whole_model.check_model, ops, variant, seed, gpt=gpt, **quick)
    return found


def failed_checks(reports):
    """The names of all checks that failed, such as ``attention (dropout): differences of v``."""
    return [f"{name}: {check}" for name, report in reports.items() for check in report.failed_checks()]


def reports_of(bug, seed=0, **options):
    """``reports`` of the layer that the bug is in."""
    return reports(*plant(bug), bug.layer, seed, **options)


def _guarded(check, *args, **options):
    try:
        return check(*args, **options)
    except Exception as error:  # a bug that raises an exception is caught too
        return GradientReport([], [Violation("runs", f"{type(error).__name__}: {error}")])
