import numpy as np
import pytest

from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import mlp as kernels


def make(rng, shape, wide):
    C = shape[-1]
    weights = [rng.normal(size=s) / np.sqrt(s[0]) for s in ((C, wide), (wide, C))]
    return rng.normal(size=shape), weights[0], rng.normal(size=wide), weights[1], rng.normal(size=C)


@pytest.mark.parametrize("shape, wide", [((2, 5, 3), 12), ((1, 1, 1), 4), ((7, 33), 131), ((50, 17), 68), ((0, 3), 12)])
def test_parity(rng, assert_parity, monkeypatch, shape, wide):
    inputs = make(rng, shape, wide)
    dout, more = rng.normal(size=shape), [rng.normal(size=a.shape) for a in inputs[1:]]
    monkeypatch.setattr(kernels, "CHUNK_ROWS", 16)  # several chunks, of unequal length

    def call(ops, array):
        out, cache = ops.mlp_forward(*map(array, inputs))
        gradients = ops.mlp_backward(array(dout), cache)
        again = ops.mlp_backward(array(dout), cache)
        added = ops.mlp_backward(array(dout), cache, into=tuple(map(array, more)))
        return out, gradients, again, added

    assert_parity(kernels, call, float32_bound=5e-6)


def test_chunks_cover_the_rows():
    for rows in (0, 1, 1023, 1024, 1025, 5000):
        parts = kernels._chunks(rows)
        assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
        assert all(0 < part.stop - part.start <= kernels.CHUNK_ROWS for part in parts)


def test_arrays_that_do_not_fit(rng):
    inputs = make(rng, (2, 3), 12)
    for place, name in enumerate(("fc_weight", "fc_bias", "proj_weight", "proj_bias"), 1):
        bad = [*inputs[:place], np.ones(5) if "bias" in name else np.ones((7, 12)), *inputs[place + 1 :]]
        with pytest.raises(KernelError, match="fc_|proj_"):
            kernels.mlp_forward(*bad)
    out, cache = kernels.mlp_forward(*inputs)
    with pytest.raises(KernelError, match="dout"):
        kernels.mlp_backward(out.T, cache)
