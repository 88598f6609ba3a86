"""What every op does with arguments at the edge: both forms give the same answer or the same kind of error.

And before it refuses, an op has written to nothing; what a backward needs, it owns.
"""

import inspect
import itertools

import numpy as np
import pytest

from gpt_numpy import kernels, layers
from gpt_numpy.errors import KernelError
from gpt_numpy.randomness import Dropout

DROPOUT = Dropout(0.3, 12345)
BOTH = pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def ids(shape, below):
    return np.random.default_rng(1).integers(0, below, shape) if below else np.full(shape, -1)


def embedding(B, T, C, V, P):
    return "embedding", [ids((B, T), V), np.arange(T) % max(P, 1), *drawn((V, C), (P, C))]


def layernorm(B, T, C):
    return "layernorm", drawn((B, T, C), (C,), (C,))


def linear(B, T, K, N):
    return "linear", drawn((B, T, K), (K, N), (N,))


def gelu(B, T, C):
    return "gelu", drawn((B, T, C))


def attention(B, Tq, more, n_head, size):
    return "attention", drawn((B, Tq, n_head, size), *[(B, Tq + more, n_head, size)] * 2)


def masked_attention(B, Tq, more, n_head, size):
    return "attention", [*attention(B, Tq, more, n_head, size)[1], np.zeros((B, Tq), int), DROPOUT]


def multi_head(B, T, n_head, size):
    C = n_head * size
    return "multi_head_attention", [*drawn((B, T, C), (C, 3 * C), (3 * C,), (C, C), (C,)), n_head]


def mlp(B, T, C, wide):
    return "mlp", drawn((B, T, C), (C, wide), (wide,), (wide, C), (C,))


def dropout(B, T, C):
    return "dropout", [*drawn((B, T, C)), DROPOUT]


def residual(B, T, C):
    return "residual", [*drawn((B, T, C), (B, T, C)), DROPOUT]


def cross_entropy(B, T, V):
    return "cross_entropy", [*drawn((B, T, V)), ids((B, T), V)]


def lm_head(B, T, C, V):
    return "lm_head", drawn((B, T, C), (V, C))


def lm_head_cross_entropy(B, T, C, V):
    return "lm_head_cross_entropy", [*drawn((B, T, C), (V, C)), ids((B, T), V)]


SIZES = {
    embedding: (2, 5, 12, 11, 7),
    layernorm: (2, 5, 12),
    linear: (2, 5, 12, 11),
    gelu: (2, 5, 12),
    attention: (2, 5, 2, 3, 4),
    masked_attention: (2, 5, 2, 3, 4),
    multi_head: (2, 5, 3, 4),
    mlp: (2, 5, 12, 48),
    dropout: (2, 5, 12),
    residual: (2, 5, 12),
    cross_entropy: (2, 5, 11),
    lm_head: (2, 5, 12, 11),
    lm_head_cross_entropy: (2, 5, 12, 11),
}


# Arguments that may be None: first keys, biases, learned positions.
OPTIONAL = {
    "masked_attention": (3,),
    "layernorm": (2,),
    "linear": (2,),
    "multi_head": (2, 4),
    "mlp": (2, 4),
    "embedding": (3,),
}


def forward_of(ops, name):
    return getattr(ops, f"{name}_forward")


def both_ways(ops, name, arguments):
    """The output and all gradients, or the error."""
    try:
        out, cache = forward_of(ops, name)(*arguments)
        dout = 0.7 if np.ndim(out) == 0 else drawn(out.shape, seed=2)[0]
        gradients = getattr(ops, f"{name}_backward")(dout, cache)
        return [np.asarray(out), *(gradients if isinstance(gradients, tuple) else (gradients,))]
    except KernelError as error:
        return error


def assert_same(name, arguments):
    expected, found = (both_ways(ops, name, arguments) for ops in (layers, kernels))
    if isinstance(expected, KernelError) or isinstance(found, KernelError):
        assert isinstance(expected, KernelError) and isinstance(found, KernelError), (arguments, expected, found)
        assert found.field == expected.field
        return
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)
def test_any_size_may_be_zero(make):
    sizes = SIZES[make]
    for zero in itertools.product((False, True), repeat=len(sizes)):
        assert_same(*make(*(0 if z else size for z, size in zip(zero, sizes))))


@pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrong", [np.float64(3), np.array(3.0), 3.0, None], ids=["scalar", "0-d", "float", "None"])
def test_an_argument_that_is_no_array_of_enough_axes(make, wrong):
    name, arguments = make(*SIZES[make])
    for i, argument in enumerate(arguments):
        optional = wrong is None and i in OPTIONAL.get(make.__name__, ())
        if isinstance(argument, np.ndarray) and not optional and not (name == "gelu" and isinstance(wrong, np.ndarray)):
            changed = [*arguments[:i], wrong, *arguments[i + 1 :]]
            for ops in (layers, kernels):
                assert isinstance(both_ways(ops, name, changed), KernelError), i


@BOTH
@pytest.mark.parametrize("wrong", [0, -1, 5, True, 3.0, "3", None, np.array([3])], ids=repr)
def test_n_head_is_an_integer_that_divides_the_columns(ops, wrong):
    name, arguments = multi_head(2, 5, 3, 4)
    with pytest.raises(KernelError, match="n_head"):
        forward_of(ops, name)(*arguments[:-1], wrong)
    out, _ = forward_of(ops, name)(*arguments[:-1], np.int64(3))
    np.testing.assert_array_equal(out, forward_of(ops, name)(*arguments)[0])


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        np.full((2, 5), -1),
        np.full((2, 5), 1),
        np.zeros((2, 5)),
        np.zeros((5, 2), int),
        np.zeros(5, int),
        0,
        np.full((2, 5), 2**64 - 1, np.uint64),
        np.full((2, 5), 10**12),
    ],
    ids=["negative", "beyond the query", "floats", "transposed", "one row", "a number", "2⁶⁴ − 1", "huge"],
)
def test_first_key_that_leaves_a_query_without_a_key(ops, wrong):
    with pytest.raises(KernelError, match="first_key"):
        ops.attention_forward(*attention(2, 5, 0, 3, 4)[1], wrong)


@BOTH
@pytest.mark.parametrize("name, field", [("embedding", "tokens"), ("cross_entropy", "targets")])
@pytest.mark.parametrize("wrong", [11, -2, 2**40, -(2**40)])
def test_an_index_out_of_range_is_refused_by_both(ops, name, field, wrong):
    _, arguments = embedding(2, 5, 12, 11, 7) if name == "embedding" else cross_entropy(2, 5, 11)
    index = next(array for array in arguments if array.dtype.kind == "i")
    index[1, 3] = wrong
    with pytest.raises(KernelError, match=rf"{field}: an index is out of range at \(1, 3\)"):
        forward_of(ops, name)(*arguments)


# ---- nothing is written before everything is checked ------------------------------------------------------------


def with_parameters():
    """(op's name, its arguments, shapes of its parameter gradients) of every backward that takes ``into``."""
    found = []
    for make, sizes in SIZES.items():
        name, arguments = make(*sizes)
        backward = getattr(layers, f"{name}_backward")
        if "into" in inspect.signature(backward).parameters:
            out, cache = forward_of(layers, name)(*arguments)
            inputs = {"embedding": 0}.get(name, 1)
            dout = 0.7 if np.ndim(out) == 0 else np.ones(out.shape)
            found.append((name, arguments, [g.shape for g in backward(dout, cache)[inputs:]]))
    return found


def spoilt(array):
    """Arrays that cannot be added to in place of ``array``."""
    read_only = array.copy()
    read_only.flags.writeable = False
    return {
        "of another shape": np.zeros((*array.shape, 1)),
        "of another type": array.astype(np.float32),
        "read-only": read_only,
        "a list": array.tolist(),
        "missing": None,
    }


