"""Hugging Face folders of GPT-2 and of Llama's family, in and out: ``config.json`` and ``model.safetensors``.

This is the only form in which gpt_numpy keeps a model: ``transformers`` opens what ``save`` writes, and ``load``
opens what ``transformers`` writes, in one file or in shards. Tensor names are GPT-2's own, as in
``parameters.table`` and as in the published ``gpt2``; those written by ``save_pretrained`` start with
``transformer.``, those saved from a compiled or wrapped model with ``_orig_mod.``, ``module.`` or ``model.``: such
prefixes are taken off. Published files also carry each layer's causal mask as a tensor
(``attn.bias``, ``attn.masked_bias``); masks are no parameters and are skipped. Where the output head is tied
to ``wte``, a stored ``lm_head.weight`` has to equal ``wte.weight``, or replaces a missing ``wte.weight``.

A model that computes another function than a ``GPTConfig`` can describe is refused, with the field of ``config.json``
that says so. ``save`` writes the configuration a second time, into the metadata of the weights: a ``config.json`` of
another model is refused even where it fits the same tensors. ``folder_config`` translates ``config.json``,
``llama_folders`` the tensors of Llama, Mistral and Qwen.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import LARGEST_SIZE, GPTConfig
from ..errors import CheckpointCorrupt, CheckpointMismatch, ModelNotFound
from ..files.durable import replace_files
from ..parameters import Parameters, count, table
from ..wording import counted
from ..workspace import aligned_empty
from . import llama_folders
from .beside import GENERATION as GENERATION
from .beside import NOTHING
from .folder_config import CONFIG as CONFIG
from .folder_config import check_identity as check_identity
from .folder_config import config_fields as config_fields
from .folder_config import identity as identity
from .folder_config import load_config as load_config
from .folder_config import read_json as read_json
from .safetensors import SafetensorsFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PREFIXES = ("transformer.", "_orig_mod.", "module.", "model.")
_HEAD = "lm_head.weight"
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
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


# ---- out ---------------------------------------------------------------------------------------------------


def save(folder, config, params, eos_token_id=None, beside=NOTHING):
    """Write ``config`` and ``params`` as a folder that ``transformers`` opens.

    All files are complete on disk under temporary names before the first takes its place, so a failure leaves
    the old files as they were. eos_token_id: the end-of-text token, or a list of ids, at which generation ends.
    beside: what another folder of this model says about its texts.
    """
    from safetensors.numpy import save_file

    if llama_folders.model_type_of(config) is None:
        tensors = {name: np.ascontiguousarray(params[name]) for name in table(config)}
    else:
        tensors = llama_folders.tensors(config, params)
    # Older versions of transformers refuse a file whose metadata does not name a framework.
    write_weights = functools.partial(save_file, tensors, metadata={"format": "pt", **identity(config)})
    fields = config_fields(config, params.flat.dtype, eos_token_id)
    replace_files(folder, {WEIGHTS: write_weights, **writers_beside(fields, beside)})


def writers_beside(fields, beside):
    """Name → function that writes the file: ``config.json`` of ``fields`` with the ids of ``beside``, and its files."""
    text = json.dumps(fields | dict(beside.ids), indent=2) + "\n"
    contents = {CONFIG: text.encode("utf-8"), **beside.files}
    return {name: functools.partial(_write, content=content) for name, content in contents.items()}


def _write(path, content):
    path.write_bytes(content)


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
            found[name].read_into(view)
    return config, params


def load_views(folder: str | os.PathLike) -> tuple[GPTConfig, dict[str, np.ndarray]]:
    """``(GPTConfig, a dict name → float32 array)`` from a folder: `load` for callers that read each tensor once.

    Arrays are mapped from the files where the files hold float32. The errors are those of ``load``.
    """
    with _opened(folder) as (config, found):
        return config, {name: found[name].view() for name in table(config)}


@contextlib.contextmanager
def _opened(folder):
    """(config, name → ``_Stored`` of every parameter); all is checked except the tensors' values."""
    folder = Path(folder)
    config, fields = load_config(folder)
    pieces = llama_folders.pieces if fields.get("model_type") in llama_folders.MODEL_TYPES else _whole
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(path)) for path in weight_files(folder)]
        found = _by_name(files)
        embedding = "wte.weight" if pieces is _whole else "embed_tokens.weight"
        if _HEAD in found and embedding not in found and config.tied:
            found[embedding] = found.pop(_HEAD)  # the shared array, stored under the head's name
        for file in files:
            check_identity(config, file.metadata, file.path, parts=True)
        _check_count(config, found, folder)
        made = pieces(config)
        expected = {piece.name: piece.shape for parts in made.values() for piece in parts}
        shapes = {name: file.tensors[stored].shape for name, (file, stored) in found.items()}
        _check_shapes(expected, {**expected, _HEAD: expected[embedding]}, shapes, folder)
        if config.tied and _HEAD in found:
            _check_head(found, embedding)
        for file in files:
            check_identity(config, file.metadata, file.path)
        where = {name: _Stored([(*found[piece.name], piece) for piece in parts]) for name, parts in made.items()}
        yield config, where


