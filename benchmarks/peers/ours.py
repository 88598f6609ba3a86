"""gpt_numpy's training step, as the trainer runs it: kernels, a workspace, the fused optimizer."""

import numpy as np

from . import problem


def prepare(name, spec):
    from gpt_numpy import GPT, kernels
    from gpt_numpy.parameters import decays
    from gpt_numpy.workspace import Workspace

    products = "bfloat16" if "bfloat16" in name else "float32"
    model = GPT(
        problem.config(spec), ops=kernels, workspace=Workspace(), recompute="recompute" in name, products=products
    )
    params, grads = model.params, model.grads
    first, second = np.zeros_like(params.flat), np.zeros_like(params.flat)
    weight_decays = np.array([problem.WEIGHT_DECAY if decays(n) else 0.0 for n in params])
    tokens, targets = problem.batch(spec)
    done = 0

    def step():
        nonlocal done
        done += 1
        model.replace_gradients()
        loss = model.loss_and_gradients(tokens, targets)
        scale = min(1.0, problem.CLIP / (kernels.gradient_norm(grads.flat) + 1e-6))
        kernels.adamw_update(
            params.flat,
            grads.flat,
            first,
            second,
            params.boundaries,
            weight_decays,
            problem.LEARNING_RATE,
            problem.BETA1,
            problem.BETA2,
            problem.EPSILON,
            done,
            scale,
        )
        return loss

    return step
