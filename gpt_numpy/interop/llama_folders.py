"""Llama, Mistral, Qwen 2 and Qwen 3 folders of Hugging Face: their ``config.json``, and where each tensor lies in ours.

Theirs are (out, in) and keep queries, keys and values, gate and up, as matrices of their own; ours are (in, out) and side by
side: ``attn.c_attn`` is q | k | v, ``mlp.c_fc`` is gate | up. ``pieces`` says which of their tensors make up one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..architecture.rotation import RopeScaling
from ..config import GPTConfig, check_choice, check_number, check_truth
from ..errors import ConfigError
from ..parameters import table

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_ARCHITECTURES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SIZES = {  # our name → theirs
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}
FIELDS = {
    **SIZES,
    "n_inner": "intermediate_size",
    "n_kv_head": "num_key_value_heads",
    "mlp": "hidden_act",
    "norm_epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "rope_scaling": "rope_parameters",
    "bias": "attention_bias",
}
_GATES = {  # their activation → our gated one; the first of several names is the one that is written
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu_pytorch_tanh": "geglu",
    "gelu_new": "geglu",
    "gelu": "geglu_erf",
    "relu": "reglu",
}
_BIASES: dict[tuple[bool, bool], bool | str] = {
    (False, False): False,
    (True, False): "attention",
    (False, True): "mlp",
    (True, True): True,
}
_BLOCK = {
    "ln_1.weight": ("input_layernorm.weight",),
    "ln_2.weight": ("post_attention_layernorm.weight",),
    "attn.c_attn.weight": tuple(f"self_attn.{n}_proj.weight" for n in "qkv"),
    "attn.c_attn.bias": tuple(f"self_attn.{n}_proj.bias" for n in "qkv"),
    "attn.q_norm.weight": ("self_attn.q_norm.weight",),
    "attn.k_norm.weight": ("self_attn.k_norm.weight",),
    "attn.c_proj.weight": ("self_attn.o_proj.weight",),
    "attn.c_proj.bias": ("self_attn.o_proj.bias",),
    "mlp.c_fc.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.c_fc.bias": ("mlp.gate_proj.bias", "mlp.up_proj.bias"),
    "mlp.c_proj.weight": ("mlp.down_proj.weight",),
    "mlp.c_proj.bias": ("mlp.down_proj.bias",),
}
_OUTER = {"wte.weight": "embed_tokens.weight", "ln_f.weight": "norm.weight", "lm_head.weight": "lm_head.weight"}


class Piece(NamedTuple):
    """One of their tensors, in columns ``start`` … ``stop`` of one of ours."""

    name: str  # without the prefix "model."
    shape: tuple[int, ...]  # theirs
    start: int
    stop: int
    transposed: bool


def pieces(config: GPTConfig) -> dict[str, list[Piece]]:
    """Our name → the ``Piece``s that make up the tensor, left to right."""
    head, made = config.head_size, {}
    columns = {
        "c_attn": [n * head for n in (config.n_head, config.key_heads, config.key_heads)],
        "c_fc": [config.mlp_width, config.mlp_width],
    }
    for name, shape in table(config).items():
        if name in _OUTER:
            made[name] = [Piece(_OUTER[name], shape, 0, shape[-1], False)]
            continue
        _, layer, inner = name.split(".", 2)
        theirs, matrix = _BLOCK[inner], len(shape) == 2
        widths = columns.get(inner.split(".")[-2], [shape[-1]])
        starts = np.concatenate([[0], np.cumsum(widths)]).tolist()
        made[name] = [
            Piece(f"layers.{layer}.{t}", (stop - start, shape[0]) if matrix else (stop - start,), start, stop, matrix)
            for t, start, stop in zip(theirs, starts, starts[1:])
        ]
    return made


def written(name: str) -> str:
    """The full name of one of their tensors."""
    return name if name == "lm_head.weight" else f"model.{name}"


def tensors(config: GPTConfig, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their name → array, of all parameters."""
    made = {}
    for name, parts in pieces(config).items():
        for piece in parts:
            array = params[name][..., piece.start : piece.stop]
            made[written(piece.name)] = np.ascontiguousarray(array.T if piece.transposed else array)
    return made


# ---- config.json -------------------------------------------------------------------------------------------


def model_type_of(config: GPTConfig) -> str | None:
    """Which of ``MODEL_TYPES`` computes what ``config`` does; None for a model that none of them computes."""
    own = config.differing().keys() - FIELDS.keys() - {"head_dim", "rope_theta", "norm", "positions", "qk_norm"}
    own -= {"sliding_window", "window_from"}
    if own or (config.norm, config.positions) != ("rmsnorm", "rotary") or config.mlp not in _GATES.values():
        return None
    if config.qk_norm:
        return "qwen3" if config.bias in (False, "attention") else None
    if config.bias == "qkv":
        return "qwen2"
    if config.sliding_window is None:
        return "llama"
    plain_window = config.window_from == GPTConfig.window_from and config.bias is False
    return "mistral" if plain_window else None


