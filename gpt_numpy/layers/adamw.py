"""AdamW (Loshchilov and Hutter 2019, algorithm 2) and the gradient's norm and zeroing, over flat arrays.

``adamw_update`` and ``clear_gradients`` are the only functions of ``layers`` that write to their arguments: an
optimizer's purpose is to move the parameters. The fast twin is ``kernels.adamw``.
"""

import math

import numpy as np

from ..arguments import check_step

_BLOCK = 1 << 16  # elements at a time: the temporaries stay in cache


def adamw_update(
    params,
    grads,
    first_moments,
    second_moments,
    boundaries,
    decays,
    learning_rate,
    beta1,
    beta2,
    epsilon,
    step,
    gradient_scale=1.0,
):
    """Move ``params`` one step, in place, and both moments with them; all four arrays are flat, (N,).

    boundaries (S + 1,) int and decays (S,) float64: elements boundaries[i] to boundaries[i + 1] have weight
    decay decays[i]. step counts from 1. Every gradient is multiplied by gradient_scale first (clipping).

        g = scale · grad
        m = β₁ m + (1 − β₁) g               running mean of the gradient
        v = β₂ v + (1 − β₂) g²              running mean of its square
        m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)     m and v start at 0; the division removes that bias
        p = p − lr · (m̂ / (√v̂ + ε) + decay · p)

    The decay acts on the parameter itself, not through the gradient: the W in AdamW is this decoupled weight decay.
    """
    boundaries, decays = check_step(params, grads, first_moments, second_moments, boundaries, decays)
    correction1 = 1 - beta1**step
    correction2 = 1 - beta2**step
    for segment, decay in enumerate(decays):
        for start in range(int(boundaries[segment]), int(boundaries[segment + 1]), _BLOCK):
            stop = min(start + _BLOCK, int(boundaries[segment + 1]))
            p, m, v = params[start:stop], first_moments[start:stop], second_moments[start:stop]
            g = grads[start:stop] * params.dtype.type(gradient_scale)
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            p *= 1 - learning_rate * float(decay)
            p -= (learning_rate / correction1) * m / (np.sqrt(v / correction2) + epsilon)


def clear_gradients(grads):
    """Set a flat array (N,) to zero, in place."""
    grads.fill(0)


def gradient_norm(grads):
    """Euclidean norm of a flat array (N,), summed in float64 block by block, in order."""
    total = 0.0
    for start in range(0, len(grads), _BLOCK):
        block = grads[start : start + _BLOCK].astype(np.float64)
        total += float(block @ block)
    return math.sqrt(total)