@BOTH
@pytest.mark.parametrize(
    "name, arguments, shapes", with_parameters(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_into_is_checked_before_the_first_array_is_added_to(ops, name, arguments, shapes):
    out, cache = forward_of(ops, name)(*arguments)
    dout = 0.7 if np.ndim(out) == 0 else np.ones(out.shape)
    starts = drawn(*shapes, seed=3)
    wrong = [(i, kind, array) for i in range(len(shapes)) for kind, array in spoilt(starts[i]).items()]
    if ops is kernels:
        strided = [(i, "strided", np.repeat(starts[i], 2, axis=-1)[..., ::2]) for i in range(len(shapes))]
        wrong += [(i, kind, array) for i, kind, array in strided if not array.flags.c_contiguous]
    for i, kind, array in wrong:
        into = [start.copy() for start in starts]
        into[i] = array
        with pytest.raises(KernelError):
            getattr(ops, f"{name}_backward")(dout, cache, into=tuple(into))
        for j, start in enumerate(starts):
            assert j == i or np.array_equal(into[j], start), f"into[{j}] was written to before into[{i}], {kind}"
    for into in ((), starts[:-1], [*starts, starts[0]], starts[0]):
        if len(into) != len(starts) or into is starts[0]:
            with pytest.raises(KernelError):
                getattr(ops, f"{name}_backward")(dout, cache, into=into)


@BOTH
@pytest.mark.parametrize(
    "name, arguments, shapes", with_parameters(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_gradients_replace_what_is_there_where_they_are_not_to_be_added(ops, name, arguments, shapes):
    out, cache = forward_of(ops, name)(*arguments)
    dout, backward = 0.7 if np.ndim(out) == 0 else np.ones(out.shape), getattr(ops, f"{name}_backward")
    into = tuple(np.full(shape, np.nan) for shape in shapes)
    found, expected = backward(dout, cache, into=into, add=False), backward(dout, cache)
    assert all(a is b for a, b in zip(found[-len(into) :], into))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
@pytest.mark.parametrize("wrong", ["params", "grads", "first_moments", "second_moments", "boundaries", "decays"])
def test_a_step_that_is_refused_moves_nothing(ops, wrong):
    arrays = dict(zip(("params", "grads", "first_moments", "second_moments"), drawn(*[9] * 4)))
    arrays |= {"boundaries": np.array([0, 4, 9]), "decays": np.array([0.1, 0.0])}
    changed = {**arrays, wrong: arrays[wrong][:-1]}
    before = {name: array.copy() for name, array in changed.items()}
    with pytest.raises(KernelError):
        ops.adamw_update(*changed.values(), 0.1, 0.9, 0.99, 1e-8, 1)
    assert all(np.array_equal(changed[name], before[name]) for name in changed)


# ---- arguments as they come: read-only, strided, unaligned ------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


def backwards(array):
    return np.ascontiguousarray(array[::-1])[::-1]


def column_order(array):
    return np.asfortranarray(array)


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)
    copy = raw[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


FORMS = [read_only, strided, backwards, column_order, unaligned]


@pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)
def test_flags_and_layouts_change_no_result(make):
    """They vary from call to call, the plain form last, as a process meets them in any order."""
    name, arguments = make(*SIZES[make])
    expected = both_ways(kernels, name, arguments)
    places = [i for i, value in enumerate(arguments) if isinstance(value, np.ndarray)]
    for form in (*FORMS, np.copy):
        for chosen in ([i] for i in places) if form is not np.copy else [places]:
            changed = [form(value) if i in chosen else value for i, value in enumerate(arguments)]
            found = both_ways(kernels, name, changed)
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13)


# ---- a backward owns what it needs ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("fill", [0, 10**9, -1])
@pytest.mark.parametrize("make", [embedding, masked_attention, cross_entropy, lm_head_cross_entropy])
def test_the_caller_may_fill_its_index_arrays_anew(ops, fill, make):
    name, arguments = make(*SIZES[make])
    expected = both_ways(ops, name, arguments)
    out, cache = forward_of(ops, name)(*arguments)
    for array in arguments:
        if isinstance(array, np.ndarray) and array.dtype.kind == "i":
            array[...] = fill
    dout = 0.7 if np.ndim(out) == 0 else drawn(out.shape, seed=2)[0]
    gradients = getattr(ops, f"{name}_backward")(dout, cache)
    for a, b in zip(expected[1:], gradients if isinstance(gradients, tuple) else (gradients,), strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_ignored_row_has_no_gradient_whatever_it_holds(ops, bad):
    (logits,), targets = drawn((2, 3, 11)), np.array([[1, -1, 2], [3, 4, -1]])
    logits[0, 1, 5] = bad
    loss, cache = ops.cross_entropy_forward(logits, targets)
    gradient = ops.cross_entropy_backward(0.7, cache)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert not gradient[0, 1].any() and not gradient[1, 2].any() and gradient[0, 0].all()
