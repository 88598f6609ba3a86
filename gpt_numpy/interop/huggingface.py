"""Hugging Face GPT-2 folders, in and out: ``config.json`` and ``model.safetensors``.

This is the only form in which gpt_numpy keeps a model: ``transformers`` opens what ``save`` writes, and ``load``
opens what ``transformers`` writes, in one file or in shards. Tensor names are GPT-2's own, as in
``parameters.table`` and as in the published ``gpt2``; those written by ``save_pretrained`` start with
``transformer.``, those saved from a compiled or wrapped model with ``_orig_mod.``, ``module.`` or ``model.``: such
prefixes are taken off. Published files also carry each layer's causal mask as a tensor
(``attn.bias``, ``attn.masked_bias``); masks are no parameters and are skipped. Where the output head is tied
to ``wte``, a stored ``lm_head.weight`` has to equal ``wte.weight``, or replaces a missing ``wte.weight``.

A model that computes another function than a ``GPTConfig`` can describe is refused, with the field of ``config.json``
that says so. ``save`` writes the configuration a second time, into the metadata of the weights: a ``config.json`` of
another model is refused even where it fits the same tensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..config import LARGEST_SIZE, PLAIN_ACTIVATIONS, GPTConfig, check_choice, check_number, check_truth
from ..errors import CheckpointCorrupt, CheckpointMismatch, ConfigError, ModelNotFound
from ..files.durable import replace_files
from ..parameters import Parameters, count, table
from ..tokenizer.formats import strict_json
from ..workspace import aligned_empty
from .safetensors import SafetensorsFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
GENERATION = "generation_config.json"
_PREFIXES = ("transformer.", "_orig_mod.", "module.", "model.")
_IDENTITY = "gpt_numpy_config"  # the key of the metadata
_HEAD = "lm_head.weight"
_MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
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
_TO_SAFETENSORS = (
    "python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{0}').save_pretrained('{0}')\""
)
# Files of weights in forms that are not read here: the content of each, and the command that converts it.
_FOREIGN = {
    "pytorch_model.bin": ("pickled PyTorch weights, which can run any code", _TO_SAFETENSORS),
    "pytorch_model.bin.index.json": ("pickled PyTorch weights, which can run any code", _TO_SAFETENSORS),
    "tf_model.h5": ("TensorFlow weights", _TO_SAFETENSORS.replace("('{0}').s", "('{0}', from_tf=True).s")),
    "flax_model.msgpack": ("Flax weights", _TO_SAFETENSORS.replace("('{0}').s", "('{0}', from_flax=True).s")),
    "adapter_model.safetensors": ("an adapter, which changes another model", "merging by peft's merge_and_unload()"),
    "model.ckpt.index": ("OpenAI's TensorFlow checkpoint", "transformers-cli convert --model_type gpt2"),
    "packed.safetensors": ("packed weights", "gpt-numpy generate and score, which read them as they are"),
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


# ---- out ---------------------------------------------------------------------------------------------------


def save(folder, config, params, eos_token_id=None):
    """Write ``config`` and ``params`` as a folder that ``transformers`` opens.

    Both files are complete on disk under temporary names before either takes its place, so a failure leaves
    the old files as they were. eos_token_id: the end-of-text token, or a list of ids, at which generation ends.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(params[name]) for name in table(config)}
    text = json.dumps(config_fields(config, params.flat.dtype, eos_token_id), indent=2) + "\n"
    replace_files(
        folder,
        {
            # Older versions of transformers refuse a file whose metadata does not name a framework.
            WEIGHTS: lambda path: save_file(tensors, path, metadata={"format": "pt", **identity(config)}),
            CONFIG: lambda path: path.write_text(text, encoding="utf-8"),
        },
    )


def identity(config: GPTConfig) -> dict[str, str]:
    """Metadata for the safetensors file, from which a ``config.json`` of another model is recognised."""
    own = {name: getattr(config, name) for name in _SIZES} | config.differing()
    return {_IDENTITY: json.dumps(own, sort_keys=True)}


