"""The dot-product test: ⟨u, J·v⟩ = ⟨Jᵀ·u, v⟩ for random u and v, which checks a backward without a step size.

J is the Jacobian of a layer's forward. J·v is the forward's derivative along v, by the complex step, exact to rounding; Jᵀ·u
is what the backward returns for dout = u. Differences agree to about 1e-11, these two numbers to 1e-15: so the test sees
errors that differences cannot. Neither test sees a forward that computes something else than it should, such as a
mask that shows a key too many: its backward is the right backward of the wrong function.
"""

from __future__ import annotations

import numpy as np

from .gradients import COMPLEX_STEP


def dot_product_errors(case, seed: int = 0) -> dict[str, float]:
    """Input's name → |⟨u, J·v⟩ − ⟨Jᵀ·u, v⟩| / (‖Jᵀ·u‖ · ‖v‖) for random u and v; for an analytic ``cases.Case``."""
    rng = np.random.default_rng(seed)
    names = [n for n, value in case.inputs.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    out, cache = case.forward(**case.inputs)
    u = rng.standard_normal(np.shape(out))
    gradients = case.backward(u, cache)
    gradients = [g for g in gradients if g is not None] if isinstance(gradients, tuple) else [gradients]
    complex_inputs = {n: value.astype(np.complex128) if n in names else value for n, value in case.inputs.items()}
    errors = {}
    for name, gradient in zip(names, gradients):
        v = rng.standard_normal(gradient.shape)
        shifted = {**complex_inputs, name: complex_inputs[name] + 1j * COMPLEX_STEP * v}
        along = np.imag(case.forward(**shifted)[0]) / COMPLEX_STEP
        scale = float(np.linalg.norm(gradient) * np.linalg.norm(v))
        difference = abs(float(np.sum(u * along)) - float(np.sum(gradient * v)))
        errors[name] = difference / scale if scale else difference
    return errors
