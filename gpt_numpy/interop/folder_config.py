"""The ``config.json`` of a model's folder, in and out: a ``GPTConfig`` from GPT-2's fields, Llama's family's, or our own.

A configuration that neither family can say (learned positions with an rmsnorm, say) is written with our own fields, as
``"model_type": "gpt_numpy"``: such a folder only opens here.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..config import PLAIN_ACTIVATIONS, GPTConfig, check_choice, check_number, check_truth
from ..errors import CheckpointCorrupt, CheckpointMismatch, ConfigError, ModelNotFound
from ..tokenizer.formats import strict_json
from . import llama_folders

CONFIG = "config.json"
OWN = "gpt_numpy"  # the model type of a configuration that no other program has
_IDENTITY = "gpt_numpy_config"  # the key of the metadata
_DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
_SIZES = {  # our name → transformers' own name, and its synonyms
    "vocab_size": ("vocab_size",),
    "block_size": ("n_positions", "n_ctx", "max_position_embeddings"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
}
_PARTS = {  # the same for the fields that say what the parts are
    "mlp": ("activation_function",),
    "n_inner": ("n_inner",),
    "norm_epsilon": ("layer_norm_epsilon",),
    "tied": ("tie_word_embeddings",),
}
# Values that describe this model's function; other values in a config.json describe another function.
_FIXED = {"model_type": ("gpt2",), "add_cross_attention": (False,)}
# transformers' name of an activation → ours; the first of several names of one function is the one that is written
_ACTIVATIONS = {
    "gelu_new": "gelu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"), "gelu"),
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "swish": "silu",
    **{name: name for name in PLAIN_ACTIVATIONS if name not in ("gelu", "gelu_erf")},
}
_TRUTHS = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}


def identity(config: GPTConfig) -> dict[str, str]:
    """Metadata for the safetensors file, from which a ``config.json`` of another model is recognised."""
    return {
        _IDENTITY: json.dumps({name: getattr(config, name) for name in _SIZES} | config.differing(), sort_keys=True)
    }


def check_identity(config, metadata, path, parts=False):
    """Raise ``CheckpointMismatch`` where ``metadata``, of the weights in ``path``, was written with another config.

    The sizes are compared, or with ``parts`` the fields that say what the parts are.
    """
    if _IDENTITY not in metadata:
        return
    try:
        kept = json.loads(metadata[_IDENTITY])
        if parts:
            own = json.loads(json.dumps(config.differing()))
            differing = [n for n in {**own, **kept} if n not in _SIZES and kept.get(n, own.get(n)) != own.get(n)]
            differing += [n for n in own if n not in kept]
        else:
            differing = [name for name in _SIZES if kept[name] != getattr(config, name)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointCorrupt("not the sizes of a model", path=path, field=_IDENTITY) from None
    if differing:
        name = differing[0]
        raise CheckpointMismatch(
            f"these weights were saved with another {CONFIG}",
            path=path,
            field=_their_name(config, name),
            found=getattr(config, name, None),
            expected=str(kept.get(name, "GPT-2's own")),
        )


def _their_name(config, name):
    """What ``config.json`` calls a field of ours."""
    if llama_folders.model_type_of(config) is not None:
        return llama_folders.FIELDS.get(name, name)
    return {**_SIZES, **_PARTS}.get(name, (name,))[0]


def config_fields(config, dtype=np.float32, eos_token_id=None):
    """The content of ``config.json`` for a ``GPTConfig``: every field that its reader needs."""
    model_type = llama_folders.model_type_of(config)
    if model_type is not None:
        own = llama_folders.config_fields(config, model_type)
    elif is_gpt2(config):
        own = _gpt2_fields(config)
    else:
        own = {"model_type": OWN, OWN: dataclasses.asdict(config)}
    return {
        **own,
        "bos_token_id": eos_token_id[0] if isinstance(eos_token_id, list) else eos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": None,
        "use_cache": True,
        "torch_dtype": np.dtype(dtype).name,
    }


def is_gpt2(config: GPTConfig) -> bool:
    """Whether transformers' GPT-2 computes what ``config`` does."""
    own = config.differing().keys() - _PARTS.keys() - _TRUTHS.keys()
    return not own and not config.is_gated


def _gpt2_fields(config):
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "activation_function": next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == config.mlp),
        "layer_norm_epsilon": config.norm_epsilon,
        "initializer_range": 0.02,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "scale_attn_weights": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "tie_word_embeddings": config.tied,
    }