def check_identity(config, metadata, path, parts=False):
    """Raise ``CheckpointMismatch`` where ``metadata``, of the weights in ``path``, was written with another config.

    The sizes are compared, or with ``parts`` the fields that say what the parts are.
    """
    if _IDENTITY not in metadata:
        return
    try:
        kept = json.loads(metadata[_IDENTITY])
        if parts:
            own = config.differing()
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
            field={**_SIZES, **_PARTS}.get(name, (name,))[0],
            found=getattr(config, name, None),
            expected=str(kept.get(name, "GPT-2's own")),
        )


def config_fields(config, dtype=np.float32, eos_token_id=None):
    """The content of ``config.json`` for a ``GPTConfig``: every field that transformers' GPT2Config has."""
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
        "bos_token_id": eos_token_id[0] if isinstance(eos_token_id, list) else eos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": None,
        "use_cache": True,
        "torch_dtype": np.dtype(dtype).name,
    }


# ---- in ----------------------------------------------------------------------------------------------------


def load(folder: str | os.PathLike, dtype: Any = np.float32) -> tuple[GPTConfig, Parameters]:
    """``(GPTConfig, Parameters)`` from a folder, every tensor converted to ``dtype``.

    Raises ``CheckpointCorrupt`` for files that are damaged, ``CheckpointMismatch``, naming the tensors or the field,
    for sound files of another model, ``ModelNotFound`` for missing files. The shapes are checked before anything is
    allocated.
    """
    with _opened(folder) as (config, found):
        params = Parameters(config, flat=aligned_empty((count(config),), dtype))
        for name, view in params.items():
            file, stored = found[name]
            file.read_into(stored, view)
    return config, params


def load_views(folder: str | os.PathLike) -> tuple[GPTConfig, dict[str, np.ndarray]]:
    """``(GPTConfig, a dict name → float32 array)`` from a folder: `load` for callers that read each tensor once.

    Arrays are mapped from the files where the files hold float32. The errors are those of ``load``.
    """
    with _opened(folder) as (config, found):
        return config, {name: found[name][0].view(found[name][1]) for name in table(config)}


@contextlib.contextmanager
def _opened(folder):
    """(config, name → (file, stored name) of every parameter); all is checked except the tensors' values."""
    folder = Path(folder)
    config, _ = load_config(folder)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(path)) for path in weight_files(folder)]
        found = _by_name(files)
        if _HEAD in found and "wte.weight" not in found and config.tied:
            found["wte.weight"] = found.pop(_HEAD)  # the shared array, stored under the head's name
        for file in files:
            check_identity(config, file.metadata, file.path, parts=True)
        check_tensors(config, {name: file.tensors[stored].shape for name, (file, stored) in found.items()}, folder)
        if config.tied and _HEAD in found:
            _check_head(found)
        for file in files:
            check_identity(config, file.metadata, file.path)
        yield config, found


def load_config(folder: str | os.PathLike) -> tuple[GPTConfig, dict[str, Any]]:
    """``(GPTConfig, fields)`` from a folder's ``config.json``, where fields is the whole JSON object."""
    path = Path(folder) / CONFIG
    fields = read_json(path)
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
        config = GPTConfig(**sizes, dropout=fields.get(_DROPOUTS[-1], 0.0), **_parts(fields))
        if config.n_inner == 4 * config.n_embd:
            config = config.replace(n_inner=None)
    except ConfigError as error:
        field = {**_SIZES, **_PARTS}.get(error.field, (error.field,))[0]
        expected = error.expected if error.field == "activation_function" else None
        raise CheckpointMismatch(
            "no model has this", path=path, field=field, found=error.found, expected=expected
        ) from None
    return config, fields


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


def end_of_text_ids(folder: str | os.PathLike) -> tuple[int, ...]:
    """Ids at which generation stops: ``eos_token_id``, a number or a list, of ``generation_config.json``, or else of
    ``config.json``. An empty tuple where neither names one."""
    for name in (GENERATION, CONFIG):
        path = Path(folder) / name
        if os.path.lexists(path):
            found = read_json(path).get("eos_token_id")
            ids = found if isinstance(found, list) else [] if found is None else [found]
            if not all(type(i) is int and 0 <= i <= LARGEST_SIZE for i in ids):
                raise CheckpointMismatch("not token ids", path=path, field="eos_token_id", found=found)
            if ids:
                return tuple(ids)
    return ()


