"""A model's weights as inference reads them: in panels, in one of four number formats. A panel is ``PANEL`` columns.

    float32   the weights themselves
    bfloat16  rounded to 8 bits of mantissa: half the bytes, half the time a token
    int8      rounded to 127 steps either way, with a scale for every 64 inputs of a column: a quarter
    int4      rounded to 16 numbers, with a step and a zero for every 32 inputs of a column: a seventh; the
              output head and the token embedding, where errors count most, are int8

Token embeddings are read from the output head where they are tied to it, else from panels of their own.
Biases, weights of norms and position
embeddings stay float32. ``kernels.decoding.panel_tile`` describes the layout and multiplies panels.
``PackedWeights.columns`` is the specification of the layout: it turns bytes back into numbers.

int4. A block is ``NIBBLE_BLOCK`` inputs of a column. Its weights are step · (q − zero) with whole numbers q and zero in
0 … 15. The range therefore need not be symmetric, and 0 is always among the values. A block takes 16 bytes of numbers and
2 bytes for step and zero: 4.5 bits a weight. ``kernels.decoding.nibble_panels`` chooses step and zero by the error

    Σ_k importance[k] · (weight[k] − rounded[k])²

which is the expected square of the change of the column's output, if the inputs of a matrix are uncorrelated with mean square
importance[k]. Without a text to measure on, the importance follows from the weights of the norms alone: the inputs of c_attn
and c_fc have mean square about weight[k]², as a norm makes numbers of mean square 1 before its weight.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..parameters import head_name, table
from ..products import bfloat16_to_float32
from ..wording import counted, in_bytes
from ..workspace import aligned_empty

PANEL, BLOCK = 16, 64  # columns of a panel, inputs of an int8 block; as in the kernels, without numba
BLOCK_BYTES = BLOCK * PANEL + 2 * PANEL
NIBBLE_BLOCK = 32  # inputs of an int4 block
NIBBLE_BYTES = NIBBLE_BLOCK * PANEL // 2 + 2 * PANEL
STEP_MASK = 0xFFF0  # of the 16 bits of step and zero
DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8, "int4": np.uint8}
INTEGERS = ("int8", "int4")  # whose activations are rounded as well
MATRICES = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
NORMS = ("ln_1.weight", None, "ln_2.weight", None)  # the norm before each matrix
_ORDER = [k // 2 + k % 2 * 4 for k in range(8)]  # which four bits of a word number k has
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


def kind_format(format, kind):
    """The format of the matrices of one kind: with int4, the output head and the token embedding are int8."""
    return "int8" if format == "int4" and kind == 4 else format


def panel_size(format, depth):
    """Elements of one panel of a matrix with ``depth`` rows."""
    if format == "int8":
        return -(-depth // BLOCK) * BLOCK_BYTES
    if format == "int4":
        return -(-depth // BLOCK) * (BLOCK // NIBBLE_BLOCK) * NIBBLE_BYTES
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
        for matrix, norm in zip(MATRICES, NORMS)
    ]
    head_norms = [[at(h + name) for name in _HEAD_NORMS] for h in layers]
    return np.array([*rows, (at("ln_f.weight"), -1)], np.int64), np.array(head_norms, np.int64)


def _matrix_sizes(config, format):
    return [panel_size(kind_format(format, kind), depth) * _ceil(n) for kind, (depth, n) in enumerate(_shapes(config))]


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
        self.panel_sizes = self.sizes_of_rows([depth for depth, _ in self.shapes])
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

    def sizes_of_rows(self, depths):
        """(5,) int64: of each kind of matrix, the elements of so many rows of a panel."""
        sizes = [panel_size(kind_format(self.format, kind), depth) for kind, depth in enumerate(depths)]
        return np.array(sizes, np.int64)

    @property
    def head_data(self):
        """``data`` in the type of the output head's and the embedding's numbers."""
        return self.data.view(DTYPES[kind_format(self.format, 4)])

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
    def pack(cls, config, params, format, importance=None):
        """From a model's parameters: a mapping name → contiguous float32 array, each read without a copy.

        importance: for int4, name of a block's matrix → (K,) float32, how much errors of the weights of each input count;
        default: ``importance_of_norms``.
        """
        packed = cls(config, format)
        if len(packed.positions):
            packed.positions[...] = params["wpe.weight"]
        for name, (start, size) in _vectors(config).items():
            packed.vectors[start : start + size] = params.get(name, 0)
        if format == "int4" and importance is None:
            importance = importance_of_norms(config, params)
        for i in range(config.n_layer):
            for kind, name in enumerate(MATRICES):
                full = f"h.{i}.{name}"
                if format == "int4":
                    packed._pack_nibbles(4 * i + kind, kind, params[full], importance[full])
                else:
                    packed._pack_matrix(4 * i + kind, kind, params[full])
        packed._pack_matrix(4 * config.n_layer, 4, params[head_name(config)], transposed=True)
        if not config.tied:
            packed._pack_matrix(packed.embedding, 4, params["wte.weight"], transposed=True)
        return packed

    def _pack_matrix(self, index, kind, source, transposed=False):
        from ..kernels.decoding import panels

        K, N = self.shapes[kind]
        steps = (1, K) if transposed else (N, 1)  # distance between rows, and between columns
        format, place = kind_format(self.format, kind), (int(self.offsets[index]), int(self.panel_sizes[kind]))
        data = self.head_data if kind == 4 else self.data
        getattr(panels, f"pack_{format}")(_ceil(N), source.reshape(-1), K, *steps, N, data, *place)

    def _pack_nibbles(self, index, kind, source, importance):
        from ..kernels.decoding import nibble_panels
        from ..kernels.runtime.scratch import worker_scratch

        (K, N), scratch = self.shapes[kind], worker_scratch(np.float32, NIBBLE_BLOCK * PANEL)
        memory = self.data.view(np.uint32), self.data.view(np.uint16), int(self.offsets[index])
        importance = np.ascontiguousarray(importance, np.float32)
        if importance.shape != (K,):
            raise ConfigError(
                "not one number for each input", field="importance", found=importance.shape, expected=(K,)
            )
        size = int(self.panel_sizes[kind])
        nibble_panels.pack_int4(_ceil(N), source.reshape(-1), importance, N, *memory, size, scratch)

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
        format = kind_format(self.format, kind)
        panels = self.data.view(DTYPES[format])[start : start + _ceil(columns) * size].reshape(-1, size)
        panel, column = indices // PANEL, indices % PANEL
        if format == "float32":
            return panels.reshape(-1, depth, PANEL)[panel, :, column]
        if format == "int4":
            return unpacked_nibbles(panels, panel, column)[:, :depth]
        if format == "bfloat16":
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
            for kind, name in enumerate(MATRICES):
                params[f"h.{i}.{name}"] = self.columns(4 * i + kind, kind, np.arange(self.shapes[kind][1])).T
        return params


def unpacked_nibbles(panels, panel, column):
    """float32 (n, K): the columns ``column[i]`` of the panels ``panel[i]`` of an int4 matrix, uint8 (panels, bytes)."""
    blocks = panels.reshape(len(panels), -1, NIBBLE_BYTES)[panel]  # (n, blocks, bytes)
    n, count, _ = blocks.shape
    words = np.ascontiguousarray(blocks[:, :, : NIBBLE_BLOCK * PANEL // 2]).view("<u4")
    words = words.reshape(n, count, NIBBLE_BLOCK // 8, PANEL)[np.arange(n), :, :, column]
    numbers = words[..., None] >> np.array([4 * place for place in _ORDER], np.uint32) & np.uint32(15)
    halves = np.ascontiguousarray(blocks[:, :, NIBBLE_BLOCK * PANEL // 2 :]).view("<u2")
    halves = halves.reshape(n, count, PANEL)[np.arange(n), :, column].astype(np.uint32)
    steps = ((halves & np.uint32(STEP_MASK)) << np.uint32(15)).view(np.float32)
    zeros = (halves & np.uint32(15)).astype(np.float32)
    numbers = numbers.reshape(n, count, NIBBLE_BLOCK).astype(np.float32)
    return ((numbers - zeros[..., None]) * steps[..., None]).reshape(n, -1)


def importance_of_norms(config, params):
    """name of each matrix of a block → (K,) float32: what is known of its inputs from the weights of the norms."""
    found = {}
    for i in range(config.n_layer):
        for matrix, norm in zip(MATRICES, NORMS):
            name = f"h.{i}.{matrix}"
            found[name] = np.ones(len(params[name]), np.float32) if norm is None else params[f"h.{i}.{norm}"] ** 2
    return found
