"""GGUF, the one-file format of llama.cpp and of the programs built on it: configuration, tokenizer and weights. Out only.

A model of ours is written as one of llama.cpp's architectures:

``gpt2``         GPT-2's parts
``llama``        rmsnorm, rotary positions, swiglu; biases where the model has them
``qwen2``        the same with biases on queries, keys and values alone
``qwen3``        the same with a norm on each query and key
``granite_swa``  ``llama`` with a sliding window, which llama.cpp's ``llama`` does not have

``llama`` and ``granite_swa`` turn neighbouring numbers of a head, the two Qwen architectures the two halves of a head: the
columns of queries and keys are put into the order that the architecture expects. A matrix is (out, in), each row in one
format. Vectors and learned positions stay float32, as in llama.cpp's own files. The content depends on the model and its
tokenizer alone. ``gguf_vocabulary`` writes the tokenizer; the package ``gguf`` writes the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..architecture.rotation import frequencies
from ..config import GPTConfig
from ..errors import CheckpointMismatch, ConfigError
from ..files.durable import replace_files
from ..parameters import table
from . import gguf_vocabulary, llama_folders

_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
FORMATS = tuple(_TYPES)
_FILE_TYPES = {"float32": "ALL_F32"}  # the others: MOSTLY_ and the type
_LARGEST_HALF = 65504.0
_NO_LOGIT = -1e30
_PAIRINGS = {"llama": "neighbours", "granite_swa": "neighbours", "qwen2": "halves", "qwen3": "halves"}
_OUTER = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}
_BLOCK = {  # GPT-2's names and Llama's → llama.cpp's
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{n}_proj": f"attn_{n}" for n in "qkv"},
    **{f"self_attn.{n}_norm": f"attn_{n}_norm" for n in "qk"},
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class Written(NamedTuple):
    """What ``save`` wrote."""

    architecture: str
    wider: list[str]  # tensors in another format than the requested: rows of these are not whole blocks of it


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]  # (out, in), (out,)
    make: Callable[[], np.ndarray]  # float32


def package() -> ModuleType:
    """The package ``gguf``; ``ConfigError`` where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise ConfigError("the package gguf is not installed", expected='pip install ".[gguf]"') from None
    return gguf


# ---- the architecture --------------------------------------------------------------------------------------


def architecture_of(config: GPTConfig) -> str:
    """The architecture of llama.cpp that computes what ``config`` does.

    Raises ``ConfigError`` with the field that llama.cpp has no architecture for.
    """
    own = config.differing()
    if (config.norm, config.positions) == ("layernorm", "learned"):
        _refuse(own, {"n_inner", "norm_epsilon", "tied"}, "GPT-2's")
        return "gpt2"
    for name, needed in (("norm", "rmsnorm"), ("positions", "rotary"), ("mlp", "swiglu")):
        if getattr(config, name) != needed:
            raise ConfigError("llama.cpp has no such model", field=name, found=getattr(config, name), expected=needed)
    _refuse({name: own[name] for name in own if name.startswith("scale_attn")}, set(), "the usual scores")
    slowed = config.rope_scaling is not None and config.rope_scaling.kind == "llama3"
    if config.qk_norm:
        for name, refused in (
            ("bias", config.has_bias("proj") or config.has_bias("mlp")),
            ("rope_scaling", slowed),
            ("sliding_window", any(_windows(config))),
        ):
            if refused:
                raise ConfigError("llama.cpp's qwen3 does not have this", field=name, found=getattr(config, name))
        return "qwen3"
    if any(_windows(config)):
        return "granite_swa"
    return "qwen2" if config.bias == "qkv" and not slowed and config.heads_width == config.n_embd else "llama"


def _refuse(own, allowed, whose):
    for name, value in own.items():
        if name not in allowed:
            raise ConfigError(f"llama.cpp has no such model beside {whose} parts", field=name, found=value)


def _windows(config) -> list[bool]:
    """Whether the window of each block hides a position."""
    return [(config.window(layer) or config.block_size) < config.block_size for layer in range(config.n_layer)]


