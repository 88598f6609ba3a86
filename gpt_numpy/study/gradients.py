"""Gradient check: a hand-written backward against difference quotients of its forward.

``check_gradients`` takes a layer's forward, backward and a dict of inputs, and forms one number,
L = Σ dout · out with a random dout. For that dout, the backward must return ∂L/∂(every input). The check compares
each with (L(x + h) − L(x − h)) / 2h. An all-ones dout would miss a transposed or a summed
gradient; a random dout does not.

Small tensors are checked entry by entry, large ones along random directions u: the derivative along u, computed
with two forwards, is compared with ⟨gradient, u⟩, which any wrong entry changes. All numbers are float64.

The check also tests the contract of a backward: two calls give the same bits, no argument is written to, and every
gradient has the shape of its tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError

STEP = 1e-5  # near ε^(1/3), where truncation (∝ h²) and rounding (∝ ε/h) cross: see ``v_curve``
COMPLEX_STEP = 1e-30  # nothing is subtracted, so nothing is lost however small it is
TOLERANCE = 1e-6
DOT_TOLERANCE = 1e-13  # relative: rounding of two sums of a few hundred products
MAX_ENTRIES = 600  # a tensor with more entries is checked along directions
N_DIRECTIONS = 12
_ROUNDING = 4 * np.finfo(np.float64).eps  # relative rounding error allowed to one evaluation of L


class TensorCheck(NamedTuple):
    """The result for one tensor. ``where`` is the entry (or the number of the direction) that disagrees most."""

    tensor: str
    shape: tuple
    method: str  # "entries" or "directions"
    checked: int  # how many of them
    error: float  # ‖analytic − numeric‖ / max(‖analytic‖, ‖numeric‖), or 0-like where rounding hides any difference
    where: tuple
    analytic: float  # at ``where``
    numeric: float
    tolerance: float
    dot_product: float | None = None  # error of ⟨u, Jv⟩ = ⟨Jᵀu, v⟩, relative; None where this test was not made

    @property
    def agrees(self):
        """Whether differences agree. False for a NaN."""
        return self.error <= self.tolerance

    @property
    def passed(self):
        return self.agrees and (self.dot_product is None or self.dot_product <= DOT_TOLERANCE)

    @property
    def ulps(self):
        """Distance of ``analytic`` and ``numeric`` in units in the last place of the larger."""
        return abs(self.analytic - self.numeric) / np.spacing(max(abs(self.analytic), abs(self.numeric)))


class Violation(NamedTuple):
    """A broken rule of the contract, as opposed to a wrong number; ``check`` names the rule."""

    check: str
    message: str


class GradientReport(NamedTuple):
    """The results for all tensors of one function, and the rules that the function broke."""

    tensors: list  # of TensorCheck
    violations: list  # of Violation

    def __str__(self):
        from . import table

        dots = table.has_dots(self)
        return "\n".join([table.heading("", dots=dots), *table.lines("", self, dots=dots), table.legend(dots)])

    __repr__ = __str__

    def _repr_html_(self):
        from . import table

        return table.html(self)

    @property
    def passed(self):
        return not self.violations and all(t.passed for t in self.tensors)

    @property
    def checked(self):
        """Entries and directions compared, over all tensors."""
        return sum(t.checked for t in self.tensors)

    def failed_checks(self):
        """Names of the checks that did not pass: ``differences of x``, ``repeat`` and so on.

        ``dot product of x`` is named only where differences agree: they are too coarse for what the other test found.
        """
        wrong = [t for t in self.tensors if not t.passed]
        found = [f"{'dot product' if t.agrees else 'differences'} of {t.tensor}" for t in wrong]
        return found + [v.check for v in self.violations]


def check_gradients(
    forward,
    backward,
    inputs,
    *,
    names=None,
    seed=0,
    step=None,
    tolerance=TOLERANCE,
    method="central",
    max_entries=MAX_ENTRIES,
    n_directions=N_DIRECTIONS,
):
    """Compare a hand-written backward with difference quotients of its forward; returns a ``GradientReport``.

    forward   called as ``forward(**inputs)``, returns ``(out, cache)``; out is an array or a number
    backward  called as ``backward(dout, cache)``, returns one gradient; or a tuple or list of gradients, one for each
              name in ``names`` and in that order; or a dict of gradients by name (``x`` or ``dx``)
    inputs    dict name → value. Floating arrays are differentiated and must be float64; the rest (token ids,
              n_head, a ``Dropout``) is passed on unchanged
    names     which inputs the gradients belong to; default: every floating array of ``inputs``
    method    "central" differences, or "complex" for a forward that is analytic and takes complex arrays:
              Im L(x + ih) / h is exact to rounding

    A tensor passes when ‖analytic − numeric‖ ≤ tolerance · max(‖analytic‖, ‖numeric‖), the norm over all its
    entries. A difference below the rounding error of the quotient itself also passes.

    >>> import numpy as np
    >>> from gpt_numpy import layers
    >>> rng = np.random.default_rng(0)
    >>> inputs = dict(x=rng.normal(size=(5, 3)), weight=rng.normal(size=(3, 4)), bias=rng.normal(size=4))
    >>> report = check_gradients(layers.linear_forward, layers.linear_backward, inputs)
    >>> report.passed, report.checked
    (True, 31)
    """
    chosen = names
    names = [n for n, v in inputs.items() if _is_floating(v)] if names is None else list(names)
    _check_arguments(inputs, names, method)
    rng = np.random.default_rng(seed)
    before = {n: v.copy() for n, v in inputs.items() if isinstance(v, np.ndarray)}
    out, cache = forward(**inputs)
    dout = rng.standard_normal(np.shape(out))
    dout = float(dout) if np.ndim(out) == 0 else dout
    dout_before = np.copy(dout)
    first = backward(dout, cache)
    if isinstance(first, Mapping):
        names = [name for name in names if _key(first, name) is not None] if chosen is None else names
    gradients = [np.array(g) for g in _in_order(first, names)]
    again = _in_order(backward(dout, cache), names)

    violations = _broken_shapes(names, inputs, gradients)
    if chosen is None and isinstance(first, Mapping):
        violations += _unknown_names(first, inputs)
    if not all(_same_bits(a, b) for a, b in zip(gradients, again)):
        violations.append(Violation("repeat", "a second backward with the same arguments gives other bits"))
    touched = [n for n, v in before.items() if not _same_bits(v, inputs[n])]
    touched += [] if _same_bits(dout_before, dout) else ["dout"]
    if touched:
        violations.append(Violation("untouched", f"written to: {', '.join(touched)}"))
    if any(v.check == "shapes" for v in violations):
        return GradientReport([], violations)

    inputs = {**inputs, **before}
    quotient = _Quotient(forward, inputs, dout, method, step)
    tensors = []
    for name, gradient in zip(names, gradients):
        if gradient.size <= max_entries:
            tensors.append(_check_entries(quotient, name, gradient, tolerance))
        else:
            tensors.append(_check_directions(quotient, name, gradient, tolerance, n_directions, rng))
    return GradientReport(tensors, violations)


class _Quotient:
    """Directional derivatives of L = Σ dout · out, by differences, at ``inputs``."""

    def __init__(self, forward, inputs, dout, method, step):
        self.forward, self.inputs, self.dout, self.method = forward, inputs, dout, method
        self.step = step or (COMPLEX_STEP if method == "complex" else STEP)
        if method == "complex":
            self.inputs = {n: v.astype(np.complex128) if _is_floating(v) else v for n, v in inputs.items()}
        out, _ = forward(**self.inputs)
        self.noise = _ROUNDING * float(np.sum(np.abs(dout * np.asarray(out))))
        self.noise /= 1 if method == "complex" else self.step

    def along(self, name, direction):
        """dL/dt of inputs[name] + t · direction at t = 0; direction is an array of the tensor's shape."""
        h = self.step
        if self.method == "complex":
            return float(np.sum(self.dout * np.imag(self._out(name, 1j * h * direction))) / h)
        # dout is multiplied by the difference of the outputs. The difference of two sums would lose more digits.
        return float(np.sum(self.dout * (self._out(name, h * direction) - self._out(name, -h * direction))) / (2 * h))

    def _out(self, name, shift):
        return np.asarray(self.forward(**{**self.inputs, name: self.inputs[name] + shift})[0])


