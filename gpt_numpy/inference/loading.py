"""A model and its tokenizer from a path: a Hugging Face folder, or a run's folder with checkpoints in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..interop import huggingface
from ..model import GPT
from ..tokenizer import load_tokenizer
from . import packed_file
from .packed import PackedWeights
from .panel_decoder import PanelDecoder

_CHECKPOINT = re.compile(r"step-(\d+)")


def find_model(path):
    """The folder with the model that ``path`` means: itself, or the best of ``path/checkpoints``, or the newest.

    Which checkpoint validated best is written in the newest one's ``trainer_state.json`` (see ``training.trainer``).
    """
    path = Path(path)
    if (path / "config.json").exists() or not (path / "checkpoints").is_dir():
        return path
    steps = {int(m[1]): entry for entry in (path / "checkpoints").iterdir() if (m := _CHECKPOINT.fullmatch(entry.name))}
    if not steps:
        return path
    newest = steps[max(steps)]
    try:
        best = json.loads((newest / "trainer_state.json").read_bytes())["best_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        best = None  # somebody else's folder, or a broken one: loading it will say so
    return steps.get(best, newest)


def load_model(path, dtype=np.float32, ops=None):
    """``(GPT, tokenizer)`` from ``path``, as ``find_model`` understands it."""
    folder = find_model(path)
    return GPT.load(folder, dtype, ops), load_tokenizer(folder)


def load_decoder(path, format=None):
    """``(PanelDecoder, tokenizer)`` from ``path``; weights in ``format`` (see ``packed``), by default as saved."""
    folder = find_model(path)
    tokenizer = load_tokenizer(folder)
    if (folder / packed_file.NAME).exists():
        weights = packed_file.load_packed(folder)
        if format not in (None, weights.format):
            raise ConfigError(
                "these weights were packed in another format",
                path=folder,
                field="format",
                found=weights.format,
                expected=format,
            )
    else:
        weights = PackedWeights.pack(*huggingface.load_views(folder), format or "float32")
    return PanelDecoder(weights), tokenizer
