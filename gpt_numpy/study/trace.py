"""``trace(model)``: every intermediate of a pass and its gradient, by name.

    with trace(model) as t:
        model.loss(tokens, targets)
        model.backward()
    t["h.0.attn.weights"].value, t["h.0.attn.weights"].grad

The layers and the model contain no code for tracing. While a trace is open, the model calls its ops through a wrapper
that passes all arguments on unchanged (the run has the same bits as without a trace) and records the
forward's arguments and the backward's dout. From those, ``steps`` computes the values and gradients inside a
layer when they are looked up. An op is named after its parameters. An op without parameters is named after
its position between two that have them. Attention's weights are those that the op itself computed, where its cache holds
them (that of ``layers`` does). So the trace shows a mask as it is in the op, and not as it should be; ``faults`` says
which weights should be 0, and which op computes something else than its steps.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .. import layers
from ..errors import GPTNumpyError
from ..layers.attention import visible_keys
from ..wording import counted
from .gradients import check_gradients
from .steps_of_any_model import STEPS

_METHODS = ("loss", "forward", "loss_and_gradients")


class Traced(NamedTuple):
    """An intermediate; ``grad`` is None where no backward has run."""

    value: np.ndarray
    grad: np.ndarray | None

    def __repr__(self):
        """The shape and size of both, on one line."""
        gradient = "no gradient" if self.grad is None else f"gradient of norm {np.linalg.norm(self.grad):.4g}"
        return f"<Traced: value {self.value.shape} of norm {np.linalg.norm(self.value):.4g}, {gradient}>"


class _Call(NamedTuple):
    op: str
    arguments: dict  # of the forward, alloc left out
    out: np.ndarray
    dout: list  # empty, or the one gradient that came back
    own: dict  # name of a step → its value as the op's cache holds it


class _Cache(NamedTuple):
    prefix: str
    cache: object


@contextlib.contextmanager
def trace(model):
    """Record the passes of ``model`` inside the ``with`` block; the last one stays in the ``Trace``."""
    record = Trace(model)
    untraced = model.ops
    model.ops = record.ops
    for method in _METHODS:
        setattr(model, method, record.remembering(getattr(model, method)))
    try:
        yield record
    finally:
        model.ops = untraced
        for method in _METHODS:
            delattr(model, method)


class Trace(Mapping):
    """Name → ``Traced``, in the order of the forward pass."""

    def __init__(self, model):
        self.model, self._untraced = model, model.ops
        self._names = {id(view): name for name, view in model.params.items()}
        self._calls, self._tensors, self._pass = {}, None, None
        self.ops = self._wrap(model.ops)

    def __getitem__(self, name):
        return self._expanded()[name]

    def __iter__(self):
        return iter(self._expanded())

    def __len__(self):
        return len(self._expanded())

    def __repr__(self):
        """The number of values, the first and last name, and whether a backward has run."""
        found = self._expanded()
        if not found:
            return "<Trace: no forward pass yet>"
        names = list(found)
        backward = "with gradients" if any(one.grad is not None for one in found.values()) else "no backward pass yet"
        return f"<Trace: {counted(len(names), 'value')}, {names[0]!r} to {names[-1]!r}, {backward}>"

    def kinds(self):
        """The names with block numbers taken out, each once: ``h.attn.weights`` for ``h.3.attn.weights``."""
        return list(dict.fromkeys(kind(name) for name in self))

    def faults(self) -> list[str]:
        """What is wrong with the forward of an op, one sentence each; empty for right ops.

        Two things are compared: attention's weights with the keys that each query may see, and each op's output with that
        of its steps. Gradient checks find neither, because they check the gradient of whatever the forward computes.
        """
        found = []
        for prefix, call in self._calls.items():
            if call.op == "multi_head_attention":
                found += _unseen_weights(prefix, call, self)
            found += _difference_from_steps(prefix, call, self._rounding(call))
        return found

    def _rounding(self, call):
        """Largest relative difference between an op's output and its steps' that rounding explains."""
        if getattr(self._untraced, "__name__", "").endswith("rounded"):
            return 3e-2  # products in bfloat16
        floating = [v.dtype for v in call.arguments.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
        return 1e-3 if np.result_type(*floating) == np.float32 else 1e-9

    def check(self, name, **options):
        """Check one gradient inside the model by differences: replace the intermediate, run the rest of the model again.

        Returns a ``TensorCheck``. The model must be float64. options: those of ``check_gradients``.
        """
        traced = self[name]
        if traced.grad is None:
            raise GPTNumpyError("no backward was traced", field=name)

        def forward(value):
            out = self._run_again({name: value})
            return float(np.sum(self._dout() * out)), None

        report = check_gradients(forward, lambda dout, _: dout * traced.grad, {"value": traced.value}, **options)
        return report.tensors[0]._replace(tensor=name)

    # ---- recording ----------------------------------------------------------------------------------------

    def remembering(self, method):
        """``method``, with its arguments recorded, so that the pass can be run again."""

        def remembered(*args, **kwargs):
            self._calls.clear()
            self._tensors, self._pass = None, (method, args, kwargs)
            return method(*args, **kwargs)

        return remembered

    def _wrap(self, ops, replacements=None):
        names = {name: getattr(ops, name) for name in layers.__all__}
        for op in STEPS:
            names[f"{op}_forward"] = self._forward(op, ops, replacements)
            names[f"{op}_backward"] = self._backward(getattr(ops, f"{op}_backward"))
        names["lm_head_cross_entropy_gradients"] = self._gradients_at_once(ops)
        return types.SimpleNamespace(**names, __all__=layers.__all__)

    def _forward(self, op, ops, replacements):
        function = getattr(ops, f"{op}_forward")
        signature = inspect.signature(getattr(layers, f"{op}_forward"))

        def forward(*args, **kwargs):
            bound = signature.bind(*args, **kwargs).arguments
            arguments = {n: v for n, v in bound.items() if not n.startswith("alloc")}  # where results lie is no input
            prefix = self._prefix(op, arguments)
            if replacements is not None:
                return _replaced(op, prefix, arguments, replacements, function, args, kwargs)
            out, cache = function(*args, **kwargs)
            self._note(prefix, op, arguments, out, _own_steps(op, cache))
            return out, _Cache(prefix, cache)

        return forward

    def _backward(self, function):
        def backward(dout, cache, *args, **kwargs):
            self._calls[cache.prefix].dout[:] = [np.copy(dout)]
            return function(dout, cache.cache, *args, **kwargs)

        return backward

    def _gradients_at_once(self, ops):
        def gradients(x, wte, targets, dloss, ignore_index=-1, into=None, alloc=np.empty):
            results = ops.lm_head_cross_entropy_gradients(x, wte, targets, dloss, ignore_index, into=into, alloc=alloc)
            arguments = {"x": x, "wte": wte, "targets": targets, "ignore_index": ignore_index}
            self._note("lm_head", "lm_head_cross_entropy", arguments, results[0])
            self._calls["lm_head"].dout[:] = [np.copy(dloss)]
            return results

        return gradients

    def _note(self, prefix, op, arguments, out, own=()):
        # Copies: a workspace writes over its arrays in the next step, and the model over some in this one.
        kept = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
        self._calls[prefix] = _Call(op, kept, np.copy(out), [], dict(own))
        self._tensors = None

    def _prefix(self, op, arguments):
        if op == "embedding":
            return "embedding"
        if op.startswith("lm_head"):
            return "lm_head"
        if op == "dropout":
            return "embedding.dropped"
        if op == "residual":
            block, _, branch = self._last.rpartition(".")
            return f"{block}.residual_{1 if branch == 'attn' else 2}"
        weight = next(self._names[id(v)] for v in arguments.values() if id(v) in self._names)
        # h.0.ln_1.weight, h.0.attn.c_attn.weight, h.0.mlp.c_fc.weight, ln_f.weight
        self._last = weight.removesuffix(".weight").removesuffix(".c_attn").removesuffix(".c_fc")
        return self._last

    # ---- recorded calls, and calls with replaced steps ----------------------------------------------------

    def _expanded(self):
        if self._tensors is None:
            self._tensors = {}
            for prefix, call in self._calls.items():
                self._tensors.update(_expand(prefix, call))
        return self._tensors

    def _dout(self):
        return self._calls["lm_head"].dout[0]

    def _run_again(self, replacements):
        method, args, kwargs = self._pass
        name = method.__name__
        if name == "loss_and_gradients":  # its third argument is dloss
            name, args, kwargs = "loss", args[:2], {k: v for k, v in kwargs.items() if k != "dloss"}
        current = self.model.ops, self.model._pass
        self.model.ops = self._wrap(self._untraced, replacements)
        try:
            return getattr(type(self.model), name)(self.model, *args, **kwargs)
        finally:
            self.model.ops, self.model._pass = current


def kind(name):
    """``name`` without its block's number."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def _own_steps(op, cache):
    """The steps of an op that its cache holds: attention's weights, before dropout, in the cache of ``layers``."""
    weights = getattr(getattr(cache, "attention", None), "weights", None) if op == "multi_head_attention" else None
    return {} if weights is None else {"weights": np.copy(weights)}