def _check_entries(quotient, name, gradient, tolerance):
    numeric = np.empty(gradient.shape)
    direction = np.zeros(gradient.shape)
    for index in np.ndindex(gradient.shape):
        direction[index] = 1
        numeric[index] = quotient.along(name, direction)
        direction[index] = 0
    return _compare(quotient, name, gradient.shape, "entries", gradient, numeric, tolerance)


def _check_directions(quotient, name, gradient, tolerance, n_directions, rng):
    analytic, numeric = np.empty(n_directions), np.empty(n_directions)
    for i in range(n_directions):
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        analytic[i] = np.sum(gradient * direction)
        numeric[i] = quotient.along(name, direction)
    return _compare(quotient, name, gradient.shape, "directions", analytic, numeric, tolerance)


def _compare(quotient, name, shape, method, analytic, numeric, tolerance):
    difference = np.abs(analytic - numeric)
    if analytic.size == 0:
        return TensorCheck(name, shape, method, 0, 0.0, (), 0.0, 0.0, tolerance)
    noise = quotient.noise * math.sqrt(analytic.size)
    scale = max(np.linalg.norm(analytic), np.linalg.norm(numeric), noise / tolerance)
    error = float(np.linalg.norm(difference) / scale)
    where = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
    where = tuple(int(i) for i in where)
    analytic, numeric = float(analytic[where]), float(numeric[where])
    return TensorCheck(name, shape, method, difference.size, error, where, analytic, numeric, tolerance)


