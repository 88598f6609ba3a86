"""Bugs in how today's blocks put their layers together: pairs that turn, heads that share keys, norms of queries."""

from .planting import Bug

BUGS = [
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
        "silu-slope-of-a-constant-gate",
        "activation.py",
        "        return gate + _times(np.clip(x, -1e4, 1e4), beta * gate * (1 - gate))\n",
        "        return gate\n",
        "activation (silu): differences of x",
        "Far from 0 the slope is right. What else moves with the input there, where it is wrong?",
        "The gate moves with the input too: the product rule has a second term.",
    ),
]