def config_fields(config: GPTConfig, model_type: str) -> dict[str, Any]:
    """The fields of ``config.json`` that are this family's own."""
    theirs = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    theirs |= {
        "intermediate_size": config.mlp_width,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_size,
        "hidden_act": next(act for act, mlp in _GATES.items() if mlp == config.mlp),
        "rms_norm_eps": config.norm_epsilon,
        "attention_dropout": config.dropout,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_fields(config.rope_scaling),
        "tie_word_embeddings": config.tied,
        "initializer_range": 0.02,
    }
    if model_type in ("llama", "qwen3"):
        theirs["attention_bias"] = config.has_bias("proj")
    if model_type == "llama":
        theirs["mlp_bias"] = config.has_bias("mlp")
    elif model_type == "mistral":
        theirs["sliding_window"] = config.sliding_window
    else:
        theirs |= {
            "use_sliding_window": config.sliding_window is not None,
            "sliding_window": config.sliding_window,
            "max_window_layers": config.window_from if config.sliding_window is not None else config.n_layer,
        }
    return {"architectures": [f"{_ARCHITECTURES[model_type]}ForCausalLM"], "model_type": model_type, **theirs}


def config_of(fields: Mapping[str, Any]) -> GPTConfig:
    """The ``GPTConfig`` of a ``config.json`` of this family; a ``ConfigError`` names the field of the file."""
    kind = fields["model_type"]
    missing = [name for name in SIZES.values() if name not in fields]
    if missing or "intermediate_size" not in fields:
        raise ConfigError("is missing", field=(missing or ["intermediate_size"])[0])
    theta, scaling = _rope(fields)
    gate = check_choice("hidden_act", fields.get("hidden_act", "silu"), _GATES)
    bias: bool | str = "qkv"
    if kind != "qwen2":
        own = check_truth("attention_bias", fields.get("attention_bias", False))
        bias = False if kind == "mistral" else _BIASES[own, check_truth("mlp_bias", fields.get("mlp_bias", False))]
    window, first = _window(kind, fields)
    heads = fields["num_attention_heads"]
    try:
        config = GPTConfig(
            **{ours: fields[theirs] for ours, theirs in SIZES.items()},
            dropout=check_number("attention_dropout", fields.get("attention_dropout", 0.0), 0.0, 1.0),
            mlp=_GATES[gate],
            n_inner=fields["intermediate_size"],
            norm="rmsnorm",
            norm_epsilon=fields.get("rms_norm_eps", 1e-6),
            positions="rotary",
            rope_theta=theta,
            rope_scaling=scaling,
            n_kv_head=fields.get("num_key_value_heads", heads),
            head_dim=fields.get("head_dim"),
            qk_norm=kind == "qwen3",
            sliding_window=window,
            window_from=first,
            bias=bias,
            tied=check_truth("tie_word_embeddings", fields.get("tie_word_embeddings", False)),
        )
    except ConfigError as error:
        field = FIELDS.get(error.field, error.field)
        raise ConfigError("no model has this", field=field, found=error.found, expected=error.expected) from None
    return config.canonical()  # so that a model reads back as it was saved


def _rope(fields):
    """(theta, ``RopeScaling`` or None): of ``rope_parameters``, or of ``rope_theta`` and ``rope_scaling`` before it."""
    given = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ConfigError("not an object", field="rope_scaling", found=given)
    theta = given.get("rope_theta", fields.get("rope_theta", 10_000.0))
    kind = given.get("rope_type", given.get("type", "default"))
    check_choice("rope_type", kind, ("default", "linear", "llama3"))
    check_number("rope_theta", theta, minimum=1.0)
    part = fields.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    if part != 1.0:
        raise ConfigError("whole heads are turned", field="partial_rotary_factor", found=part)
    if kind == "default":
        return float(theta), None
    factor = check_number("rope_scaling factor", given.get("factor"), minimum=1e-3)
    if kind == "linear":
        return float(theta), RopeScaling("linear", float(factor))
    names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    low, high, original = (check_number(f"rope_scaling {name}", given.get(name), minimum=0.0) for name in names)
    return float(theta), RopeScaling("llama3", float(factor), float(low), float(high), int(original))


def _scaling_fields(scaling):
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original,
    }


def _window(kind, fields):
    """(sliding window or None, first block that has it)."""
    window = fields.get("sliding_window")
    if kind == "llama" or window is None:
        return None, 0
    if kind == "mistral":
        return window, 0
    layers, first = fields["num_hidden_layers"], fields.get("max_window_layers", 28)
    types = fields.get("layer_types")
    if isinstance(types, list):
        sliding = [name == "sliding_attention" for name in types]
        first = sliding.index(True) if any(sliding) else layers
        if sliding != [i >= first for i in range(layers)]:
            raise ConfigError("the blocks with a window are the last ones", field="layer_types", found=types)
    elif not fields.get("use_sliding_window", False):
        return None, 0
    return (window, first) if first < layers else (None, 0)
