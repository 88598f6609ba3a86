import numpy as np
import pytest

from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import embedding as kernels

SHAPES = [(2, 5, 11, 12), (1, 1, 1, 1), (3, 40, 7, 67), (0, 4, 3, 8), (2, 0, 3, 8)]


@pytest.mark.parametrize(("B", "T", "V", "C"), SHAPES)
@pytest.mark.parametrize("per_sequence", [False, True])
def test_parity(rng, assert_parity, B, T, V, C, per_sequence):
    block_size = T + 3
    tokens = rng.integers(0, V, (B, T))
    positions = rng.integers(0, block_size, (B, T) if per_sequence else T)
    wte, wpe, dout = rng.normal(size=(V, C)), rng.normal(size=(block_size, C)), rng.normal(size=(B, T, C))

    def call(ops, array):
        out, cache = ops.embedding_forward(tokens, positions, array(wte), array(wpe))
        into = (array(wte), array(wpe))
        added = ops.embedding_backward(array(dout), cache, into=into)
        assert added[0] is into[0] and added[1] is into[1]
        return out, ops.embedding_backward(array(dout), cache), added

    assert_parity(kernels, call, float32_bound=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
def test_tokens_of_any_integer_type_and_stride(rng, dtype):
    tokens = rng.integers(0, 11, (6, 10)).astype(dtype)
    wte, wpe = rng.normal(size=(11, 5)), rng.normal(size=(10, 5))
    out, _ = kernels.embedding_forward(tokens[::2, ::2], np.arange(5, dtype=dtype), wte, wpe)
    np.testing.assert_array_equal(out, wte[tokens[::2, ::2]] + wpe[:5])


@pytest.mark.parametrize("bad", [-1, 11, 2**40])
def test_indices_out_of_range_say_where(bad):
    wte, wpe = np.ones((11, 4)), np.ones((11, 4))
    tokens = np.zeros((2, 3), np.int64)
    tokens[1, 2] = bad
    with pytest.raises(KernelError, match=rf"tokens: .*\(1, 2\): found {bad}; expected 0 to 10"):
        kernels.embedding_forward(tokens, np.arange(3), wte, wpe)
    with pytest.raises(KernelError, match=r"positions: .*\(1,\)"):
        kernels.embedding_forward(np.zeros((2, 3), int), np.array([0, bad, 0]), wte, wpe)


def test_other_arguments_that_do_not_fit():
    wte, wpe = np.ones((11, 4)), np.ones((6, 4))
    with pytest.raises(KernelError, match="integers"):
        kernels.embedding_forward(np.zeros((2, 3)), np.arange(3), wte, wpe)
    with pytest.raises(KernelError, match="positions"):
        kernels.embedding_forward(np.zeros((2, 3), int), np.arange(4), wte, wpe)
    with pytest.raises(KernelError, match="wpe"):
        kernels.embedding_forward(np.zeros((2, 3), int), np.arange(3), wte, np.ones((6, 5)))
    _, cache = kernels.embedding_forward(np.zeros((2, 3), int), np.arange(3), wte, wpe)
    with pytest.raises(KernelError, match="dout"):
        kernels.embedding_backward(np.ones((3, 2, 4)), cache)