class _Stored(NamedTuple):
    """Where a parameter is stored: (file, name in the file, ``Piece``) of each part of it, left to right."""

    parts: list

    def read_into(self, view):
        for file, stored, piece in self.parts:
            whole = len(self.parts) == 1 and not piece.transposed
            array = view if whole else np.empty(piece.shape, view.dtype)
            file.read_into(stored, array)
            if not whole:
                view[..., piece.start : piece.stop] = array.T if piece.transposed else array

    def view(self):
        (file, stored, piece), *others = self.parts
        if not others and not piece.transposed:
            return file.view(stored)
        widths = sum(piece.stop - piece.start for *_, piece in self.parts)
        array = np.empty((piece.shape[1], widths) if piece.transposed else (widths,), np.float32)
        self.read_into(array)
        return array


def _whole(config):
    """``llama_folders.pieces`` for folders whose tensors are ours."""
    return {name: [llama_folders.Piece(name, shape, 0, shape[-1], False)] for name, shape in table(config).items()}


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
    """The name in ``parameters.table`` of a stored tensor (or ``lm_head.weight``); None for a buffer."""
    name = stored
    while name.startswith(_PREFIXES):
        name = name[name.index(".") + 1 :]
    return None if _BUFFER.fullmatch(name) else name


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
    _check_count(config, shapes, path)
    expected = table(config)
    _check_shapes(expected, {**expected, _HEAD: expected["wte.weight"]}, shapes, path)


def _check_count(config, shapes, path):
    if config.n_layer > len(shapes):  # checked before a table of a billion layers is made
        raise CheckpointMismatch(f"{config.n_layer} layers do not fit into {counted(len(shapes), 'tensor')}", path=path)


def _check_shapes(expected, allowed, shapes, path):
    """Raise ``CheckpointMismatch`` unless ``shapes`` are those ``expected``, and others ``allowed``."""
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in allowed]
    wrong = [
        f"{name} is {list(shapes[name])} instead of {list(allowed[name])}"
        for name in allowed
        if name in shapes and tuple(shapes[name]) != tuple(allowed[name])
    ]
    kinds = {"missing tensors": missing, "unexpected tensors": extra, "misshapen tensors": wrong}
    faults = [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise CheckpointMismatch("; ".join(faults), path=path)


def _check_head(found, embedding):
    pair = [(file, stored, file.tensors[stored]) for file, stored in (found[embedding], found[_HEAD])]
    dtype = np.float64 if any(tensor.dtype == "F64" for *_, tensor in pair) else np.float32
    wte, own = (np.empty(tensor.shape, dtype) for *_, tensor in pair)
    for array, (file, stored, _) in zip((wte, own), pair):
        file.read_into(stored, array)
    if not np.array_equal(own, wte):
        row = int(np.argmax((own != wte).any(axis=1)))
        file, stored = found[_HEAD]
        raise CheckpointMismatch(
            f"the output head differs from {embedding} (first in row {row}), yet tie_word_embeddings is true",
            path=file.path,
            field=stored,
        )


def _some(names, limit=6):
    return ", ".join(name if len(name) <= 80 else name[:79] + "…" for name in names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )
