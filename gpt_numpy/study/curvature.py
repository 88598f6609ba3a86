"""Second derivatives of the loss, from the first: the hand-written backward, differentiated by the complex step.

The gradient g(p) is computed by a forward and a backward that are analytic: sums, products, exp, tanh, roots. So
g(p + ih·v) = g(p) + ih · H·v + O(h²), with H the Hessian, and

    H · v = Im g(p + ih·v) / h,

exact to rounding for an h as small as 1e-30 (Squire and Trapp 1998). No second derivative is written by hand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import layers
from ..errors import ConfigError
from ..layers.cross_entropy import CrossEntropyCache
from ..model import GPT, IGNORE_INDEX
from ..parameters import Parameters
from .dot_product import dot_product_errors as dot_product_errors

_H = 1e-30  # nothing is subtracted, so nothing is lost however small it is


def hessian_vector_product(model: GPT, v, tokens, targets, **context) -> np.ndarray:
    """H · v, flat (N,) float64: the Hessian of the mean loss of predicting targets (B, T) from tokens (B, T), times v.

    v: (N,), laid out like ``model.params.flat``. context: positions, first_key, dropout_at, as for ``model.loss``.
    Computed in float64 whatever the model's own precision; the model and its gradients are left as they are.
    Raises ``ConfigError`` where v has another shape.
    """
    flat = model.params.flat
    v = np.asarray(v, np.float64)
    if v.shape != flat.shape:
        raise ConfigError("not a direction in parameter space", field="v", found=v.shape, expected=str(flat.shape))
    params = Parameters(model.config, np.complex128)
    params.flat[...] = flat + 1j * _H * v
    shifted = GPT(model.config, dtype=np.complex128, ops=layers, params=params)
    logits = shifted.forward(np.asarray(tokens), **context)
    shifted.backward(layers.cross_entropy_backward(1.0, _loss_cache(logits, np.asarray(targets))))
    return shifted.grads.flat.imag / _H


def _loss_cache(logits, targets):
    """The cache of ``cross_entropy_forward``, which itself returns a Python float and so cannot take complex numbers."""
    rows, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    maximum = rows.real.max(axis=-1, keepdims=True)
    total = np.exp(rows - maximum).sum(axis=-1, keepdims=True)
    return CrossEntropyCache(logits, maximum, total, targets, targets != IGNORE_INDEX)


# ---- eigenvalues, trace, noise scale ---------------------------------------------------------------------------------


class Spectrum(NamedTuple):
    """The largest and smallest eigenvalue of the Hessian, after ``products`` Hessian-vector products."""

    largest: float
    smallest: float
    products: int
    residual: float  # ‖H·x − largest · x‖ for the unit vector x that belongs to it


def eigenvalues(model: GPT, tokens, targets, n_products: int = 30, seed: int = 0) -> Spectrum:
    """The largest and the smallest eigenvalue of the Hessian, by Lanczos with full reorthogonalisation."""
    n = model.params.flat.size
    rng = np.random.default_rng(seed)
    basis = [_unit(rng.standard_normal(n))]
    alphas: list[float] = []
    betas: list[float] = []
    while True:
        product = hessian_vector_product(model, basis[-1], tokens, targets)
        alphas.append(float(product @ basis[-1]))
        for _ in range(2):  # a single pass would leave a part due to rounding
            for vector in basis:
                product -= (product @ vector) * vector
        beta = float(np.linalg.norm(product))
        if len(alphas) == min(n_products, n) or beta < 1e-12 * max(map(abs, alphas)):
            break
        betas.append(beta)
        basis.append(product / beta)
    tridiagonal = np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    return Spectrum(float(values[-1]), float(values[0]), len(alphas), beta * abs(float(vectors[-1, -1])))


def trace_estimate(model: GPT, tokens, targets, n_probes: int = 10, seed: int = 0) -> tuple[float, float]:
    """The Hessian's trace and its standard error: the mean of zᵀ·H·z over vectors z of random signs (Hutchinson 1990)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_probes):
        z = rng.choice([-1.0, 1.0], model.params.flat.size)
        found.append(float(z @ hessian_vector_product(model, z, tokens, targets)))
    error = float(np.std(found, ddof=1) / np.sqrt(n_probes)) if n_probes > 1 else float("nan")
    return float(np.mean(found)), error


def gradient_noise_scale(model: GPT, tokens, targets) -> float:
    """The simple noise scale B = tr(Σ) / |G|², in sequences (McCandlish et al. 2018, equation 2.9 and appendix A.1).

    Σ is the covariance of one sequence's gradient, G the true gradient. Both are estimated without bias from the
    gradients of the single sequences in tokens (n, T) and of their mean. The step of a batch much smaller than B is
    mostly noise; a batch much larger than B gains little. The result is infinite or negative where n is too small to
    distinguish G from noise.
    """
    n = len(tokens)
    if n < 2:
        raise ConfigError("one sequence has no covariance", field="tokens", found=n, expected="two sequences or more")
    single, total = 0.0, np.zeros(model.params.flat.size)
    for i in range(n):
        gradient = _gradient(model, tokens[i : i + 1], targets[i : i + 1])
        single += float(gradient @ gradient) / n
        total += gradient / n
    together = float(total @ total)
    squared_norm = (n * together - single) / (n - 1)
    covariance = (single - together) / (1 - 1 / n)
    return covariance / squared_norm if squared_norm else float("inf")


def _gradient(model, tokens, targets):
    kept = model.grads.flat.copy()
    model.zero_gradients()
    model.loss_and_gradients(tokens, targets)
    gradient = model.grads.flat.astype(np.float64)
    model.grads.flat[...] = kept
    return gradient


def _unit(x):
    return x / np.linalg.norm(x)
