import numpy as np
import pytest

from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import lm_head as kernels

SIZES = [((2, 5), 3, 11), ((1, 1), 1, 1), ((3, 17), 20, 257), ((40, 3), 7, 101), ((0, 4), 3, 5)]


def make(rng, lead, C, V):
    targets = rng.integers(0, V, lead)
    targets.reshape(-1)[1::4] = -1
    return rng.normal(size=(*lead, C)), rng.normal(size=(V, C)), targets


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parity_of_the_head(rng, assert_parity, size):
    x, wte, _ = make(rng, *size)
    dlogits, more = rng.normal(size=(*x.shape[:-1], len(wte))), rng.normal(size=wte.shape)

    def call(ops, array):
        logits, cache = ops.lm_head_forward(array(x), array(wte))
        return (
            logits,
            ops.lm_head_backward(array(dlogits), cache),
            ops.lm_head_backward(array(dlogits), cache, into=(array(more),)),
        )

    assert_parity(kernels, call, float32_bound=2e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 1 << 27])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parity_with_the_loss(rng, assert_parity, monkeypatch, size, chunk_bytes):
    x, wte, targets = make(rng, *size)
    more = rng.normal(size=wte.shape)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", chunk_bytes)  # 1: a chunk for each row

    def call(ops, array):
        loss, cache = ops.lm_head_cross_entropy_forward(array(x), array(wte), targets)
        gradients = ops.lm_head_cross_entropy_backward(0.7, cache)
        at_once = ops.lm_head_cross_entropy_gradients(array(x), array(wte), targets, 0.7)
        added = ops.lm_head_cross_entropy_gradients(array(x), array(wte), targets, 0.7, into=(array(more),))
        return loss, gradients, at_once, added

    assert_parity(kernels, call, float32_bound=2e-6)


def test_targets_that_none_count(rng):
    x, wte, targets = make(rng, (2, 3), 4, 9)
    into = np.full(wte.shape, 3.0)
    loss, dx, dwte = kernels.lm_head_cross_entropy_gradients(x, wte, np.full_like(targets, -1), 1.0, into=(into,))
    assert loss == 0 and not dx.any() and (dwte == 3).all()


def test_logits_never_exist_all_at_once(rng, monkeypatch):
    x, wte, targets = make(rng, (8, 25), 4, 1000)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 50 * 1000 * 8)
    shapes, scratch = [], kernels.op_scratch

    def watched(owner, dtype, *wanted):
        shapes.extend(wanted)
        return scratch(owner, dtype, *wanted)

    monkeypatch.setattr(kernels, "op_scratch", watched)
    kernels.lm_head_cross_entropy_gradients(x, wte, targets, 1.0)
    assert shapes == [(50, 1000)] * 4


def test_arguments_that_do_not_fit(rng):
    x, wte, targets = make(rng, (2, 3), 4, 9)
    with pytest.raises(KernelError, match="wte"):
        kernels.lm_head_forward(x, wte[:, :3])
    with pytest.raises(KernelError, match="targets"):
        kernels.lm_head_cross_entropy_forward(x, wte, targets.T)
    with pytest.raises(KernelError, match=r"out of range at \(1, 2\)"):
        kernels.lm_head_cross_entropy_gradients(x, wte, np.where(np.arange(6).reshape(2, 3) == 5, 9, targets), 1.0)
    with pytest.raises(KernelError, match="integers"):
        kernels.lm_head_cross_entropy_forward(x, wte, targets.astype(float))
    _, cache = kernels.lm_head_forward(x, wte)
    with pytest.raises(KernelError, match="dlogits"):
        kernels.lm_head_backward(np.ones((2, 3, 8)), cache)
