"""What a launch of the decoder is given: weights, shape and memory, and the matrix that a stage multiplies by."""

from typing import NamedTuple

import numpy as np

from ..runtime.decorators import part

QKV, PROJ, FC, MLP_PROJ, HEAD = range(5)  # the kinds of matrix, in the order of ``Weights.offsets``
STAGES = 6  # of a layer: the matrices, and between the first two the new keys and attention
PIECES = 4  # of a matrix for each thread, at least, where there are as many panels
CHUNK = 256  # k; a multiple of BLOCK
MOST_LARGEST = 128  # logits of a row that are found in passing


class Weights(NamedTuple):
    data: np.ndarray  # all panels: float32, uint16 (bfloat16), int8 or uint8 (int4)
    head: np.ndarray  # the same memory as the output head is read: int8 where data are int4
    offsets: np.ndarray  # (4 n_layer + 1,) where each matrix begins; the last is the output head
    panel_sizes: np.ndarray  # (5,) elements of a panel of each kind
    chunk_sizes: np.ndarray  # (5,) elements of CHUNK rows of a panel
    vectors: np.ndarray  # float32: biases and the weights of norms
    places: np.ndarray  # (4 n_layer + 1, 2) where the norm before each matrix begins in vectors, and its bias; -1: none
    head_norms: np.ndarray  # (n_layer, 2) the same of the norms of queries and of keys


class Shape(NamedTuple):
    rows: int
    wanted: int  # rows whose logits are wanted: the last ones
    largest: int  # how many of a row's largest logits are wanted, 1 … MOST_LARGEST; 0 for all, written to ``logits``
    n_layer: int
    n_head: int
    n_kv_head: int
    head_size: int
    n_embd: int
    hidden_columns: int  # of mlp.c_fc
    mlp_width: int
    vocab_size: int
    batch: int  # of the cache
    capacity: int  # of the cache
    window: int  # keys that a query sees, at most
    window_from: int  # the first layer where that holds
    scale: np.float32  # of attention's scores
    scale_by_layer: bool  # whether block i divides the scale by i + 1
    norm: NamedTuple  # the last three are of ``block_forms``
    heads: NamedTuple
    mlp: NamedTuple


class Buffers(NamedTuple):
    """Memory of one token, kept from call to call. The last five have one part for each thread."""

    counters: np.ndarray  # (stages, 1 + threads, LINE) int64, zero at the start of a launch: see ``stages``
    sequences: np.ndarray  # (rows,) int64: index of each row's sequence in the cache
    positions: np.ndarray  # (rows,) int64
    cos: np.ndarray  # (rows, pairs) of the angles of each row's position; no pairs where positions are learned
    sin: np.ndarray
    x: np.ndarray  # (rows, C): the residual stream
    q: np.ndarray  # (rows, n_head · head_size)
    heads: np.ndarray  # (rows, n_head · head_size)
    hidden: np.ndarray  # (rows, hidden_columns)
    logits: np.ndarray  # (wanted, V), or (0, 0) where only the largest are wanted
    best: np.ndarray  # (threads, rows, 1 + MOST_LARGEST, 2) float64: see `one_token.keep_largest`
    activations: np.ndarray  # (threads, rows, step): what a matrix is multiplied by; float32, or int16 for integers
    scales: np.ndarray  # (threads, rows, step / BLOCK · SCALES) of int16 activations
    sums: np.ndarray  # (threads, rows, STREAMS · PANEL)
    scratch: np.ndarray  # (threads, max(`cached_attention.scratch_size`, C, mlp_width))


class Run(NamedTuple):
    """All that the pieces of a launch share."""

    weights: Weights
    shape: Shape
    buffers: Buffers
    keys: np.ndarray  # the cache's, flat
    values: np.ndarray


class Matrix(NamedTuple):
    """One matrix of the model, and the positions of its norm and bias."""

    layer: int
    kind: int
    depth: int  # K
    columns: int  # N
    first: int  # of its panels, in ``Weights.data``
    panel_size: int
    chunk_size: int
    norm: int  # where the norm before it begins in ``Weights.vectors``; -1: there is none
    bias: int  # where its bias begins; -1: it has none


class Part(NamedTuple):
    """``rows`` rows and ``width`` columns of a product, from row ``row`` and column ``first`` on."""

    row: int
    rows: int
    first: int
    width: int


@part
def matrix_of(layer, kind, weights, shape):
    """The ``Matrix`` of this kind in this layer; of the head, layer is n_layer."""
    C, heads = shape.n_embd, shape.n_head * shape.head_size
    depth = shape.mlp_width if kind == MLP_PROJ else heads if kind == PROJ else C
    columns = C
    if kind == QKV:
        columns = heads + 2 * shape.n_kv_head * shape.head_size
    elif kind == FC:
        columns = shape.hidden_columns
    elif kind == HEAD:
        columns = shape.vocab_size
    number = 4 * layer + kind % HEAD
    norm, bias = weights.places[number, 0], weights.places[number, 1]
    sizes = weights.panel_sizes[kind], weights.chunk_sizes[kind]
    return Matrix(layer, kind, depth, columns, weights.offsets[number], sizes[0], sizes[1], norm, bias)
