import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import attention as kernels
from gpt_numpy.randomness import Dropout

SHAPES = [  # B, Tq, Tk, n_head, head_size
    (2, 5, 5, 3, 4),
    (1, 1, 1, 1, 1),
    (2, 7, 12, 3, 16),
    (1, 1, 300, 2, 64),
    (2, 3, 203, 3, 37),
    (1, 4, 4, 2, 8),
    (1, 97, 97, 2, 37),
    (2, 130, 250, 1, 80),
    (1, 290, 290, 3, 128),
]


def _inputs(rng, B, Tq, Tk, n_head, head_size):
    q, dout = rng.normal(size=(2, B, Tq, n_head, head_size))
    k, v = rng.normal(size=(2, B, Tk, n_head, head_size))
    return q, k, v, dout


def _call(q, k, v, dout, **masks):
    def call(ops, array):
        out, cache = ops.attention_forward(array(q), array(k), array(v), **masks)
        return out, ops.attention_backward(array(dout), cache)

    return call


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", ["", "first_key", "dropout", "first_key dropout"])
def test_parity(rng, assert_parity, shape, masked):
    inputs, masks = _inputs(rng, *shape), {}
    B, Tq, Tk = shape[:3]
    if "first_key" in masked:
        masks["first_key"] = rng.integers(0, np.arange(Tk - Tq, Tk) + 1, (B, Tq))
    if "dropout" in masked:
        masks["dropout"] = Dropout(0.3, 0x0123456789ABCDEF, 5)
    if shape[1] == shape[2] == 1:
        # one key has weight 1 whatever its score: dq and dk are rounding errors around 0, with no scale to compare
        call = _call(*inputs, **masks)
        assert_parity(kernels, lambda ops, array: (call(ops, array)[0], call(ops, array)[1][2]), float32_bound=2e-6)
    else:
        assert_parity(kernels, _call(*inputs, **masks), float32_bound=3e-6)


def test_documents_are_apart_exactly(rng):
    """Queries of one document, in the middle of a row, give the same bits as if the others were not there."""
    q, k, v, dout = _inputs(rng, 1, 300, 300, 2, 24)
    starts = np.where(np.arange(300) < 110, 0, 110)[None]
    out, cache = kernels.attention_forward(q, k, v, first_key=starts)
    gradients = kernels.attention_backward(dout, cache)
    k[:, :110], v[:, :110] = 1e3 * rng.normal(size=(2, 1, 110, 2, 24))
    again, cache = kernels.attention_forward(q, k, v, first_key=starts)
    again_gradients = kernels.attention_backward(dout, cache)
    np.testing.assert_array_equal(out[:, 110:], again[:, 110:])
    for a, b in zip(gradients, again_gradients):
        np.testing.assert_array_equal(a[:, 110:], b[:, 110:])


def test_a_query_block_gives_the_bits_of_the_whole(rng):
    """Cutting the queries (as a cache or a chunked prefill does) does not change a row."""
    q, k, v, _ = _inputs(rng, 1, 260, 260, 2, 40)
    whole, _ = kernels.attention_forward(q, k, v)
    part, _ = kernels.attention_forward(q[:, 101:200], k[:, :200], v[:, :200])
    np.testing.assert_array_equal(part, whole[:, 101:200])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strided_views(rng, dtype):
    qkv = rng.normal(size=(2, 50, 3, 4, 16)).astype(dtype)
    views = [qkv[:, :, i] for i in range(3)]
    reversed_heads = [np.ascontiguousarray(view)[:, ::-1, ::2, ::-1][..., ::-1] for view in views]
    transposed = [np.ascontiguousarray(view.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0) for view in views]
    for q, k, v in (views, reversed_heads, transposed):
        dout = rng.normal(size=q.shape).astype(dtype)
        found, cache = kernels.attention_forward(q, k, v)
        expected, expected_cache = layers.attention_forward(q, k, v)
        pairs = zip(
            (found, *kernels.attention_backward(dout, cache)),
            (expected, *layers.attention_backward(dout, expected_cache)),
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, atol=1e-5 if dtype == np.float32 else 1e-13)


