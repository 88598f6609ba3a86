"""The problems on which an exercise's functions are run: small inputs, and a function that names every result.

A ``Problem``'s ``run(functions)`` takes a namespace of functions, the reader's or the package's own, and returns name
→ array. The layers' problems are the cases of the gradient checks (``study.cases``): masks, dropout, more keys than
queries.
"""

from __future__ import annotations

import functools
import math
import tracemalloc
import types
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ... import layers
from ...architecture.rotation import frequencies, rotation_of
from ...wording import counted
from .. import cases, whole_model
from ..bugs.at_the_interface import with_functions
from . import terms
from .breaches import LeftAsItWas as LeftAsItWas
from .breaches import TooMuchAtOnce as TooMuchAtOnce
from .breaches import WrittenTo as WrittenTo
from .breaches import WrongCount as WrongCount


class Problem(NamedTuple):
    name: str
    run: Callable[[types.SimpleNamespace], dict]  # functions → name → array, in backward order for the model
    sizes: dict  # name → number: what a constant factor may be made of
    terms: Callable[[str], dict] | None = None  # gradient's name → label → array, the terms of the derivation


# ---- the layers ------------------------------------------------------------------------------------------------------


def gradient_names(layer: str) -> tuple:
    """Names of the gradients of a layer, in the order in which its backward returns them."""
    return _names(next(case for case in cases.layer_cases(layers) if case.layer == layer).inputs)


def of_layer(layer: str, seed: int = 0) -> list[Problem]:
    """The problems of one layer: its cases whose arrays have a batch, a position and a channel axis."""

    def chosen(ops):
        found = [case for case in cases.layer_cases(ops, seed) if case.layer == layer]
        found = [case for case in found if _is_batch(case)]
        return [*found, *map(_three_sequences, found[:1]), *_more_cases(layer, ops)]

    return [
        Problem(case.name, _run_case(number, chosen, seed), sizes_of(case), _terms_of(case, seed))
        for number, case in enumerate(chosen(layers))
    ]


def _dout(out, seed):
    rng = np.random.default_rng([seed, 1])
    return rng.standard_normal(np.shape(out)) if np.ndim(out) else float(rng.standard_normal())


def _terms_of(case, seed):
    def found(name):
        dout = _dout(case.forward(**case.inputs)[0], seed)
        return terms.of(case.layer, case.inputs, dout).get(name, {})

    return found


def _run_case(number, chosen, seed):
    def run(functions):
        case = chosen(_as_ops(functions))[number]
        names = _names(case.inputs)
        before = copies(case.inputs)
        out, cache = case.forward(**case.inputs)
        dout = _dout(out, seed)
        held = {**case.inputs, "dout": dout, **{f"cache.{n}": v for n, v in _arrays(cache)}}
        before = {**before, **copies({n: v for n, v in held.items() if n not in before})}
        with np.errstate(all="ignore"):
            gradients = _in_order(case.backward(dout, cache), names)
        check_unchanged(before, held)
        return {"out": np.array(out), **{n: np.array(g) for n, g in zip(names, gradients)}}

    return run


def _as_ops(functions):
    """``layers`` with the reader's functions instead of its own."""
    return with_functions(**{n: f for n, f in vars(functions).items() if n in layers.__all__})


def _in_order(gradients, names):
    if isinstance(gradients, dict):
        gradients = tuple(gradients.get(n, gradients.get(f"d{n}")) for n in names)
    gradients = tuple(gradients) if isinstance(gradients, (tuple, list)) else (gradients,)
    if len(gradients) != len(names) or any(g is None for g in gradients):
        expected = ", ".join(f"d{n}" for n in names)
        count = len([g for g in gradients if g is not None])
        raise WrongCount(f"returns {counted(count, 'gradient')}; expected {expected}")
    return gradients


