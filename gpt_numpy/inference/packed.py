"""A model's weights as inference reads them: in panels, in one of three number formats. A panel is ``PANEL`` columns.

    float32   the weights themselves
    bfloat16  rounded to 8 bits of mantissa: half the bytes, half the time a token
    int8      rounded to 127 steps either way, with a scale for every 64 inputs of a column: a quarter

Token embeddings are read from the output head where they are tied to it, else from panels of their own.
Biases, weights of norms and position
embeddings stay float32. ``kernels.decoding.panel_tile`` describes the layout and multiplies panels.
``PackedWeights.columns`` is the specification of the layout: it turns bytes back into numbers.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..interop.safetensors import bfloat16_to_float32
from ..parameters import head_name, table
from ..wording import counted, in_bytes
from ..workspace import aligned_empty

PANEL, BLOCK = 16, 64  # columns of a panel, inputs of an int8 block; as in the kernels, without numba
BLOCK_BYTES = BLOCK * PANEL + 2 * PANEL
DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}
_MATRICES = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_NORMS = ("ln_1.weight", None, "ln_2.weight", None)  # the norm before each matrix
_HEAD_NORMS = ("attn.q_norm.weight", "attn.k_norm.weight")
_VECTORS = (
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.bias",
    *_HEAD_NORMS,
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.bias",
    "mlp.c_proj.bias",
)


def panel_size(format, depth):
    """Elements of one panel of a matrix with ``depth`` rows."""
    if format == "int8":
        return -(-depth // BLOCK) * BLOCK_BYTES
    return (depth + depth % 2 if format == "bfloat16" else depth) * PANEL


def _ceil(count):
    return -(-count // PANEL)


def _shapes(config):
    C = config.n_embd
    c_fc, mlp_proj = (C, config.hidden_columns), (config.mlp_width, C)
    return ((C, config.qkv_columns), (config.heads_width, C), c_fc, mlp_proj, (C, config.vocab_size))


def _vectors(config):
    """name → (position in ``PackedWeights.vectors``, size) of every vector, in the order of use.

    A layernorm's bias lies behind its weight also where the model has none: zeros.
    """
    shapes, start, found = table(config), 0, {}
    layers = [f"h.{i}.{name}" for i in range(config.n_layer) for name in _VECTORS]
    for name in (*layers, "ln_f.weight", "ln_f.bias"):
        always = config.norm == "layernorm" and ".ln_" in f".{name}"
        if name in shapes or always:
            size = shapes.get(name, (config.n_embd,))[0]
            found[name] = start, size
            start += size
    return found


def _places(config):
    """The arrays ``places`` and ``head_norms`` of ``kernels.decoding.launch.Weights``."""
    vectors, layers = _vectors(config), [f"h.{i}." for i in range(config.n_layer)]

    def at(name):
        return vectors.get(name, (-1,))[0]

    rows = [
        (-1 if norm is None else at(h + norm), at(h + matrix.replace(".weight", ".bias")))
        for h in layers
        for matrix, norm in zip(_MATRICES, _NORMS)
    ]
    head_norms = [[at(h + name) for name in _HEAD_NORMS] for h in layers]
    return np.array([*rows, (at("ln_f.weight"), -1)], np.int64), np.array(head_norms, np.int64)


def _matrix_sizes(config, format):
    return [panel_size(format, depth) * _ceil(n) for depth, n in _shapes(config)]


def check_format(format):
    """``format``; raises ``ConfigError`` if no number format has that name."""
    if format not in DTYPES:
        raise ConfigError("no such number format", field="format", found=format, expected=", ".join(DTYPES))
    return format


class PackedWeights:
    """All weights of a model of shape ``config`` in ``format``.

    data       every panel: layer by layer c_attn, c_proj, c_fc, mlp.c_proj; then the output head; last the token
               embedding, where it is not the head
    offsets    (4 n_layer + 1 or 2,) where each matrix begins in data
    shapes     (K, N) of each of the five kinds of matrix
    vectors    float32, biases and weights of norms, in the order of use
    places, head_norms  where these begin: see ``kernels.decoding.launch.Weights``
    positions  (block_size, C) float32; (0, C) where positions are rotary
    """

    def __init__(self, config, format):
        self.config, self.format = config, check_format(format)
        self.shapes = _shapes(config)
        self.panel_sizes = np.array([panel_size(format, depth) for depth, _ in self.shapes], np.int64)
        sizes = _matrix_sizes(config, format)
        heads = [] if config.tied else sizes[4:]
        self.offsets = np.concatenate([[0], np.cumsum(sizes[:4] * config.n_layer + heads)]).astype(np.int64)
        self.embedding = len(self.offsets) - 1  # number of the matrix that holds the token embedding
        self.data = aligned_empty((self.data_size(config, format),), DTYPES[format])
        self.vectors = np.empty(self.vectors_size(config), np.float32)
        self.places, self.head_norms = _places(config)
        learned = config.positions == "learned"
        self.positions = np.empty((config.block_size if learned else 0, config.n_embd), np.float32)

    def __repr__(self):
        c = self.config
        sizes = f"{counted(c.n_layer, 'layer')}, {c.n_embd} wide, {counted(c.vocab_size, 'token')}"
        return f"<PackedWeights: {sizes}, {self.format}, {in_bytes(self.nbytes)}>"

    def __setstate__(self, state):
        self.__dict__.update(state)
        data = self.data  # an unpickled array may begin anywhere; kernels are fastest on cache lines
        self.data = aligned_empty(data.shape, data.dtype)
        self.data[...] = data

    @staticmethod
    def data_size(config, format):
        """Elements of ``data``."""
        sizes = _matrix_sizes(config, format)
        return sum(sizes[:4]) * config.n_layer + (1 if config.tied else 2) * sizes[4]

    @staticmethod
    def vectors_size(config):
        """Elements of ``vectors``."""
        return sum(list(_vectors(config).values())[-1])

    @classmethod
    def pack(cls, config, params, format):
        """From a model's parameters: a mapping name → contiguous float32 array, each read without a copy."""
        packed = cls(config, format)
        if len(packed.positions):
            packed.positions[...] = params["wpe.weight"]
        for name, (start, size) in _vectors(config).items():
            packed.vectors[start : start + size] = params.get(name, 0)
        for i in range(config.n_layer):
            for kind, name in enumerate(_MATRICES):
                packed._pack_matrix(4 * i + kind, kind, params[f"h.{i}.{name}"])
        packed._pack_matrix(4 * config.n_layer, 4, params[head_name(config)], transposed=True)
        if not config.tied:
            packed._pack_matrix(packed.embedding, 4, params["wte.weight"], transposed=True)
        return packed

    def _pack_matrix(self, index, kind, source, transposed=False):
        from ..kernels.decoding import panels

        K, N = self.shapes[kind]
        steps = (1, K) if transposed else (N, 1)  # distance between rows, and between columns
        launch = getattr(panels, f"pack_{self.format}")
        launch(
            _ceil(N), source.reshape(-1), K, *steps, N, self.data, int(self.offsets[index]), int(self.panel_sizes[kind])
        )

    @property
    def nbytes(self):
        """Bytes of all weights."""
        return self.data.nbytes + self.vectors.nbytes + self.positions.nbytes

    @property
    def bytes_per_token(self):
        """Bytes of weights that one token's decoding reads."""
        embedding = 0 if self.config.tied else self.data[self.offsets[-1] :].nbytes
        return self.data.nbytes - embedding + self.vectors.nbytes

    def columns(self, index, kind, indices):
        """float32 (len(indices), K): the columns ``indices`` of matrix number ``index``, of kind 0 … 4."""
        (depth, columns), size = self.shapes[kind], int(self.panel_sizes[kind])
        start, indices = int(self.offsets[index]), np.asarray(indices)
        panels = self.data[start : start + _ceil(columns) * size].reshape(-1, size)
        panel, column = indices // PANEL, indices % PANEL
        if self.format == "float32":
            return panels.reshape(-1, depth, PANEL)[panel, :, column]
        if self.format == "bfloat16":
            pairs = panels.reshape(-1, size // (2 * PANEL), PANEL, 2)[panel, :, column]
            return bfloat16_to_float32(pairs.reshape(len(indices), -1)[:, :depth])
        blocks = panels.reshape(-1, size // BLOCK_BYTES, BLOCK_BYTES)
        scales = blocks[:, :, BLOCK * PANEL :].view(np.uint16)[panel, :, column]
        pairs = blocks[:, :, : BLOCK * PANEL].reshape(*blocks.shape[:2], BLOCK // 2, PANEL, 2)[panel, :, :, column]
        numbers = pairs.reshape(len(indices), -1, BLOCK) * bfloat16_to_float32(scales)[:, :, None]
        return numbers.reshape(len(indices), -1)[:, :depth]

    def embed(self, tokens):
        """Token embeddings, float32 (*tokens.shape, C)."""
        rows = self.columns(self.embedding, 4, tokens.reshape(-1))
        return rows.reshape(*tokens.shape, -1)

    def unpacked(self):
        """A dict name → float32 array of all parameters, with the values that the kernels compute with."""
        params = {"wpe.weight": self.positions} if len(self.positions) else {}
        params["wte.weight"] = self.columns(self.embedding, 4, np.arange(self.config.vocab_size))
        params[head_name(self.config)] = self.columns(4 * self.config.n_layer, 4, np.arange(self.config.vocab_size))
        shapes = table(self.config)
        for name, (start, size) in _vectors(self.config).items():
            if name in shapes:
                params[name] = self.vectors[start : start + size]
        for i in range(self.config.n_layer):
            for kind, name in enumerate(_MATRICES):
                params[f"h.{i}.{name}"] = self.columns(4 * i + kind, kind, np.arange(self.shapes[kind][1])).T
        return params
