"""Panels as kernels read them against what ``inference.packed`` says each byte stands for."""

import numpy as np
import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.inference import packed as layout
from gpt_numpy.inference.packed import BLOCK, BLOCK_BYTES, DTYPES, PANEL, PackedWeights
from gpt_numpy.interop.safetensors import float32_to_bfloat16
from gpt_numpy.kernels.decoding import panel_tile
from gpt_numpy.kernels.decoding.panel_tile import NIBBLE_BLOCK, NIBBLE_BYTES, SCALES
from gpt_numpy.kernels.runtime.decorators import kernel
from gpt_numpy.kernels.runtime.emitting import Rows
from gpt_numpy.parameters import Parameters
from gpt_numpy.products import WEIGHT_FORMATS

CONFIG = GPTConfig(vocab_size=21, block_size=5, n_layer=2, n_head=3, n_embd=27)


def parameters(seed=0):
    params = Parameters(CONFIG)
    params.flat[:] = np.random.default_rng(seed).standard_normal(len(params.flat))
    return params


@kernel()
def multiply(rows, panels, weights, start, size, x, scales, depth, out, ahead=0):
    panel_tile.panel_tile(
        rows,
        panels,
        Rows(weights, start, size),
        Rows(x, 0, x.shape[1]),
        Rows(scales, 0, scales.shape[1]),
        depth,
        Rows(out, 0, out.shape[1]),
        ahead,
    )