def _names(inputs):
    return tuple(n for n, v in inputs.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f")


def copies(values):
    """Copies of the arrays among ``values``, by name: for ``check_unchanged``."""
    return {n: v.copy() for n, v in values.items() if isinstance(v, np.ndarray)}


def check_unchanged(before, held):
    """``WrittenTo`` with the names of ``before`` whose array in ``held`` is not what it was."""
    written = [n for n, array in before.items() if not np.array_equal(array, held[n], equal_nan=True)]
    if written:
        raise WrittenTo(written)


def _arrays(cache, prefix=""):
    """Every array in a cache, by its name: caches may hold caches."""
    for name, value in zip(getattr(cache, "_fields", ()), cache if isinstance(cache, tuple) else ()):
        if isinstance(value, np.ndarray):
            yield prefix + name, value
        elif isinstance(value, tuple):
            yield from _arrays(value, f"{prefix}{name}.")


def is_gpt2(case) -> bool:
    """Whether a case is of GPT-2's own form: with biases, GELU, and 1/√head_size as the scale of the scores."""
    return not {"activation", "scale"} & set(case.inputs) and all(v is not None for v in case.inputs.values())


def _is_batch(case):
    return is_gpt2(case) and all(
        v.ndim >= 2 for n, v in case.inputs.items() if n in ("x", "logits", "branch", "tokens", "q", "hidden")
    )


def _three_sequences(case):
    """The case with a third sequence, which distinguishes a factor 2 from a factor B = 2."""
    longer = dict(case.inputs)
    for name in ("x", "branch", "logits", "targets", "tokens", "q", "k", "v", "hidden"):
        if name in longer:
            array = longer[name]
            third = -0.7 * array[:1] if array.dtype.kind == "f" else array[:1]
            longer[name] = np.concatenate([array, third])
    return case._replace(variant="three sequences", inputs=longer)


def _more_cases(layer, ops):
    """Cases beside those of the gradient checks. On a square weight, a product with the wrong transpose runs."""
    rng = np.random.default_rng(7)
    if layer == "linear":
        inputs = dict(x=rng.standard_normal((2, 3, 4)), weight=rng.standard_normal((4, 4)), bias=rng.standard_normal(4))
        return [cases.Case("linear", "square weight", inputs, ops.linear_forward, ops.linear_backward, 2)]
    if layer == "cross-entropy":
        inputs = dict(logits=rng.standard_normal((2, 3, 5)), targets=np.array([[-1, -1, 2], [-1, -1, -1]]))
        pair = ops.cross_entropy_forward, ops.cross_entropy_backward
        return [cases.Case("cross-entropy", "one counted", inputs, *pair)]
    if layer == "rotary":
        inputs = dict(
            x=rng.standard_normal((2, 3, 2, 6)), rotation=rotation_of(np.arange(3), frequencies(6, 9.0), float)
        )
        return [cases.Case("rotary", "wider heads", inputs, ops.rotary_forward, ops.rotary_backward)]
    return []


def sizes_of(case) -> dict:
    """Name → number of the sizes of a case, as the layers' docstrings name them."""
    sizes = {}
    first = next(v for n, v in case.inputs.items() if n in ("x", "logits", "q", "tokens", "hidden"))
    sizes["B"], sizes["T"] = first.shape[:2]
    if "q" in case.inputs or "n_head" in case.inputs:
        sizes["n_head"] = case.inputs["n_head"] if "n_head" in case.inputs else first.shape[2]
        sizes["head_size"] = first.shape[-1] // (sizes["n_head"] if "n_head" in case.inputs else 1)
        sizes["Tk"] = case.inputs.get("k", first).shape[1]
    elif first.dtype.kind == "f":
        sizes["V" if "logits" in case.inputs else "C"] = first.shape[-1]
    if "targets" in case.inputs:
        ignored = case.inputs.get("ignore_index", -1)
        sizes["N"] = int((case.inputs["targets"] != ignored).sum())
    dropout = case.inputs.get("dropout")
    if dropout is not None:
        sizes["1 − p"] = 1 - dropout.probability
    return sizes


# ---- parts of attention ----------------------------------------------------------------------------------------------


def softmax(seed: int = 0) -> list[Problem]:
    """Softmax alone, over the last axis of arrays of two to four axes."""
    return [
        Problem(f"shape {shape}", _run_softmax(shape, seed), {"n": shape[-1]})
        for shape in ((3, 5), (2, 5, 4), (2, 3, 4, 5))
    ]


def _run_softmax(shape, seed):
    rng = np.random.default_rng([seed, *shape])
    scores, dweights = rng.standard_normal((2, *shape))
    scores[..., 0] = np.where(rng.random(shape[:-1]) < 0.3, -np.inf, scores[..., 0])

    def run(functions):
        weights = layers.attention.softmax(scores)
        before = weights.copy(), dweights.copy()
        dscores = np.array(functions.softmax_backward(dweights, weights))
        if not (np.array_equal(before[0], weights) and np.array_equal(before[1], dweights)):
            raise WrittenTo(["its arguments"])
        return {"scores": dscores}

    return run


def head(seed: int = 0) -> list[Problem]:
    """One masked head on plain (T, d) arrays, also on one position."""
    return [Problem(f"T {T}, d {d}", _run_head(T, d, seed), {"T": T, "d": d}) for T, d in ((5, 4), (6, 3), (1, 2))]


def _run_head(T, d, seed):
    q, k, v, dout = np.random.default_rng([seed, T, d]).standard_normal((4, T, d))

    def run(functions):
        out, cache = functions.head_forward(q, k, v)
        held = {"dout": dout, **dict(_arrays(cache))}
        before = copies(held)
        gradients = _in_order(functions.head_backward(dout, cache), ("q", "k", "v"))
        check_unchanged(before, held)
        return {"out": out, **{n: np.array(g) for n, g in zip("qkv", gradients)}}

    return run


# ---- the model -------------------------------------------------------------------------------------------------------


def model(seed: int = 0) -> list[Problem]:
    """The gradient of every parameter and of the embedding's output, in all variants of the model's check."""
    return [
        Problem(f"model ({variant})" if variant else "model", _run_model(variant, seed), {"B": cases.B, "T": cases.T})
        for variant in whole_model.model_variants()
    ]


def _run_model(variant, seed):
    def run(functions):
        pair = whole_model.pair_of(layers, variant, seed, functions.GPT)
        gradients = dict(zip(pair.inputs, pair.backward(math.e / 2, None)))
        order = ["wte.weight", *[n for n in reversed(gradients) if n not in ("wte.weight", "embedding")], "embedding"]
        return {name: gradients[name] for name in order}

    return run


# ---- programs --------------------------------------------------------------------------------------------------------


def adamw(seed: int = 0) -> list[Problem]:
    """Three steps with several decays; parameters and both moments after each."""

    def run(functions):
        rng = np.random.default_rng(seed)
        p, m, v = rng.standard_normal(9), np.zeros(9), np.zeros(9)
        found = {}
        for step in (1, 2, 3):
            g = 10.0 ** rng.integers(-4, 3, 9) * rng.standard_normal(9)
            g[8] *= 1e-7  # as small as ε, so that the result depends on the position of ε in the formula
            edges, decays = np.array([0, 4, 9]), np.array([0.0, 0.3])
            functions.adamw_update(p, g, m, v, edges, decays, 0.01, 0.9, 0.99, 1e-8, step, 0.7)
            for name, moved in (("first_moments", m), ("second_moments", v)):
                if not moved.any():
                    raise LeftAsItWas(name)
            found.update({f"first_moments, step {step}": m.copy(), f"second_moments, step {step}": v.copy()})
            found[f"params, step {step}"] = p.copy()
        return found

    return [Problem("three steps", run, {})]


def merging(seed: int = 0) -> list[Problem]:
    """Words of few letters, in which merges overlap and compete."""

    def run(functions):
        rng = np.random.default_rng(seed)
        found = {}
        for text in ("aaa", "aaaa", "abab", "b", "aabaa"):
            ids = [ord(c) for c in text]
            found[f"merge_pair, a a in {text}"] = np.array(functions.merge_pair(ids, (97, 97), 256))
        merges = [(97, 98), (98, 98), (97, 97), (256, 98), (258, 256), (257, 257)]
        table = {pair: (rank, 256 + rank) for rank, pair in enumerate(merges)}
        for _ in range(20):
            word = bytes(rng.integers(97, 100, rng.integers(1, 9)).tolist())
            found[f"encode_word, {word.decode()}"] = np.array(functions.encode_word(word, range(256), table))
        return found

    return [Problem("words of a, b and c", run, {})]


def cache(seed: int = 0) -> list[Problem]:
    """Seven tokens, one at a time, through a cache that holds meaningless numbers beyond its length."""

    def run(size, functions):
        rng = np.random.default_rng(seed)
        q, k, v = rng.standard_normal((3, 7, 3, 4))
        k *= size
        keys, values = rng.standard_normal((2, 9, 3, 4))
        before, found = keys.copy(), {}
        for t in range(7):
            found[f"token {t}"] = np.array(functions.attend_with_cache(q[t], k[t], v[t], keys, values, t))
        if np.array_equal(before, keys):
            raise LeftAsItWas("keys")
        return {**found, "keys": keys, "values": values}

    plain = Problem("seven tokens", functools.partial(run, 1), {"head_size": 4})
    return [plain, Problem("scores near 1,000", functools.partial(run, 1000), {"head_size": 4})]


def sampling(seed: int = 0) -> list[Problem]:
    """Distributions over eleven tokens, cut in every way."""
    options = (
        (1.0, 11, 1.0),
        (0.5, 11, 1.0),
        (1.0, 4, 1.0),
        (1.7, 11, 0.6),
        (0.8, 5, 0.7),
        (2.0, 1, 0.1),
        (1, 3, 0.95),
    )
    logits = 2 * np.random.default_rng(seed).standard_normal(11)

    def run(chosen, shift, functions):
        before = logits + shift
        given = before.copy()
        probabilities = np.array(functions.next_token_probabilities(given, *chosen))
        check_unchanged({"logits": before}, {"logits": given})
        return {"probabilities": probabilities}

    found = [
        Problem(f"temperature {t}, top_k {k}, top_p {p}", functools.partial(run, (t, k, p), 0), {})
        for t, k, p in options
    ]
    return [*found, Problem("logits near 1,000", functools.partial(run, (1.0, 5, 0.9), 1000), {})]


def online_softmax(seed: int = 0) -> list[Problem]:
    """Tiles that divide the keys and tiles that do not, scores that grow from tile to tile, and many keys."""

    def run(tile, growth, functions):
        q, k, v = np.random.default_rng(seed).standard_normal((3, 10, 4))
        k = k * np.linspace(1, growth, 10)[:, None]
        return {"out": np.array(functions.tiled_attention(q[:6], k, v, tile))}

    found = [
        Problem(f"tile {tile}", functools.partial(run, tile, 40), {"√d": 2, "Tk": 10}) for tile in (1, 3, 5, 10, 16)
    ]
    large = Problem("scores near 10,000", functools.partial(run, 3, 1e4), {"√d": 2, "Tk": 10})
    return [*found, large, Problem("many keys", _run_many_keys, {"√d": 2, "Tk": 40_000})]


def _run_many_keys(functions):
    """8 queries and 40,000 keys in tiles of 64: all scores at once would take 2.6 MB, a tile takes 4 kB."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((8, 4)), rng.standard_normal((40_000, 4)), rng.standard_normal((40_000, 4))
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        out = np.array(functions.tiled_attention(q, k, v, 64))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not traced:
            tracemalloc.stop()
    if peak > 8 * 40_000 * 8 / 2:
        raise TooMuchAtOnce(
            f"{peak / 1e6:.1f} MB at once for 8 queries and 40,000 keys; no more than (Tq, tile) scores may exist"
        )
    return {"out": out}


def kernel(seed: int = 0) -> list[Problem]:
    """Rows of several lengths, one row with logits near 1,000 and one with logits near −1,000."""

    def run(width, functions):
        x = 3 * np.random.default_rng([seed, width]).standard_normal((4, width))
        x[1] -= 500
        x[2] += 1000
        before, out = x.copy(), np.full(x.shape, np.nan)
        functions.softmax_rows(x, out)
        check_unchanged({"x": before}, {"x": x})
        if np.isnan(out).all():
            raise LeftAsItWas("out")
        return {"out": out}

    return [Problem(f"width {width}", functools.partial(run, width), {}) for width in (1, 2, 7, 33)]