def _unseen_weights(prefix, call, trace):
    weights = trace[f"{prefix}.weights"].value
    seen = visible_keys(*weights.shape[-2:], call.arguments.get("first_key"))
    wrong = np.where(seen, 0, np.abs(weights))
    if not wrong.any():
        return []
    b, h, i, j = (int(n) for n in np.unravel_index(int(wrong.argmax()), wrong.shape))
    return [
        f"{prefix}.weights: {np.count_nonzero(wrong)} weights on keys that may not be seen are not 0; the largest, "
        f"{wrong[b, h, i, j]:.3g}, is query {i}'s on key {j} (sequence {b}, head {h})"
    ]


def _difference_from_steps(prefix, call, rounding):
    values = _values(call, own=False)
    expected = values[next(reversed(values))]
    error, scale = float(np.max(np.abs(call.out - expected))), float(np.max(np.abs(expected)))
    if error <= rounding * max(scale, 1e-30):
        return []
    return [
        f"{prefix}: the op's output differs from that of its steps by up to {error:.3g} (largest entry {scale:.3g})"
    ]


def _values(call, own=True):
    """Step's name → value; ``own``: with those values that the op's cache holds, and what follows from them."""
    values = {}

    def see(name, value):
        value = call.own.get(name, value) if own else value
        values[name] = np.array(value)
        return value

    STEPS[call.op][0](see, **call.arguments)
    return values


def _expand(prefix, call):
    gradients = STEPS[call.op][1]
    values = _values(call)
    last = next(reversed(values))
    values[last] = call.out  # what the layer itself computed
    grads = gradients(call.dout[0], values, **call.arguments) if call.dout else {}
    return {_joined(prefix, name): Traced(value, grads.get(name)) for name, value in values.items()}


def _joined(prefix, name):
    return f"{prefix}.{name}" if name else prefix


def _replaced(op, prefix, arguments, replacements, function, args, kwargs):
    """The op's forward with the replaced steps in it; without any, the op itself."""
    names = [n for n in replacements if n == prefix or n.startswith(prefix + ".")]
    inside = {}

    def see(name, value):
        full = _joined(prefix, name)
        inside[full] = True
        return replacements[full] if full in names else value

    if names:
        out = STEPS[op][0](see, **arguments)
        if any(n in inside for n in names):
            return out if np.ndim(out) else float(out), None
    return function(*args, **kwargs)
