"""Which folder a path to a model means: the folder itself, or the best checkpoint of a run.

Every function and command that takes a model or a tokenizer takes a run's folder too. The newest checkpoint's
``trainer_state.json`` says which checkpoint validated best (see ``training.trainer``).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from .errors import ModelNotFound
from .files.regular import read_regular
from .wording import counted

CHECKPOINTS = "checkpoints"  # the folder in a run's folder
PUBLISHED = {"gpt2": "gpt2", "openai-community/gpt2": "gpt2"}  # name → what `gpt-numpy download` calls it
_STEP = re.compile(r"step-(\d{1,15})")


def find_model(path: str | os.PathLike) -> Path:
    """The folder with the model that ``path`` means: ``path`` itself, or the best of ``path/checkpoints``, or the newest.

    Raises ``ModelNotFound`` where ``path`` is no folder, or is a run without a checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelNotFound(*_missing(path))
    if os.path.lexists(path / "config.json") or not (path / CHECKPOINTS).is_dir():
        return path
    steps = _checkpoints(path)
    if not steps:
        raise ModelNotFound("this run has no checkpoint yet", path)
    newest = steps[max(steps)]
    try:
        best = json.loads(read_regular(newest / "trainer_state.json"))["best_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        best = None  # another program's folder, or a broken one: loading the folder raises the error
    return steps.get(best, newest) if type(best) is int else newest


def find_tokenizer(path: str | os.PathLike) -> Path:
    """The folder with the tokenizer that ``path`` means; ``path`` itself unless ``path`` is a run's folder."""
    path = Path(path)
    return find_model(path) if (path / CHECKPOINTS).is_dir() and _checkpoints(path) else path


def describe(path: str | os.PathLike) -> str | None:
    """One sentence on which checkpoint of the run at ``path`` is taken; None where ``path`` is the model's folder."""
    found = find_model(path)
    if found == Path(path):
        return None
    steps = _checkpoints(Path(path))
    which = "the newest" if found == steps[max(steps)] else "the best"
    if len(steps) == 1:
        return f"{path}: taking step {next(iter(steps)):,}, its only checkpoint"
    step = next(number for number, folder in steps.items() if folder == found)
    return f"{path}: taking step {step:,}, {which} of its {counted(len(steps), 'checkpoint')}"


def _checkpoints(path):
    found = ((_STEP.fullmatch(entry.name), entry) for entry in (path / CHECKPOINTS).iterdir())
    return {int(match[1]): entry for match, entry in found if match}


def _missing(path):
    """(message, path, expected) for a path that is no folder."""
    if path.exists():
        return "not a folder", path, "a run's folder, or one as Hugging Face keeps a GPT-2"
    name = PUBLISHED.get(path.as_posix()) or (path.name if path.as_posix() == f"data/{path.name}" else None)
    if name in PUBLISHED:
        here = Path("data") / name
        return "no such folder", path, str(here) if here.is_dir() else f"{here}, after 'gpt-numpy download {name}'"
    run = Path("runs") / path
    return "no such folder", path, str(run) if run.is_dir() else "a run's folder, or one as Hugging Face keeps a GPT-2"