def _check_arguments(inputs, names, method):
    if method not in ("central", "complex"):
        raise ConfigError("no such method", field="method", found=method, expected="central or complex")
    for name in names:
        if name not in inputs or not _is_floating(inputs[name]):
            raise ConfigError("not a floating array", field=name, expected="an array in inputs")
    for name, value in inputs.items():
        if _is_floating(value) and value.dtype != np.float64:
            raise ConfigError("differences need float64", field=name, found=str(value.dtype), expected="float64")


def _broken_shapes(names, inputs, gradients):
    expected = [inputs[n].shape for n in names]
    found = [g.shape for g in gradients]
    if expected == found:
        return []
    return [Violation("shapes", f"gradients of {', '.join(names)} have shapes {found}, expected {expected}")]


def _unknown_names(gradients, inputs):
    """Check that a dict of gradients is not empty, and that each belongs to a floating input."""
    known = [name for name, value in inputs.items() if _is_floating(value)]
    unknown = [key for key in gradients if key not in known and not (str(key)[:1] == "d" and str(key)[1:] in known)]
    missing = [name for name in known if _key(gradients, name) is None]
    found = [f"no input is called {key!r}" for key in unknown] + [f"no gradient of {name}" for name in missing]
    return [Violation("names", "; ".join(found))] if found else []


def _key(gradients, name):
    """The key of the gradient of ``name`` in a dict of gradients: the name itself, or the name with a d before it."""
    return next((key for key in (name, f"d{name}") if key in gradients), None)


def _is_floating(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _in_order(gradients, names):
    """The gradients that a backward returned, as a list in the order of ``names``."""
    if isinstance(gradients, Mapping):
        missing = [name for name in names if _key(gradients, name) is None]
        if missing:
            raise ConfigError(
                "the backward returned no gradient", field=", ".join(missing), found=", ".join(map(str, gradients))
            )
        return [gradients[_key(gradients, name)] for name in names]
    if not isinstance(gradients, (tuple, list)):
        return [gradients]
    return [g for g in gradients if g is not None]  # None: the gradient of a parameter that the layer does not have


def _same_bits(a, b):
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
