"""Hugging Face GPT-2 folders, in and out: ``config.json`` and ``model.safetensors``.

This is the only form in which gpt_numpy keeps a model: ``transformers`` opens what ``save`` writes, and ``load``
opens what ``transformers`` writes, in one file or in shards. Tensor names are GPT-2's own, as in
``parameters.table`` and as in the published ``gpt2``; those written by ``save_pretrained`` start with
``transformer.``, which is taken off. Published files also carry each layer's causal mask as a tensor
(``attn.bias``, ``attn.masked_bias``); that is no parameter and is passed over. The output head is tied
to ``wte``: a stored ``lm_head.weight`` has to be equal to it.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np

from ..config import GPTConfig
from ..errors import CheckpointCorrupt, CheckpointMismatch, ConfigError
from ..files.durable import replace_files
from ..parameters import Parameters, count, table
from ..workspace import aligned_empty
from .safetensors import SafetensorsFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_PREFIX = "transformer."
_HEAD = "lm_head.weight"
_MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
# What this model computes; a config.json that says otherwise describes another function.
_FIXED = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


# ---- out ---------------------------------------------------------------------------------------------------


def save(folder, config, params, eos_token_id=None):
    """Write ``config`` and ``params`` as a folder that ``transformers`` opens.

    Both files are complete on disk under temporary names before either takes its place, so a failure leaves
    what was there before. eos_token_id: the end-of-text token, for whoever generates with the folder.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(params[name]) for name in table(config)}
    text = json.dumps(config_fields(config, params.flat.dtype, eos_token_id), indent=2) + "\n"
    replace_files(
        folder,
        {
            # Older versions of transformers refuse a file whose metadata does not name a framework.
            WEIGHTS: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
            CONFIG: lambda path: path.write_text(text, encoding="utf-8"),
        },
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
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": None,
        "use_cache": True,
        "torch_dtype": np.dtype(dtype).name,
    }


# ---- in ----------------------------------------------------------------------------------------------------


def load(folder, dtype=np.float32):
    """``(GPTConfig, Parameters)`` from a folder, every tensor converted to ``dtype``.

    Raises ``CheckpointCorrupt`` for files that are damaged and ``CheckpointMismatch``, naming the tensors,
    for sound files of another model. Nothing is allocated before the shapes are known to be right.
    """
    with _opened(folder) as (config, found):
        params = Parameters(config, flat=aligned_empty((count(config),), dtype))
        for name, view in params.items():
            file, stored = found[name]
            file.read_into(stored, view)
    return config, params


def load_views(folder):
    """``(GPTConfig, a dict name → float32 array)`` from a folder: `load` for whoever reads each tensor once.

    Arrays are the files themselves, mapped into memory, where those hold float32. The errors are those of ``load``.
    """
    with _opened(folder) as (config, found):
        return config, {name: found[name][0].view(found[name][1]) for name in table(config)}


@contextlib.contextmanager
def _opened(folder):
    """(config, name → (file, stored name) of every parameter): checked, but for what the tensors hold."""
    folder = Path(folder)
    config, fields = load_config(folder)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(path)) for path in weight_files(folder)]
        found = _by_name(files)
        check_tensors(config, {name: file.tensors[stored].shape for name, (file, stored) in found.items()}, folder)
        _check_head(found, fields, folder)
        yield config, found


def load_config(folder):
    """``(GPTConfig, fields)`` from a folder's ``config.json``, where fields is all of what it holds."""
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
    sizes = {"block_size": fields.get("n_positions", fields.get("n_ctx"))}
    sizes |= {name: fields.get(name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    dropouts = [fields.get(name, 0.0) for name in _DROPOUTS]
    if any(dropout != dropouts[0] for dropout in dropouts):
        raise CheckpointMismatch(
            "one dropout probability serves all three places", path=path, field=", ".join(_DROPOUTS), found=dropouts
        )
    try:
        config = GPTConfig(**sizes, dropout=dropouts[0])
    except ConfigError as error:
        field = "n_positions" if error.field == "block_size" else error.field
        raise CheckpointMismatch("no model has this", path=path, field=field, found=error.found) from None
    if fields.get("n_inner") not in (None, 4 * config.n_embd):
        raise CheckpointMismatch(
            "the hidden layer is 4 n_embd wide",
            path=path,
            field="n_inner",
            found=fields["n_inner"],
            expected=str(4 * config.n_embd),
        )
    return config, fields


def read_json(path):
    """The JSON object in a file, or ``CheckpointCorrupt``."""
    try:
        fields = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"not JSON ({error})", path=path, line=getattr(error, "lineno", None)) from None
    if not isinstance(fields, dict):
        raise CheckpointCorrupt("not a JSON object", path=path)
    return fields


def weight_files(folder):
    """Paths of the folder's safetensors files: one, or the shards that its index names."""
    folder = Path(folder)
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    path = folder / INDEX
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointCorrupt("not a mapping from tensor to file", path=path, field="weight_map")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointCorrupt("a shard lies beside its index", path=path, field="weight_map", found=name)
        if not (folder / name).is_file():
            raise CheckpointMismatch("the shard is missing", path=folder / name)
    return [folder / name for name in names]


def canonical_name(stored):
    """The name in ``parameters.table`` of a stored tensor (or ``lm_head.weight``); None for a mask buffer."""
    name = stored.removeprefix(_PREFIX)
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
    if config.n_layer > len(shapes):  # said before a table of a billion layers is made
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


def _check_head(found, fields, folder):
    if _HEAD not in found:
        if fields.get("tie_word_embeddings", True) is False:
            raise CheckpointMismatch("missing tensors: lm_head.weight (tie_word_embeddings is false)", path=folder)
        return
    pair = [(file, stored, file.tensors[stored]) for file, stored in (found["wte.weight"], found[_HEAD])]
    dtype = np.float64 if any(tensor.dtype == "F64" for *_, tensor in pair) else np.float32
    wte, own = (np.empty(tensor.shape, dtype) for *_, tensor in pair)
    for array, (file, stored, _) in zip((wte, own), pair):
        file.read_into(stored, array)
    if not np.array_equal(own, wte):
        row = int(np.argmax((own != wte).any(axis=1)))
        file, stored = found[_HEAD]
        raise CheckpointMismatch(
            f"the output head differs from wte.weight (first in row {row}); this model ties the two",
            path=file.path,
            field=stored,
        )


def _some(names, limit=6):
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
