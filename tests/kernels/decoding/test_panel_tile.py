"""Panels as kernels read them against what ``inference.packed`` says each byte stands for."""

import numpy as np
import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.inference.packed import BLOCK, BLOCK_BYTES, PANEL, PackedWeights
from gpt_numpy.interop.safetensors import float32_to_bfloat16
from gpt_numpy.kernels.decoding import panel_tile
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.kernels.runtime.emitting import Rows
from gpt_numpy.parameters import Parameters

CONFIG = GPTConfig(vocab_size=21, block_size=5, n_layer=2, n_head=3, n_embd=27)


def parameters(seed=0):
    params = Parameters(CONFIG)
    params.flat[:] = np.random.default_rng(seed).standard_normal(len(params.flat))
    return params


@kernel()
def multiply(rows, panels, weights, start, size, x, scales, depth, out):
    panel_tile.panel_tile(
        rows,
        panels,
        Rows(weights, start, size),
        Rows(x, 0, x.shape[1]),
        Rows(scales, 0, scales.shape[1]),
        depth,
        Rows(out, 0, out.shape[1]),
    )


def test_both_sides_mean_the_same_layout():
    assert (PANEL, BLOCK, BLOCK_BYTES) == (panel_tile.PANEL, panel_tile.BLOCK, panel_tile.BLOCK_BYTES)


@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8"])
def test_packing_rounds_as_little_as_the_format_allows(format):
    params = parameters()
    unpacked = PackedWeights.pack(CONFIG, params, format).unpacked()
    assert set(unpacked) == set(params)
    for name, values in params.items():
        found = unpacked[name]
        assert found.shape == values.shape
        if format == "float32" or values.ndim == 1 or name == "wpe.weight":
            assert np.array_equal(found, values), name
        elif format == "bfloat16":
            bits = float32_to_bfloat16(values).astype(np.uint32) << 16
            assert np.array_equal(found, bits.view(np.float32)), name
        else:
            # 27 inputs are less than a block, so a column (a row of wte) has one scale: its largest weight / 127,
            # itself rounded to 8 bits.
            axis = 1 if name == "wte.weight" else 0
            blocks = values if axis == 0 else values.T
            error = np.abs((found if axis == 0 else found.T) - blocks)
            for first in range(0, len(blocks), BLOCK):
                step = np.abs(blocks[first : first + BLOCK]).max(axis=0) / 127
                assert np.all(error[first : first + BLOCK] <= step * (0.5 + 127 * 2**-8)), name
                assert np.median(error[first : first + BLOCK] / step) < 0.3


SIZES = [
    (rows, panels)
    for panels in range(1, panel_tile.STREAMS + 1)
    for rows in range(1, panel_tile.TILE_ROWS // panels + 1)
]


@pytest.mark.parametrize("rows, panels", SIZES)
@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8"])
def test_a_tile_is_a_product(format, rows, panels):
    rng = np.random.default_rng(rows)
    packed = PackedWeights.pack(CONFIG, parameters(), format)
    x = np.zeros((rows, 128), np.float32)
    x[:, :27] = rng.standard_normal((rows, 27))
    out = rng.standard_normal((rows, panels * PANEL + 3)).astype(np.float32)
    expected = out.copy()
    expected[:, : panels * PANEL] += x[:, :27] @ packed.columns(4, 0, np.arange(16, 16 + panels * PANEL)).T
    scales = np.ones((rows, 2), np.float32)
    if format == "int8":
        scales[:, 0] = np.abs(x).max(axis=1) / 32767
        x = np.rint(x / scales[:, :1]).astype(np.int16)
    start = int(packed.offsets[4]) + int(packed.panel_sizes[0])  # second panel of layer 1's c_attn
    multiply(rows, panels, packed.data, start, int(packed.panel_sizes[0]), x, scales, 27, out)
    assert np.abs(out - expected).max() <= (2e-3 if format == "int8" else 1e-5)


def test_int8_sums_at_their_largest_do_not_overflow():
    data = np.full(BLOCK_BYTES, 127, np.int8)
    data[BLOCK * PANEL :].view(np.uint16)[:] = 0x3F80  # 1.0
    for sign in (1, -1):
        x = np.full((1, BLOCK), sign * 32767, np.int16)
        out = np.zeros((1, PANEL), np.float32)
        multiply(1, 1, data, 0, 0, x, np.ones((1, 1), np.float32), BLOCK, out)
        assert np.all(out == np.float32(sign * BLOCK * 127 * 32767))