def _add_configuration(writer, gguf, config, architecture, dtype):
    writer.add_type("model")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.n_head)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(int(gguf.LlamaFileType[_FILE_TYPES.get(dtype, f"MOSTLY_{_TYPES[dtype]}")]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_head_count_kv(config.key_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
    if architecture == "granite_swa":
        writer.add_logit_scale(1.0)
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(_windows(config))


# ---- the tensors -------------------------------------------------------------------------------------------


def _tensors(config: GPTConfig, params: Mapping[str, np.ndarray], architecture: str) -> Iterator[_Tensor]:
    """Every tensor of the file, in order; ``make`` computes one when it is written."""
    if architecture == "gpt2":
        for name, shape in table(config).items():
            turned = len(shape) == 2 and name not in ("wte.weight", "wpe.weight", "lm_head.weight")
            yield _Tensor(_their_name(name), shape[::-1] if turned else shape, _maker(params, name, turned))
        return
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        head, theta = config.head_size, config.rope_theta
        slower = frequencies(head, theta) / frequencies(head, theta, config.rope_scaling)
        yield _Tensor("rope_freqs.weight", slower.shape, lambda: slower)
    if architecture == "granite_swa":  # which wants a logit beside the scores of each head: one that takes no weight
        no_sink = np.full(config.n_head, _NO_LOGIT)
        for layer in range(config.n_layer):
            yield _Tensor(f"blk.{layer}.attn_sinks.weight", no_sink.shape, lambda: no_sink)
    for name, parts in llama_folders.pieces(config).items():
        for piece in parts:
            order = None
            if piece.name.split(".")[-2] in ("q_proj", "k_proj", "q_norm", "k_norm"):
                order = _order_of_pairs(config, _PAIRINGS[architecture])
            make = _maker(params, name, piece.transposed, piece.start, piece.stop, order)
            yield _Tensor(_their_name(piece.name), piece.shape, make)


def _their_name(name: str) -> str:
    """llama.cpp's name of a tensor, from GPT-2's (``h.0.…``) or Llama's (``layers.0.…``)."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    _, layer, inner = stem.split(".", 2)
    return f"blk.{layer}.{_BLOCK[inner]}.{kind}"


def _maker(params, name, turned, start=0, stop=None, order=None):
    def make():
        array = params[name][..., start:stop]
        if order is not None:  # of each head's columns
            array = array.reshape(*array.shape[:-1], -1, len(order))[..., order].reshape(array.shape)
        return array.T if turned else array

    return make


def _order_of_pairs(config, wanted):
    """The number of ours at each position of a head, where pairs lie as ``wanted``; None: as ours do."""
    if config.rope_pairing == wanted:
        return None
    numbers = np.arange(config.head_size)
    return numbers.reshape(2, -1).T.ravel() if wanted == "neighbours" else numbers.reshape(-1, 2).T.ravel()


def _type_of(tensor, dtype, gguf):
    """The format of a tensor: vectors and positions in float32; float16 where a row is not whole blocks.

    Beside 4-bit blocks the embedding and the head have 8-bit blocks: their errors reach the logits directly.
    """
    types = gguf.GGMLQuantizationType
    if len(tensor.shape) == 1 or tensor.name == "position_embd.weight":
        return types.F32
    wanted = types[_TYPES[dtype]]
    if wanted == types.Q4_0 and tensor.name in ("token_embd.weight", "output.weight"):
        wanted = types.Q8_0
    return wanted if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else types.F16


def _content(tensor, kind, gguf) -> np.ndarray:
    values = np.ascontiguousarray(tensor.make(), np.float32)
    if kind == gguf.GGMLQuantizationType.F16 and (largest := float(np.abs(values).max())) > _LARGEST_HALF:
        raise CheckpointMismatch("too large for float16", field=tensor.name, found=largest, expected="another --dtype")
    return np.ascontiguousarray(gguf.quants.quantize(values, kind))


# ---- the file ----------------------------------------------------------------------------------------------


def save(
    path: str | os.PathLike,
    config: GPTConfig,
    params: Mapping[str, np.ndarray],
    tokenizer: Any,
    dtype: str = "float32",
    end_of_text: tuple[int, ...] = (),
) -> Written:
    """Write a model with its tokenizer to the file ``path``; with None for a tokenizer, the file has none.

    params: name → float32 array, as in ``parameters.table``. dtype: one of ``FORMATS``, the numbers of the matrices.
    end_of_text: the ids at which generation ends; empty: the tokenizer's.

    Raises ``ConfigError`` for a model, and ``VocabError`` for a tokenizer, that llama.cpp does not have, or if the package
    ``gguf`` is not installed.
    """
    if dtype not in FORMATS:
        raise ConfigError(
            "GGUF files have no such format here", field="dtype", found=dtype, expected=", ".join(FORMATS)
        )
    architecture, path = architecture_of(config), Path(path)
    words = None if tokenizer is None else gguf_vocabulary.vocabulary_of(tokenizer, config.vocab_size, end_of_text)
    gguf = package()
    tensors = list(_tensors(config, params, architecture))
    kinds = [_type_of(tensor, dtype, gguf) for tensor in tensors]

    def write(temporary):
        writer = gguf.GGUFWriter(temporary, architecture)
        try:
            _add_configuration(writer, gguf, config, architecture, dtype)
            gguf_vocabulary.add_to(writer, words)
            for tensor, kind in zip(tensors, kinds):
                block, size = gguf.GGML_QUANT_SIZES[kind]
                n_bytes = int(np.prod(tensor.shape)) // block * size
                writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), n_bytes, kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor, kind in zip(tensors, kinds):
                writer.write_tensor_data(_content(tensor, kind, gguf))
        finally:
            writer.close()

    replace_files(path.parent, {path.name: write})
    narrow = gguf.GGMLQuantizationType[_TYPES[dtype]]
    wide = gguf.GGMLQuantizationType.F16
    return Written(architecture, [t.name for t, kind in zip(tensors, kinds) if kind == wide and kind != narrow])
