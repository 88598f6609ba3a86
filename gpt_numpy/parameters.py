"""The one table of a model's parameters, flat storage for it, and the initial values.

``table(config)`` lists name → shape in GPT-2's own order and with GPT-2's own names; weights are
(in, out), so that a published checkpoint loads without a transpose. Parameters, gradients and both of the
optimizer's moments are each a ``Parameters``: one flat array, with a named view for every row of the table.
The optimizer, checkpoints, imports and reports all walk this table; there is no second list.

A tied output head is the token embedding ``wte`` and has no row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from .config import GPTConfig
from .wording import counted
from .workspace import aligned_zeros

INITIAL_STD = 0.02  # of GPT-2's matrices before training


def table(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Ordered dict name → shape of every parameter of ``config``."""
    C, W, H = config.n_embd, config.mlp_width, config.hidden_columns
    D, A = config.heads_width, config.qkv_columns
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config.vocab_size, C)}
    if config.positions == "learned":
        shapes["wpe.weight"] = (config.block_size, C)
    for i in range(config.n_layer):
        block = {
            "ln_1.weight": (C,),
            "ln_1.bias": (C,),
            "attn.c_attn.weight": (C, A),  # columns: queries, keys, values
            "attn.c_attn.bias": (A,),
            "attn.q_norm.weight": (config.head_size,),
            "attn.k_norm.weight": (config.head_size,),
            "attn.c_proj.weight": (D, C),
            "attn.c_proj.bias": (C,),
            "ln_2.weight": (C,),
            "ln_2.bias": (C,),
            "mlp.c_fc.weight": (C, H),  # where gated: gate, then up
            "mlp.c_fc.bias": (H,),
            "mlp.c_proj.weight": (W, C),
            "mlp.c_proj.bias": (C,),
        }
        shapes.update({f"h.{i}.{name}": shape for name, shape in block.items() if _has(config, name)})
    shapes["ln_f.weight"] = (C,)
    if config.has_bias("norm"):
        shapes["ln_f.bias"] = (C,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab_size, C)
    return shapes


def _has(config, name):
    """Whether the parts of ``config`` have the parameter ``name`` of a block."""
    if "_norm." in name:
        return config.qk_norm
    what = {"ln_1": "norm", "ln_2": "norm", "mlp.c_fc": "mlp", "mlp.c_proj": "mlp", "attn.c_attn": "qkv"}
    return not name.endswith(".bias") or config.has_bias(what.get(name.removesuffix(".bias"), "proj"))


def head_name(config: GPTConfig) -> str:
    """Name of the tensor (V, C) that the output head multiplies by."""
    return "wte.weight" if config.tied else "lm_head.weight"


def count(config: GPTConfig) -> int:
    """Number of parameters of ``config``."""
    return sum(math.prod(shape) for shape in table(config).values())


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter: to matrices only, not to biases and norms."""
    return name.endswith(".weight") and ".ln_" not in f".{name}" and "_norm." not in name


class Parameters(Mapping):
    """One flat array and, by name, views of it in the shapes of ``table(config)``.

    >>> from gpt_numpy import GPTConfig
    >>> p = Parameters(GPTConfig.preset("tiny"))
    >>> p["wte.weight"][0, 0] = 3.0
    >>> float(p.flat[0])
    3.0
    """

    def __init__(self, config: GPTConfig, dtype=np.float32, flat: np.ndarray | None = None):
        self.config = config
        self.shapes = table(config)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        # start of each tensor in the flat array, and the end of the last
        self.boundaries = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.flat = aligned_zeros((int(self.boundaries[-1]),), dtype) if flat is None else flat
        starts, stops = self.boundaries[:-1], self.boundaries[1:]
        self._views = {
            name: self.flat[start:stop].reshape(shape)
            for (name, shape), start, stop in zip(self.shapes.items(), starts, stops)
        }
        self._together = {}  # see `together`

    def __repr__(self):
        return f"<Parameters: {counted(len(self), 'tensor')}, {counted(len(self.flat), 'number')}, {self.flat.dtype}>"

    def __reduce__(self):
        # Rebuilt from the flat array alone: views that were copied one by one would no longer be views of it.
        return _restored, (type(self), self.config, self.flat)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def together(self, prefix: str, names: tuple[str, ...]) -> tuple[np.ndarray | None, ...]:
        """The tensors ``prefix + name`` in one tuple, the same object every time; None for one that there is not."""
        found = self._together.get((prefix, names))
        if found is None:
            found = self._together[prefix, names] = tuple(self._views.get(prefix + name) for name in names)
        return found

    def name_at(self, index: int) -> str:
        """Name of the tensor that holds flat element ``index``."""
        return list(self._views)[int(np.searchsorted(self.boundaries, index, side="right")) - 1]


def _restored(kind, config, flat):
    """A copied or unpickled ``Parameters``, in memory of its own that begins on a cache line."""
    params = kind(config, flat.dtype)
    params.flat[...] = flat
    return params


class Gradients(Parameters):
    """The gradients of all parameters, and of which tensors the next contribution replaces what is there.

    A backward adds to the gradients. After ``replace`` the first contribution to each tensor is written over the former
    gradient, which saves the pass that sets zeros. A tensor that is used twice (``wte`` where tied) is then added to.
    """

    def __init__(self, config: GPTConfig, dtype=np.float32, flat: np.ndarray | None = None):
        super().__init__(config, dtype, flat)
        self._to_replace: set[str] = set()
        self._present: dict[tuple, set[str]] = {}  # (prefix, names) → names of the tensors that there are

    def __reduce__(self):
        return *super().__reduce__(), {"_to_replace": set(self._to_replace)}

    def replace(self) -> None:
        """Let the next contribution to each tensor replace what is there."""
        self._to_replace = set(self)

    def keep(self) -> None:
        """Let all contributions add to what is there, as they do at first."""
        self._to_replace = set()

    def take_first(self, prefix: str, names: tuple[str, ...]) -> bool:
        """Whether the contribution that follows is the first to all ``prefix + name`` and has to replace what is there.

        The contribution counts as made. If it is the first to some of them only, those are set to zero, to be added to.
        """
        if not self._to_replace:
            return False
        present = self._present.get((prefix, names))
        if present is None:
            present = self._present[prefix, names] = {prefix + name for name in names} & self._views.keys()
        first = present & self._to_replace
        self._to_replace -= first
        if first == present:
            return bool(first)
        for name in first:
            self[name].fill(0)
        return False


def initialise(params: Parameters, config: GPTConfig, seed: int, std: float = INITIAL_STD) -> None:
    """Fill ``params`` with GPT-2's initial values, in place.

    Matrices are normal with standard deviation ``std``; the two projections of each block that write to the
    residual stream are scaled by 1/√(2·n_layer), so that the stream's variance does not grow with depth
    (Radford et al. 2019, section 2.3). Weights of norms are 1, every bias is 0. Each tensor draws from a
    generator of its own, made from the seed and its position in the table, so that adding a layer changes no
    other tensor's values.
    """
    residual_scale = 1 / math.sqrt(2 * config.n_layer)
    for position, (name, view) in enumerate(params.items()):
        if decays(name):
            scale = std * (residual_scale if name.endswith("c_proj.weight") else 1.0)
            rng = np.random.Generator(np.random.Philox(key=[seed, position]))
            # Drawn in float32 whatever the dtype, so that a float64 model has the same initial values.
            view[...] = rng.standard_normal(view.shape, dtype=np.float32) * np.float32(scale)
        else:
            view[...] = 1.0 if name.endswith(".weight") else 0.0
