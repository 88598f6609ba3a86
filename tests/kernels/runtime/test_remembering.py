"""Ops that remember their calls: the same bits without Python between the launches, and when not to remember."""

import gc
import threading
import weakref

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels
from gpt_numpy.errors import KernelError
from gpt_numpy.kernels import linear, rounded
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.kernels.runtime.remembering import remembered
from gpt_numpy.model import DropoutAt
from gpt_numpy.workspace import Workspace

WEIGHT, BIAS = np.random.default_rng(5).standard_normal((2, 8, 8), np.float32)[0], np.arange(8, dtype=np.float32)


class Passes:
    """A linear layer called once a pass, and how often its arguments were checked."""

    def __init__(self, monkeypatch, weight=WEIGHT, bias=BIAS, ops=kernels):
        self.workspace, self.x, self.arguments, self.ops = (
            Workspace(),
            np.zeros((3, 8), np.float32),
            (weight, bias),
            ops,
        )
        self.checks, check = 0, linear.check_linear

        def counting(*arguments):
            self.checks += 1
            check(*arguments)

        monkeypatch.setattr(linear, "check_linear", counting)

    def __call__(self, fill=1.0):
        """The layer's output; asserts that it has the bits of a call without a workspace, and counts that call out."""
        self.x[...] = fill * np.arange(24).reshape(3, 8)
        self.workspace.begin_pass("kind")
        out, cache = self.ops.linear_forward(self.x, *self.arguments, self.workspace.begin("here"))
        checks = self.checks
        expected, _ = self.ops.linear_forward(self.x, *self.arguments)
        self.checks = checks
        np.testing.assert_array_equal(out, expected)
        return out, cache


def test_the_same_arrays_are_checked_in_the_first_two_passes_only(monkeypatch):
    passes = Passes(monkeypatch)
    results = [passes(fill) for fill in (1.0, 2.0, 3.0, 4.0)]
    assert passes.checks == 2  # the first outgrew the workspace
    assert results[1][0] is results[2][0] is results[3][0]
    assert results[1][1] is results[3][1]


def test_other_arguments_are_looked_at_again(monkeypatch):
    passes = Passes(monkeypatch)
    for _ in range(3):
        passes()
    passes.arguments = WEIGHT.copy(), BIAS
    passes()
    assert passes.checks == 3
    passes.arguments = WEIGHT[:5], BIAS
    with pytest.raises(KernelError, match="weight"):
        passes()


def test_a_copy_made_in_passing_is_not_remembered(monkeypatch):
    for arguments in ({"weight": WEIGHT.T}, {"bias": np.repeat(BIAS, 2)[::2]}):
        with monkeypatch.context() as patch:
            passes = Passes(patch, **arguments)
            for fill in range(4):
                arguments.get("weight", BIAS)[...] += fill  # what a copy of an earlier pass would not have
                passes()
            assert passes.checks == 4


def test_another_number_of_threads_is_another_call(monkeypatch):
    passes, before = Passes(monkeypatch), threads.set_count(1)
    try:
        for _ in range(3):
            passes()
        threads.set_count(2)
        passes()
        passes()
    finally:
        threads.set_count(before)
    assert passes.checks == 3


def test_another_python_thread_has_scratch_of_its_own(monkeypatch):
    passes = Passes(monkeypatch)
    for _ in range(3):
        passes()
    thread = threading.Thread(target=passes)
    thread.start()
    thread.join()
    assert passes.checks == 3


def test_rounded_operands_are_another_call(monkeypatch):
    passes = Passes(monkeypatch)
    for _ in range(3):
        passes(0.37)
    passes.ops = rounded
    exact, _ = linear.linear_forward(passes.x, WEIGHT, BIAS)
    assert (passes(0.37)[0] != exact).any()
    passes.ops = kernels
    passes(0.37)


def test_without_a_pass_and_without_a_workspace_nothing_is_remembered(monkeypatch):
    passes = Passes(monkeypatch)
    for _ in range(3):
        kernels.linear_forward(passes.x, WEIGHT, BIAS)
        kernels.linear_forward(passes.x, WEIGHT, BIAS, passes.workspace.begin("no pass"))
    assert passes.checks == 6