def end_of_text_field(folder, tokenizer):
    """``eos_token_id`` for a new folder: that of ``folder`` (None: no folder), or else the tokenizer's."""
    ids = () if folder is None else end_of_text_ids(folder)
    if ids:
        return list(ids) if len(ids) > 1 else ids[0]
    return None if tokenizer is None else tokenizer.eot_id


def read_json(path):
    """The JSON object in a file; ``CheckpointCorrupt`` for a damaged file, ``ModelNotFound`` for a missing one."""
    if not os.path.lexists(path):
        raise ModelNotFound(_what_is_missing(Path(path)), path=path)
    fields, _ = strict_json.read(Path(path), CheckpointCorrupt)
    if not isinstance(fields, dict):
        raise CheckpointCorrupt("not a JSON object", path=path)
    return fields


def weight_files(folder):
    """Paths of the folder's safetensors files: one, or the shards that its index names."""
    folder = Path(folder)
    if os.path.lexists(folder / WEIGHTS):
        return [folder / WEIGHTS]
    path = folder / INDEX
    if not os.path.lexists(path):
        for name, (what, way) in _FOREIGN.items():
            if (folder / name).exists():
                raise CheckpointMismatch(
                    f"no {WEIGHTS}, but {name}: {what}",
                    path=folder,
                    expected=f"the files that this makes of it: {way.format(folder)}",
                )
        raise ModelNotFound(f"there is no {WEIGHTS}", path=folder)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointCorrupt("not a mapping from tensor to file", path=path, field="weight_map")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointCorrupt("a shard lies beside its index", path=path, field="weight_map", found=name)
        if not os.path.lexists(folder / name):
            raise CheckpointMismatch("the shard is missing", path=folder / name)
    return [folder / name for name in names]


def canonical_name(stored):
    """The name in ``parameters.table`` of a stored tensor (or ``lm_head.weight``); None for a mask buffer."""
    name = stored
    while name.startswith(_PREFIXES):
        name = name[name.index(".") + 1 :]
    return None if _MASK_BUFFER.fullmatch(name) else name


def _by_name(files):
    found = {}
    for file in files:
        for stored in file.tensors:
            name = canonical_name(stored)
            if name in found:
                raise CheckpointMismatch(
                    f"the tensor is there twice, also in {found[name][0].path}", path=file.path, field=stored
                )
            if name is not None:
                found[name] = file, stored
    return found


def check_tensors(config, shapes, path):
    """Raise ``CheckpointMismatch`` unless the mapping name → shape is ``table(config)``'s, head or no head."""
    if config.n_layer > len(shapes):  # checked before a table of a billion layers is made
        raise CheckpointMismatch(f"{config.n_layer} layers do not fit into {len(shapes)} tensors", path=path)
    expected = table(config)
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected and name != _HEAD]
    expected = {**expected, _HEAD: expected["wte.weight"]}
    wrong = [
        f"{name} is {list(shapes[name])} instead of {list(expected[name])}"
        for name in expected
        if name in shapes and tuple(shapes[name]) != expected[name]
    ]
    kinds = {"missing tensors": missing, "unexpected tensors": extra, "misshapen tensors": wrong}
    faults = [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise CheckpointMismatch("; ".join(faults), path=path)


def _check_head(found):
    pair = [(file, stored, file.tensors[stored]) for file, stored in (found["wte.weight"], found[_HEAD])]
    dtype = np.float64 if any(tensor.dtype == "F64" for *_, tensor in pair) else np.float32
    wte, own = (np.empty(tensor.shape, dtype) for *_, tensor in pair)
    for array, (file, stored, _) in zip((wte, own), pair):
        file.read_into(stored, array)
    if not np.array_equal(own, wte):
        row = int(np.argmax((own != wte).any(axis=1)))
        file, stored = found[_HEAD]
        raise CheckpointMismatch(
            f"the output head differs from wte.weight (first in row {row}), yet tie_word_embeddings is true",
            path=file.path,
            field=stored,
        )


def _what_is_missing(path):
    if not path.parent.exists():
        return "there is no such folder"
    return "there is no such file: not a folder of a model" if path.name == CONFIG else "there is no such file"


def _some(names, limit=6):
    return ", ".join(name if len(name) <= 80 else name[:79] + "…" for name in names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )
