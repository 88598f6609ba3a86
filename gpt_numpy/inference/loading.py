"""A model and its tokenizer from a path: a Hugging Face folder, or a run's folder with checkpoints in it."""

from __future__ import annotations

import os

import numpy as np

from ..errors import ConfigError
from ..interop import huggingface
from ..locating import find_model
from ..model import GPT
from ..tokenizer import load_tokenizer
from . import packed_file
from .panel_decoder import PanelDecoder


def load_model(path, dtype=np.float32, ops=None):
    """``(GPT, tokenizer)`` from ``path``, as ``find_model`` understands it."""
    folder = find_model(path)
    return GPT.load(folder, dtype, ops), load_tokenizer(folder)


def stop_tokens_of(path, tokenizer):
    """Ids that end a text of the model in ``path``: those that its folder names, and the tokenizer's end of text."""
    own = () if tokenizer.eot_id is None else (tokenizer.eot_id,)
    return tuple(dict.fromkeys((*huggingface.end_of_text_ids(find_model(path)), *own)))


def load_decoder(path, format=None, products="float32"):
    """``(PanelDecoder, tokenizer)`` from ``path``; weights in ``format`` (see ``packed``), by default as saved.

    products: of the prompts, "float32" or "bfloat16" (see ``PanelDecoder``).
    """
    folder = find_model(path)
    tokenizer = load_tokenizer(folder)
    if os.path.lexists(folder / packed_file.NAME):
        weights = packed_file.load_packed(folder)
        if format not in (None, weights.format):
            raise ConfigError(
                "these weights were packed in another format",
                path=folder,
                field="format",
                found=weights.format,
                expected=format,
            )
        return PanelDecoder(weights, products), tokenizer
    return PanelDecoder.pack_parameters(*huggingface.load_views(folder), format or "float32", products), tokenizer
