"""Common mistakes in the exercises that are not among the planted bugs.

Each mistake is a change to the solution's text, like a planted bug: ``old`` occurs in that text exactly once.
"""

from __future__ import annotations

from typing import NamedTuple


class Slip(NamedTuple):
    name: str
    old: str
    new: str
    hint: str


_ROW_BEGINS = """\
    for n in range(x.shape[0]):
        maximum = x[n, 0]
        for j in range(x.shape[1]):
            maximum = max(maximum, x[n, j])
"""

SLIPS = {
    "layernorm": (
        Slip(
            "layernorm-rstd-forgotten",
            "    dx *= rstd\n",
            "",
            "xhat = (x − mean) · rstd, so every path from xhat to x carries the factor rstd.",
        ),
        Slip(
            "layernorm-dweight-averaged",
            "dweight = (dout * xhat).sum(axis=rows)",
            "dweight = (dout * xhat).mean(axis=rows)",
            "The weight is used by every row, so its gradient is the sum over the rows.",
        ),
        Slip(
            "layernorm-sums-for-means",
            "    stretch = (dxhat * xhat).mean(axis=-1, keepdims=True)\n",
            "    stretch = (dxhat * xhat).sum(axis=-1, keepdims=True)\n",
            "Where does the 1/C of the variance's derivative 2 (x − mean)/C go?",
        ),
    ),
    "linear": (
        Slip(
            "linear-dweight-averaged",
            "dweight = x.reshape(-1, K).T @ dout.reshape(-1, N)",
            "dweight = x.reshape(-1, K).T @ dout.reshape(-1, N) / (x.size // K)",
            "The weight is used by every row, so its gradient is the sum over the rows, not their mean.",
        ),
    ),
    "gelu": (
        Slip(
            "gelu-inner-derivative-forgotten",
            "0.5 * x * (1 - t * t) * du_dx",
            "0.5 * x * (1 - t * t)",
            "tanh u(x) is a function of u, and u of x: the chain rule gives the factor du/dx.",
        ),
        Slip(
            "gelu-dout-forgotten",
            "np.multiply(dout, slope, out=alloc(x.shape, x.dtype))",
            "slope",
            "The layer's own slope is right. The chain rule multiplies it by dout.",
        ),
    ),
    "softmax": (
        Slip(
            "softmax-weights-factor-forgotten",
            "weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))",
            "dweights - (dweights * weights).sum(axis=-1, keepdims=True)",
            "∂p_i/∂s_j = p_i (δ_ij − p_j): which factor comes before the bracket?",
        ),
        Slip(
            "softmax-sum-without-weights",
            "(dweights * weights).sum(axis=-1, keepdims=True)",
            "dweights.sum(axis=-1, keepdims=True)",
            "The sum over i of dp_i · p_i is weighted by the probabilities.",
        ),
    ),
    "head": (
        Slip(
            "head-scale-forgotten-in-backward",
            "scale = 1 / math.sqrt(q.shape[1])\n",
            "scale = 1\n",
            "S = q kᵀ/√d, so dq and dk both carry the factor 1/√d.",
        ),
        Slip(
            "head-scale-not-a-root",
            "scale = 1 / math.sqrt(q.shape[1])\n",
            "scale = 1 / q.shape[1]\n",
            "The forward divides the scores by √d, not by d.",
        ),
        Slip(
            "head-row-sum-forgotten",
            "dscores = weights * (dweights - row_sums)",
            "dscores = weights * dweights",
            "A score also lowers every other weight of its row: the rows of dS must sum to 0.",
        ),
        Slip(
            "head-dk-transposed",
            "dk = scale * dscores.T @ q",
            "dk = scale * dscores @ q",
            "dk_j sums over the queries i, which are the rows of dS.",
        ),
        Slip(
            "head-dv-transposed",
            "dv = weights.T @ dout",
            "dv = weights @ dout",
            "dv_j sums over the queries i, which are the rows of P.",
        ),
        Slip(
            "head-dq-from-values",
            "dq = scale * dscores @ k",
            "dq = scale * dscores @ v",
            "S = q kᵀ/√d: a query is multiplied by keys, not by values.",
        ),
    ),
    "multi-head": (
        Slip(
            "multi-head-only-queries",
            "(dq, dk, dv)):\n",
            "(dq, 0 * dk, 0 * dv)):\n",
            "x feeds queries, keys and values; dx is the sum of three terms.",
        ),
    ),
    "model": (
        Slip(
            "model-tied-head-forgotten",
            "self.parts.head.backward(dout, self._pass.head, self.grads,",
            "self.parts.head.backward(dout, self._pass.head, {n: g.copy() for n, g in self.grads.items()},",
            "One parameter only. How many times does the model use it?",
        ),
    ),
    "cross-entropy": (
        Slip(
            "cross-entropy-sign",
            "dlogits[index, targets[index]] -= 1",
            "dlogits[index, targets[index]] += 1",
            "The loss falls when the target's logit rises: the entry at the target is p − 1.",
        ),
    ),
    "adamw": (
        Slip(
            "adamw-bias-not-corrected",
            "correction1 = 1 - beta1**step\n    correction2 = 1 - beta2**step",
            "correction1 = 1\n    correction2 = 1",
            "Both moments start at 0. After t steps of a steady gradient, the mean is (1 − βᵗ) times it.",
        ),
        Slip(
            "adamw-step-counted-from-zero",
            "correction1 = 1 - beta1**step\n    correction2 = 1 - beta2**step",
            "correction1 = 1 - beta1**(step + 1)\n    correction2 = 1 - beta2**(step + 1)",
            "step counts from 1: in the first step the correction is 1 − β.",
        ),
        Slip(
            "adamw-decay-through-the-gradient",
            "            m *= beta1\n",
            "            g = g + float(decay) * p\n            decay = 0.0\n            m *= beta1\n",
            "Is the decay added to the gradient? AdamW takes lr · decay · p off the parameter itself.",
        ),
        Slip(
            "adamw-decay-without-learning-rate",
            "p *= 1 - learning_rate * float(decay)",
            "p *= 1 - float(decay)",
            "The decay is multiplied by the learning rate, too.",
        ),
        Slip(
            "adamw-epsilon-inside-the-root",
            "(np.sqrt(v / correction2) + epsilon)",
            "np.sqrt(v / correction2 + epsilon)",
            "ε is added to the root, not under it.",
        ),
        Slip(
            "adamw-root-forgotten",
            "(np.sqrt(v / correction2) + epsilon)",
            "(v / correction2 + epsilon)",
            "The step is divided by √v̂, which has the gradient's own unit.",
        ),
        Slip(
            "adamw-scale-forgotten",
            "g = grads[start:stop] * params.dtype.type(gradient_scale)",
            "g = grads[start:stop].copy()",
            "Every gradient is multiplied by gradient_scale first: that is the clipping.",
        ),
        Slip(
            "adamw-second-moment-not-squared",
            "v += (1 - beta2) * g * g",
            "v += (1 - beta2) * abs(g)",
            "The second moment is the mean of the gradient's square.",
        ),
    ),
    "bpe": (
        Slip(
            "bpe-overlaps-merged",
            "            i += 2\n",
            "            i += 1\n",
            "In a a a the second a cannot belong to two pairs: after a merge, continue behind both.",
        ),
        Slip(
            "bpe-first-pair-not-lowest-rank",
            "pair = min(zip(ids, ids[1:]), key=lambda pair: table.get(pair, NEVER))",
            "pair = next((pair for pair in zip(ids, ids[1:]) if pair in table), (-1, -1))",
            "Which of the possible merges comes first: the leftmost, or the one of lowest rank?",
        ),
        Slip(
            "bpe-merged-once",
            "        ids = merge_pair(ids, pair, table[pair][1])\n",
            "        ids = merge_pair(ids, pair, table[pair][1])\n        break\n",
            "After one merge another may have become possible.",
        ),
    ),
    "cache": (
        Slip(
            "cache-own-token-not-seen",
            "seen_keys = keys[: length + 1]\n    seen_values = values[: length + 1]",
            "seen_keys = keys[: max(length, 1)]\n    seen_values = values[: max(length, 1)]",
            "The new token sees itself, too.",
        ),
        Slip(
            "cache-beyond-its-length",
            "seen_keys = keys[: length + 1]\n    seen_values = values[: length + 1]",
            "seen_keys = keys\n    seen_values = values",
            "The arrays are larger than what has been stored in them.",
        ),
        Slip(
            "cache-written-one-late",
            "keys[length] = k\n    values[length] = v",
            "keys[length + 1] = k\n    values[length + 1] = v",
            "The cache holds length tokens, at 0 … length − 1. Where does the next one go?",
        ),
        Slip(
            "cache-scale-forgotten",
            'np.einsum("hd,jhd->hj", q, seen_keys) / math.sqrt(q.shape[-1])',
            'np.einsum("hd,jhd->hj", q, seen_keys)',
            "The scores are divided by √head_size, as without a cache.",
        ),
    ),
    "sampling": (
        Slip(
            "sampling-temperature-multiplies",
            "logits[order] / temperature",
            "logits[order] * temperature",
            "A low temperature makes the distribution sharper: the logits are divided by it.",
        ),
        Slip(
            "sampling-maximum-not-subtracted",
            "np.exp(scaled - scaled[0])",
            "np.exp(scaled)",
            "exp(1000) is infinite in float64: subtract the largest logit first.",
        ),
        Slip(
            "sampling-top-k-ignored",
            "    scaled = scaled[:top_k]\n",
            "    top_k = len(logits)\n    scaled = scaled[:top_k]\n",
            "Only the k largest logits take part; all others have probability 0.",
        ),
        Slip(
            "sampling-top-p-ignored",
            "before < top_p",
            "before < 2",
            "top_p keeps the fewest tokens, most probable first, that reach p; all others have probability 0.",
        ),
        Slip(
            "sampling-nothing-cut",
            "    scaled = scaled[:top_k]\n",
            "    top_k, top_p = len(logits), 2.0\n    scaled = scaled[:top_k]\n",
            "The softmax with a temperature is right. Next come the k largest, then the fewest that reach p.",
        ),
        Slip(
            "sampling-not-renormalised",
            "kept = np.where(before < top_p, kept, 0)\n    kept = kept / kept.sum()",
            "kept = np.where(before < top_p, kept, 0)",
            "Do the probabilities add up to 1 after top-p?",
        ),
        Slip(
            "sampling-last-token-cut",
            "before = np.cumsum(kept) - kept\n    kept = np.where(before < top_p, kept, 0)",
            "before = np.cumsum(kept)\n    kept = np.where((before < top_p) | (np.arange(len(kept)) == 0), kept, 0)",
            "top_p keeps the fewest tokens that reach p: the token that crosses p belongs to them.",
        ),
        Slip(
            "sampling-top-k-after-top-p",
            "scaled = scaled[:top_k]\n    kept = np.exp(scaled - scaled[0])\n    kept = kept / kept.sum()",
            "kept = np.exp(scaled - scaled[0])\n    kept = (kept / kept.sum())[:top_k]",
            "top_p counts probabilities after top-k, which add up to 1.",
        ),
    ),
    "online-softmax": (
        Slip(
            "online-softmax-out-not-rescaled",
            "out = out * rescale + weights",
            "out = out + weights",
            "What was summed under an old maximum is too large once a larger maximum appears.",
        ),
        Slip(
            "online-softmax-total-not-rescaled",
            "total = total * rescale + weights",
            "total = total + weights",
            "The running total is relative to the maximum, as the running sum is.",
        ),
        Slip(
            "online-softmax-rescale-upside-down",
            "rescale = np.exp(maximum - new_maximum)",
            "rescale = np.where(maximum == -np.inf, 0, np.exp(new_maximum - maximum))",
            "The factor turns exp(s − old) into exp(s − new): which difference is in its exponent?",
        ),
        Slip(
            "online-softmax-not-divided",
            "return out / total",
            "return out",
            "The weights add up to 1 only after a division by their total.",
        ),
    ),
    "kernel": (
        Slip(
            "kernel-total-not-reset",
            _ROW_BEGINS + "        total = 0.0\n",
            "    total = 0.0\n" + _ROW_BEGINS,
            "Each row has a total of its own.",
        ),
        Slip(
            "kernel-maximum-not-subtracted",
            "math.exp(x[n, j] - maximum)",
            "math.exp(x[n, j])",
            "exp(1000) is infinite in float64: subtract the row's maximum first.",
        ),
        Slip(
            "kernel-last-column-forgotten",
            "            out[n, j] = math.exp(x[n, j] - maximum)\n",
            "            out[n, j] = math.exp(x[n, j] - maximum) if j < x.shape[1] - 1 or j == 0 else 0.0\n",
            "Does the loop reach the last column?",
        ),
    ),
    "rotary": (
        Slip(
            "rotary-sine-with-one-sign",
            "    out_b[...] = a * sin + b * cos\n",
            "    out_b[...] = b * cos - a * sin\n",
            "[[cos, −sin], [sin, cos]]: the two sines have opposite signs, else lengths change.",
        ),
        Slip(
            "rotary-angle-not-turned",
            "    sin = sign * sin\n",
            "    sin, cos = sin, sign * cos\n",
            "Turning back changes the sign of the sine; the cosine of −φ is that of φ.",
        ),
    ),
    "shared-heads": (
        Slip(
            "shared-heads-summed-in-turns",
            "gradient.reshape(B, n_kv_head, n_head // n_kv_head, Tk, head_size).sum(axis=2)",
            "gradient.reshape(B, n_head // n_kv_head, n_kv_head, Tk, head_size).sum(axis=1)",
            "Neighbouring query heads share a head of keys: which axis of the reshaped gradient counts them?",
        ),
        Slip(
            "shared-heads-averaged",
            "n_head // n_kv_head, Tk, head_size).sum(axis=2)",
            "n_head // n_kv_head, Tk, head_size).mean(axis=2)",
            "A value that is used several times gets the sum of its gradients, not their mean.",
        ),
    ),
    "qk-norm": (
        Slip(
            "qk-norm-rotation-forgotten",
            "        dx = rotary_backward(dx, cache.turn)\n",
            "        pass\n",
            "The output was turned: its gradient is turned back before anything else.",
        ),
        Slip(
            "qk-norm-out-of-order",
            """    if cache.turn is not None:
        dx = rotary_backward(dx, cache.turn)
    if cache.norm is not None:
        dx, dweight = rmsnorm_backward(dx, cache.norm)
""",
            """    if cache.norm is not None:
        dx, dweight = rmsnorm_backward(dx, cache.norm)
    if cache.turn is not None:
        dx = rotary_backward(dx, cache.turn)
""",
            "The forward normalises first and turns then. In which order does the gradient come back?",
        ),
    ),
}