def test_large_scores_and_infinity(rng):
    q, k, v, _ = _inputs(rng, 1, 200, 200, 1, 8)
    found, _ = kernels.attention_forward(1e3 * q, 1e3 * k, v)  # every row's softmax is one key
    expected, _ = layers.attention_forward(1e3 * q, 1e3 * k, v)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    q[0, 190:] = np.abs(q[0, 190:])
    k[0, :150] = -np.inf  # the last queries give the first tile no weight at all
    for first in (190, 199):  # many queries, and few
        found, _ = kernels.attention_forward(q[:, first:], k, v)
        expected, _ = layers.attention_forward(q[:, first:], k, v)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_nan_spoils_what_sees_it(rng, name):
    arrays = dict(zip("qkv", _inputs(rng, 1, 300, 300, 1, 8)[:3]))
    arrays[name][0, 150, 0, 3] = np.nan
    out, cache = kernels.attention_forward(**arrays)
    assert np.isnan(out[0, 150]).any() and np.isfinite(out[0, :90]).all()
    gradients = kernels.attention_backward(np.ones_like(out), cache)
    assert any(np.isnan(g).any() for g in gradients)


@pytest.mark.parametrize(("B", "T"), [(0, 5), (2, 0)])
def test_nothing_to_do(B, T):
    q = k = v = np.ones((B, T, 2, 4), np.float32)
    out, cache = kernels.attention_forward(q, k, v)
    assert out.shape == q.shape
    assert [g.shape for g in kernels.attention_backward(out, cache)] == [q.shape] * 3


def test_arguments_that_do_not_fit():
    x = np.ones((2, 5, 3, 4))
    for wrong in (np.ones((2, 5, 3, 5)), np.ones((2, 5, 2, 4)), np.ones((2, 4, 3, 4)), np.ones((2, 5, 12))):
        with pytest.raises(KernelError):
            kernels.attention_forward(x, wrong, wrong)
    with pytest.raises(KernelError, match="v: "):
        kernels.attention_forward(x, x, x[:, :4])
    with pytest.raises(KernelError, match="two types"):
        kernels.attention_forward(x, x.astype(np.float32), x)
    with pytest.raises(KernelError, match="float16"):
        kernels.attention_forward(x.astype(np.float16), x, x)
    _, cache = kernels.attention_forward(x, x, x)
    with pytest.raises(KernelError, match="dout"):
        kernels.attention_backward(np.ones((2, 5, 12)), cache)


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
def test_first_key_out_of_range(bad):
    x = np.ones((2, 5, 3, 4))
    first_key = np.zeros((2, 5), np.int64)
    first_key[1, 3] = bad
    with pytest.raises(KernelError, match=rf"first_key: .*\(1, 3\): found {bad}"):
        kernels.attention_forward(x, x, x, first_key=first_key)
    with pytest.raises(KernelError, match="first_key"):
        kernels.attention_forward(x, x, x, first_key=np.zeros((5, 2), int))


@pytest.mark.parametrize("T", [1, 9])
def test_multi_head(rng, assert_parity, T):
    B, n_head, C = 2, 3, 12
    x, dout = rng.normal(size=(2, B, T, C))
    weights = [rng.normal(size=shape) for shape in ((C, 3 * C), 3 * C, (C, C), C)]
    first_key = rng.integers(0, np.arange(T) + 1, (B, T))

    def call(ops, array):
        out, cache = ops.multi_head_attention_forward(array(x), *map(array, weights), n_head, first_key)
        into = tuple(array(w) for w in weights)
        added = ops.multi_head_attention_backward(array(dout), cache, into=into)
        assert all(a is b for a, b in zip(added[1:], into))
        return out, ops.multi_head_attention_backward(array(dout), cache), added

    # a single key's weight is 1: the gradients of q's and k's columns are rounding errors, small next to v's
    assert_parity(kernels, call, float32_bound=3e-6)
    with pytest.raises(KernelError, match="n_head"):
        kernels.multi_head_attention_forward(x, *weights, 5)