def test_an_observer_is_told_of_launches_that_are_remembered(monkeypatch):
    passes, seen = Passes(monkeypatch), []
    before = threads.observe(lambda launcher, args, seconds: seen.append((launcher, len(args))))
    try:
        for _ in range(4):
            passes()
    finally:
        threads.observe(before)
    assert len(seen) == 8 and len(set(seen)) == 1


def test_gradients_that_nobody_owns_are_new_arrays_every_time():
    workspace, x = Workspace(), np.ones((3, 8), np.float32)
    _, cache = kernels.linear_forward(x, WEIGHT, BIAS)
    found = []
    for _ in range(3):
        workspace.begin_pass("kind")
        found.append(kernels.linear_backward(x, cache, workspace.begin("here"))[1])
    assert len({id(dweight) for dweight in found}) == 3


def test_an_op_within_an_op_is_a_part_of_it():
    calls = []

    @remembered()
    def inner(x, alloc=np.empty):
        calls.append("inner")
        return alloc(x.shape, x.dtype)

    @remembered()
    def outer(x, alloc=np.empty):
        calls.append("outer")
        return inner(x, alloc), inner(x, alloc)

    workspace, x = Workspace(), np.zeros(3)
    for _ in range(4):
        workspace.begin_pass("kind")
        alloc = workspace.begin("here")
        first, second = outer(x, alloc)
        after = alloc((3,), x.dtype)
        assert len({array.ctypes.data for array in (first, second, after)}) == 3
    assert calls == ["outer", "inner", "inner"] * 2


def test_calls_that_no_pass_makes_any_more_are_forgotten():
    workspace, gone = Workspace(), []
    for _ in range(5):
        x = np.ones((3, 8), np.float32)
        gone.append(weakref.ref(x))
        workspace.begin_pass("kind")
        kernels.linear_forward(x, WEIGHT, BIAS, workspace.begin("here"))
        del x
    assert [array() is None for array in gone[:3]] == [True] * 3


def test_only_a_few_kinds_of_passes_are_remembered_and_all_go_with_the_workspace():
    workspace, held, gone = Workspace(), [], []
    for rows in range(1, 9):
        x = np.ones((rows, 8), np.float32)
        held.append(x)
        gone.append(weakref.ref(x))
        for _ in range(3):
            workspace.begin_pass(rows)
            kernels.linear_forward(x, WEIGHT, BIAS, workspace.begin("here"))
    del x
    held.clear()
    assert gone[0]() is None and gone[-1]() is not None
    gc.disable()
    try:
        del workspace
        assert all(array() is None for array in gone)
    finally:
        gc.enable()


PARTS = {
    "gpt2": {},
    "dropout": dict(dropout=0.2),
    "llama": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_kv_head=1, bias=False, tied=False),
    "norms of queries and keys": dict(qk_norm=True, n_kv_head=2, positions="rotary"),
    "window": dict(sliding_window=3, window_from=1),
}


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"products": "bfloat16"}], ids=str)
@pytest.mark.parametrize("parts", PARTS)
def test_steps_have_the_bits_of_steps_that_remember_nothing(parts, options):
    config = GPTConfig(vocab_size=61, n_layer=2, n_head=4, n_embd=64, block_size=8, **PARTS[parts])
    models = [GPT(config, ops=kernels, workspace=workspace, **options) for workspace in (None, Workspace())]
    apart = np.minimum(np.arange(8), 4) * np.ones((3, 1), int)
    for step, (B, T) in enumerate([(3, 8), (3, 8), (2, 5), (3, 8), (3, 8), (3, 8)]):
        tokens = np.random.default_rng(step).integers(0, 61, (B, T + 1))
        at = DropoutAt(1, step) if config.dropout else None
        first_key = apart if step == 4 else None  # documents in one step only
        results = []
        for model in models:
            (model.replace_gradients, model.zero_gradients)[step % 2]()
            loss = model.loss_and_gradients(tokens[:, :-1], tokens[:, 1:], first_key=first_key, dropout_at=at)
            results.append((loss, model.grads.flat.copy()))
            model.params.flat[...] -= 0.1 * model.grads.flat
            assert model.loss(tokens[:, :-1], tokens[:, 1:]) < loss + 1
        assert results[0][0] == results[1][0]
        np.testing.assert_array_equal(results[0][1], results[1][1])
