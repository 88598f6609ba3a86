"""A model and its tokenizer from a path: a Hugging Face folder, or a run's folder with checkpoints in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..model import GPT
from ..tokenizer import load_tokenizer

_CHECKPOINT = re.compile(r"step-(\d+)")


def find_model(path):
    """The folder with the model that ``path`` means: itself, or the newest (by step) of ``path/checkpoints``."""
    path = Path(path)
    if (path / "config.json").exists() or not (path / "checkpoints").is_dir():
        return path
    steps = {int(m[1]): entry for entry in (path / "checkpoints").iterdir() if (m := _CHECKPOINT.fullmatch(entry.name))}
    return steps[max(steps)] if steps else path


def load_model(path, dtype=np.float32, ops=None):
    """``(GPT, tokenizer)`` from ``path``, as ``find_model`` understands it."""
    folder = find_model(path)
    return GPT.load(folder, dtype, ops), load_tokenizer(folder)