def rounded_to_16_bits(x):
    """What ``activations.prepare`` makes of rows of up to two blocks: int16, and for each block its scale and two sums."""
    scales = np.ones((len(x), x.shape[1] // BLOCK, SCALES), np.float32)
    blocks = x.reshape(len(x), -1, BLOCK)
    scales[:, :, 0] = np.abs(blocks).max(axis=2) / 32767
    numbers = np.rint(blocks / np.maximum(scales[:, :, :1], 1e-30)).astype(np.int16)
    halves = numbers.reshape(len(x), -1, BLOCK // NIBBLE_BLOCK, NIBBLE_BLOCK).sum(axis=3, dtype=np.int32)
    scales[:, :, 1:] = halves * scales[:, :, :1]
    return numbers.reshape(x.shape), scales.reshape(len(x), -1)


def test_both_sides_mean_the_same_layout():
    assert (PANEL, BLOCK, BLOCK_BYTES) == (panel_tile.PANEL, panel_tile.BLOCK, panel_tile.BLOCK_BYTES)
    ours = layout.PANEL, layout.NIBBLE_BLOCK, layout.NIBBLE_BYTES, layout.STEP_MASK
    assert ours == (PANEL, panel_tile.NIBBLE_BLOCK, panel_tile.NIBBLE_BYTES, panel_tile.STEP_MASK)
    assert tuple(DTYPES) == WEIGHT_FORMATS


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
@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8", "int4"])
def test_a_tile_is_a_product(format, rows, panels):
    rng = np.random.default_rng(rows)
    packed = PackedWeights.pack(CONFIG, parameters(), format)
    x = np.zeros((rows, 128), np.float32)
    x[:, :27] = rng.standard_normal((rows, 27))
    out = rng.standard_normal((rows, panels * PANEL + 3)).astype(np.float32)
    expected = out.copy()
    expected[:, : panels * PANEL] += x[:, :27] @ packed.columns(4, 0, np.arange(16, 16 + panels * PANEL)).T
    scales = np.ones((rows, 2 * SCALES), np.float32)
    if format in ("int8", "int4"):
        x, scales = rounded_to_16_bits(x)
    start = int(packed.offsets[4]) + int(packed.panel_sizes[0])  # second panel of layer 1's c_attn
    multiply(rows, panels, packed.data, start, int(packed.panel_sizes[0]), x, scales, 27, out)
    assert np.abs(out - expected).max() <= (2e-3 if format in ("int8", "int4") else 1e-5)


def test_int8_sums_at_their_largest_do_not_overflow():
    data = np.full(BLOCK_BYTES, 127, np.int8)
    data[BLOCK * PANEL :].view(np.uint16)[:] = 0x3F80  # 1.0
    for sign in (1, -1):
        x = np.full((1, BLOCK), sign * 32767, np.int16)
        out = np.zeros((1, PANEL), np.float32)
        multiply(1, 1, data, 0, 0, x, np.ones((1, 1), np.float32), BLOCK, out)
        assert np.all(out == np.float32(sign * BLOCK * 127 * 32767))


def test_int4_sums_at_their_largest_do_not_overflow():
    data = np.full(2 * NIBBLE_BYTES, 0xFF, np.uint8)  # every number is 15
    for block in range(2):
        halves = data[block * NIBBLE_BYTES :][NIBBLE_BLOCK * PANEL // 2 : NIBBLE_BYTES].view(np.uint16)
        halves[:] = 0x3F800000 >> 15 & 0xFFF0  # step 1, zero 0
    for sign in (1, -1):
        x = np.full((1, BLOCK), sign * 32767, np.int16)
        out = np.zeros((1, PANEL), np.float32)
        multiply(1, 1, data, 0, 0, x, np.ones((1, SCALES), np.float32), BLOCK, out)
        assert np.all(out == np.float32(sign * BLOCK * 15 * 32767))


def test_a_tile_of_int4_equals_its_twin_in_numpy():
    """The integers of each block multiplied and added exactly; what is left is the rounding of a few float32 sums."""
    rng = np.random.default_rng(7)
    columns, depth = 3 * PANEL, 192
    matrix = rng.standard_normal((depth, columns)).astype(np.float32)
    config = GPTConfig(vocab_size=3, block_size=2, n_layer=1, n_head=1, n_embd=depth, head_dim=columns, n_kv_head=1)
    params = Parameters(config)
    params["h.0.attn.c_attn.weight"][:, :columns] = matrix
    packed = PackedWeights.pack(config, params, "int4")
    x, scales = rounded_to_16_bits(rng.standard_normal((2, depth)).astype(np.float32))
    out = np.zeros((2, columns), np.float32)
    multiply(2, 3, packed.data, 0, int(packed.panel_sizes[0]), x, scales, depth, out)
    for column in range(columns):
        panel = packed.data[int(packed.panel_sizes[0]) * (column // PANEL) :]
        expected = np.zeros(2)
        for block in range(depth // NIBBLE_BLOCK):
            part = panel[block * NIBBLE_BYTES : (block + 1) * NIBBLE_BYTES]
            words = part[: NIBBLE_BLOCK * PANEL // 2].view("<u4").reshape(-1, PANEL)[:, column % PANEL].tolist()
            half = int(part[NIBBLE_BLOCK * PANEL // 2 :].view("<u2")[column % PANEL])
            step, zero = np.uint32((half & 0xFFF0) << 15).view(np.float32), half & 15
            for row in range(2):
                total = 0
                for group, word in enumerate(words):
                    for k in range(8):
                        q = word >> 4 * (k // 2 + 4 * (k % 2)) & 15
                        total += (q - zero) * int(x[row, block * NIBBLE_BLOCK + 8 * group + k])
                scale = scales[row, block * NIBBLE_BLOCK // BLOCK * SCALES]
                expected[row] += float(step) * float(scale) * total
        assert np.abs(out[:, column] - expected).max() <= 2e-6 * np.abs(matrix[:, column]).sum()


def test_asking_for_panels_ahead_changes_nothing():
    packed = PackedWeights.pack(CONFIG, parameters(), "int4")
    x, scales = rounded_to_16_bits(np.random.default_rng(0).standard_normal((1, 128)).astype(np.float32))
    results = []
    for ahead in (0, 1 << 40, -(1 << 40)):  # an address outside the process's memory is no fault
        out = np.zeros((1, 2 * PANEL), np.float32)
        multiply(1, 2, packed.data, 0, int(packed.panel_sizes[0]), x, scales, 27, out, ahead)
        results.append(out)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