def load_config(folder: str | os.PathLike) -> tuple[GPTConfig, dict[str, Any]]:
    """``(GPTConfig, fields)`` from a folder's ``config.json``, where fields is the whole JSON object."""
    path = Path(folder) / CONFIG
    fields = read_json(path)
    kind = fields.get("model_type", "gpt2")
    if kind in ("gpt2", *llama_folders.MODEL_TYPES, OWN):
        readers = {"gpt2": _config_of_gpt2, OWN: _config_of_ours}
        return readers.get(kind, _config_of_llama)(fields, path), fields
    raise CheckpointMismatch(
        "not a model of this kind",
        path=path,
        field="model_type",
        found=kind,
        expected=", ".join(("gpt2", *llama_folders.MODEL_TYPES)),
    )


def _config_of_llama(fields, path):
    try:
        return llama_folders.config_of(fields)
    except ConfigError as error:
        raise CheckpointMismatch(str(error), path=path) from None


def _config_of_ours(fields, path):
    own = fields.get(OWN)
    if not isinstance(own, dict):
        raise CheckpointCorrupt("not the fields of a configuration", path=path, field=OWN, found=type(own).__name__)
    try:
        return GPTConfig.from_dict(own)
    except ConfigError as error:
        raise CheckpointMismatch(str(error), path=path, field=OWN) from None


def _config_of_gpt2(fields, path):
    for name, allowed in _FIXED.items():
        if fields.get(name, allowed[0]) not in allowed:
            raise CheckpointMismatch(
                "not a model of this kind",
                path=path,
                field=name,
                found=fields[name],
                expected=" or ".join(map(repr, allowed)),
            )
    sizes = {name: _size(fields, names, path) for name, names in _SIZES.items()}
    try:
        for name in _DROPOUTS:
            check_number(name, fields.get(name, 0.0), minimum=0.0, below=1.0)
        # The file has three probabilities, a GPTConfig one. Training sets its own, and nothing else drops.
        config = GPTConfig(**sizes, dropout=fields.get(_DROPOUTS[-1], 0.0), **_parts(fields)).canonical()
    except ConfigError as error:
        field = {**_SIZES, **_PARTS}.get(error.field, (error.field,))[0]
        expected = error.expected if error.field == "activation_function" else None
        raise CheckpointMismatch(
            "no model has this", path=path, field=field, found=error.found, expected=expected
        ) from None
    return config


def _parts(fields):
    """The fields of a ``GPTConfig`` that say what the parts are; a ``ConfigError`` names the field of the file."""
    activation = check_choice("activation_function", fields.get("activation_function", "gelu_new"), _ACTIVATIONS)
    truths = {name: check_truth(name, fields.get(name, usual)) for name, usual in _TRUTHS.items()}
    truths.pop("reorder_and_upcast_attn")  # the same function, computed in another order
    return dict(
        truths,
        mlp=_ACTIVATIONS[activation],
        n_inner=fields.get("n_inner"),
        norm_epsilon=fields.get("layer_norm_epsilon", 1e-5),
        tied=check_truth("tie_word_embeddings", fields.get("tie_word_embeddings", True)),
    )


def _size(fields, names, path):
    """The size that config.json gives under one of its ``names``."""
    given = {name: fields[name] for name in names if name in fields}
    if not given:
        raise CheckpointMismatch(f"{names[0]} is missing", path=path)
    value = next(iter(given.values()))
    for name, other in given.items():
        if other != value and name != "n_ctx":  # n_ctx was the length of the mask buffers, which may differ
            raise CheckpointMismatch(f"not what {next(iter(given))} says", path=path, field=name, found=other)
    return value


def read_json(path):
    """The JSON object in a file; ``CheckpointCorrupt`` for a damaged file, ``ModelNotFound`` for a missing one."""
    if not os.path.lexists(path):
        raise ModelNotFound(_what_is_missing(Path(path)), path=path)
    fields, _ = strict_json.read(Path(path), CheckpointCorrupt)
    if not isinstance(fields, dict):
        raise CheckpointCorrupt("not a JSON object", path=path)
    return fields


def _what_is_missing(path):
    if not path.parent.exists():
        return "there is no such folder"
    return "there is no such file: not a folder of a model" if path.name == CONFIG else "there is no such file"
