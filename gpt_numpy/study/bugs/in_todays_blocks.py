"""Bugs in the layers that GPT-2 does not have: rmsnorm, rotary positions, shared key heads, query norms, gated layers."""

from .planting import Bug

BUGS = [
    Bug(
        "rmsnorm-stretch-forgotten",
        "rmsnorm.py",
        "    dx -= xhat\n",
        "",
        "rmsnorm: differences of x",
        "Multiply the analytic dx by the row itself and sum. What should the sum be, for a tiny ε?",
        "Every entry of a row moves the root mean square, which divides all entries. That way back is missing: dx has to "
        "be orthogonal to the row, because stretching the row changes nothing.",
    ),
    Bug(
        "rmsnorm-epsilon-outside-the-root",
        "rmsnorm.py",
        "rrms = 1 / np.sqrt(square + x.dtype.type(epsilon))",
        "rrms = 1 / (np.sqrt(square) + x.dtype.type(epsilon))",
        "rmsnorm (large ε): differences of x",
        "With rows of ordinary size nothing is wrong. What is as large as the mean square in the rows of this case?",
        "ε belongs under the root; the backward was derived for it there.",
    ),
    Bug(
        "rotary-turned-on-instead-of-back",
        "rotary.py",
        "_turned(dout, cache.rotation, alloc, -1)",
        "_turned(dout, cache.rotation, alloc, 1)",
        "rotary: differences of x",
        "At position 0 the gradient is right. Compare its length with that of the numeric one at the other positions.",
        "The gradient passes through the transpose of the rotation, which turns the other way. The length of the "
        "gradient is right, its direction is not: training still works a little.",
    ),
    Bug(
        "rotary-other-pairs",
        "rotary.py",
        '    if pairing == "neighbours":\n',
        '    if pairing != "neighbours":\n',
        "rotary: value",
        "Forward and backward agree with each other. With what do they not agree?",
        "Two pairings are in use, and the two are exchanged here. Gradients are right for either; only weights that were "
        "trained with one pairing write nonsense with the other.",
    ),
    Bug(
        "shared-heads-in-turns",
        "attention.py",
        "np.repeat(x, groups, axis=2)",
        "np.tile(x, (1, 1, groups, 1))",
        "grouped attention: differences of k",
        "With one head of keys for each query head all is right. Which query heads use the first head of keys?",
        "Neighbouring query heads share a head of keys: the first ones use the first. Here they take the heads of keys in "
        "turns, while the backward adds up neighbours.",
    ),
    Bug(
        "shared-heads-gradient-of-one-alone",
        "attention.py",
        "n_head // n_kv_head, Tk, head_size).sum(axis=2)",
        "n_head // n_kv_head, Tk, head_size)[:, :, 0]",
        "grouped attention: differences of v",
        "The gradient of the queries is right. How many query heads read each head of values?",
        "A head that several query heads use gets the sum of their gradients; here it gets that of the first alone.",
    ),
    Bug(
        "query-norm-skipped-in-backward",
        "attention.py",
        "        dx, dweight = rmsnorm_backward(dx, cache.norm)\n",
        "        _, dweight = rmsnorm_backward(dx, cache.norm)\n",
        "llama attention (norms): differences of x",
        "The gradients of both norms' weights are right. Which gradient goes on to the projection?",
        "The gradient that goes on is the one from before the norm's backward.",
    ),
    Bug(
        "swiglu-gate-without-its-slope",
        "activation.py",
        "dgate[...] = activation_backward(dout * up, cache)",
        "dgate[...] = dout * up",
        "swiglu: differences of hidden",
        "The right half of the columns is right. Through which function did the left half go?",
        "The gate went through the activation, so its gradient needs the activation's derivative.",
    ),
    Bug(
        "swiglu-up-from-the-open-gate",
        "activation.py",
        "np.multiply(dout, activated, out=dup)",
        "np.multiply(dout, gate, out=dup)",
        "swiglu: differences of hidden",
        "The left half of the columns is right. By what was the right half multiplied in the forward?",
        "The right half was multiplied by the activated gate, not by the gate itself.",
    ),
    Bug(
        "silu-slope-of-a-constant-gate",
        "activation.py",
        "        return gate + _times(np.clip(x, -1e4, 1e4), beta * gate * (1 - gate))\n",
        "        return gate\n",
        "activation (silu): differences of x",
        "Far from 0 the slope is right. What else moves with the input there, where it is wrong?",
        "The gate moves with the input too: the product rule has a second term.",
    ),
]
