"""Bugs in ``layers/attention.py``."""

from .planting import Bug

_FILE = "attention.py"

BUGS = [
    Bug(
        "attention-scale-forgotten",
        _FILE,
        "    scores *= scale\n",
        "",
        "attention: differences of q",
        "dq and dk are wrong by one and the same factor; dv is right. What does the backward believe about the scores?",
        "The forward lacks 1/√head_size, so the softmax sees scores twice as large as the backward believes (heads "
        "of 4). Weights, and with them dv, are consistent with the forward; dq and dk carry a factor that no longer "
        "belongs.",
    ),
    Bug(
        "attention-scale-forgotten-in-backward",
        _FILE,
        "    dscores *= scale\n",
        "",
        "attention: differences of k",
        "Divide the analytic dq by the numeric one, entry by entry. What number is it, and what is its square?",
        "S = s · q kᵀ has the factor s = 1/√head_size, so dq = s · dS k and dk = s · dSᵀ q. Without it both are too "
        "large by √head_size: the direction is right, which is why training still seems to work, only worse.",
    ),
    Bug(
        "attention-scale-not-a-root",
        _FILE,
        "    dscores *= scale\n",
        "    dscores *= q.dtype.type(1 / q.shape[-1])\n",
        "attention: differences of q",
        "The ratio of analytic to numeric is the same everywhere. Is it a ratio you would get from 4 and √4?",
        "The backward scales by 1/head_size, the forward by 1/√head_size.",
    ),
    Bug(
        "attention-dk-transposed",
        _FILE,
        "sum_shared(dscores.swapaxes(-1, -2) @ heads_first(q), k)",
        "sum_shared(dscores @ heads_first(q), k)",
        "attention: differences of k",
        "dq is right, dk is wrong, and with more keys than queries nothing runs at all. Which index is summed in dk?",
        "dk_j = s · Σ_i dS_ij q_i sums over queries, the rows of dS: dSᵀ q. Written dS · q it sums over keys. With "
        "as many keys as queries the shapes hide it, which is why a case with Tk > Tq belongs in the check.",
    ),
    Bug(
        "attention-softmax-row-sum-forgotten",
        _FILE,
        "return weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))",
        "return weights * dweights",
        "attention: differences of q",
        "Sum the numeric dscores of one query over its keys: what do you get? And the analytic ones?",
        "Softmax's Jacobian is p_i (δ_ij − p_j): a score also lowers every other weight of its row. Only the "
        "diagonal was kept. The true dscores of a row sum to 0, as adding a constant to all scores of a row changes "
        "nothing.",
    ),
    Bug(
        "attention-softmax-sum-over-queries",
        _FILE,
        "(dweights * weights).sum(axis=-1, keepdims=True)",
        "(dweights * weights).sum(axis=-2, keepdims=True)",
        "attention: differences of k",
        "The formula is the right one. Over which axis does a softmax normalise?",
        "The sum Σ_i dp_i p_i runs over the keys of one query, the last axis, the one that the weights add up to 1 "
        "along. Here it runs over queries. Square score matrices never complain.",
    ),
    Bug(
        "attention-mask-leaks-one-key",
        _FILE,
        "last_key = np.arange(Tk - Tq, Tk)[:, None]",
        "last_key = np.arange(Tk - Tq, Tk)[:, None] + 1",
        "attention: visibility",
        "Every difference agrees: this gradient is the right gradient of the function. Is it the right function?",
        "Each query also sees the key after its own, the very token it is to predict. Forward and backward share "
        "the mask, so differences cannot object. A causality check can: ∂out_t/∂x_{>t} must be exactly 0. In "
        "training the symptom is a loss that is far too good.",
    ),
    Bug(
        "attention-documents-not-kept-apart",
        _FILE,
        "visible = visible & (key >= first_key[:, None, :, None])",
        "visible = visible & (first_key[:, None, :, None] >= 0)",
        "attention (first_key): visibility",
        "Only cases with first_key complain, and no difference does. Which pairs should not be connected?",
        "The lower end of each query's range is ignored: a document sees those before it in the same block.",
    ),
    Bug(
        "attention-mask-after-softmax",
        _FILE,
        "weights = softmax(np.where(visible, scores, -np.inf))",
        "weights = softmax(scores) * visible",
        "attention: differences of k",
        "For one query, sum the weights of the keys that it sees.",
        "Masking after the softmax leaves weights that do not sum to 1, and the future still takes part through the "
        "normaliser: a later key's score lowers every visible weight. The mask has to remove scores, not weights.",
    ),
    Bug(
        "attention-dropout-mask-drawn-again",
        _FILE,
        "dropout_forward(weights, dropout_cache.dropout)[0]",
        "dropout_forward(weights, dropout_cache.dropout._replace(key=dropout_cache.dropout.key + 1))[0]",
        "attention (dropout): differences of v",
        "Without dropout all gradients are right. With dropout only dv is wrong. Which line computes only dv?",
        "The backward has to see the same dropped weights as the forward. It drew another mask. Here masks are "
        "functions of the position, so that recomputing one gives the same bits; with a stateful generator this bug "
        "is one call away.",
    ),
    Bug(
        "attention-dropout-not-passed-back",
        _FILE,
        "        dweights = dropout_backward(dweights, dropout_cache)\n",
        "        pass\n",
        "attention (dropout): differences of q",
        "With dropout, dv is right; dq and dk are wrong. What lies between dweights and dscores?",
        "P̃ = dropout(P), so dP = mask/(1−p) ∘ dP̃. The gradient went through the dropped weights as if nothing had "
        "happened.",
    ),
    Bug(
        "attention-dv-from-undropped-weights",
        _FILE,
        "sum_shared(dropped.swapaxes(-1, -2) @ dout, v)",
        "sum_shared(weights.swapaxes(-1, -2) @ dout, v)",
        "attention (dropout): differences of v",
        "Which of the two matrices, P or P̃, was v multiplied by in the forward?",
        "out = P̃ v, so dv = P̃ᵀ dout; P is what the softmax made before dropout.",
    ),
    Bug(
        "attention-cache-keeps-dropped-weights",
        _FILE,
        "return out, AttentionCache(q, k, v, weights, dropout_cache, scale)",
        "return out, AttentionCache(q, k, v, dropped, dropout_cache, scale)",
        "attention (dropout): differences of q",
        "Every gradient is wrong, but only with dropout. The lines of the backward are right: look at their inputs.",
        "The softmax's backward needs P as the softmax made it. The cache holds P̃; dropout is then applied a "
        "second time for dv, and the Jacobian is taken at numbers that do not sum to 1.",
    ),
    Bug(
        "attention-dq-from-values",
        _FILE,
        "np.matmul(dscores, shared_heads(k, q), out=heads_first(dq))",
        "np.matmul(dscores, shared_heads(v, q), out=heads_first(dq))",
        "attention: differences of q",
        "Only dq is wrong. S = s · q kᵀ: by which matrix is a query multiplied?",
        "dq = s · dS · k. The line has v instead of k: both have the same shape, so no other check fails.",
    ),
    Bug(
        "multi-head-thirds-exchanged",
        _FILE,
        "(dq, dk, dv)):\n        view[...] = gradient",
        "(dk, dq, dv)):\n        view[...] = gradient",
        "multi-head: differences of attn_weight",
        "``attention`` alone passes. In attn_bias, look at entries 0 … C−1 and C … 2C−1 apart.",
        "The forward cuts the projection into q, k, v; the backward lays dk, dq, dv side by side. The shapes agree, "
        "the columns do not.",
    ),
    Bug(
        "multi-head-projection-skipped",
        _FILE,
        "dq, dk, dv = attention_backward(dheads.reshape(cache.attention.q.shape), cache.attention, alloc)",
        "dq, dk, dv = attention_backward(dout.reshape(cache.attention.q.shape), cache.attention, alloc)",
        "multi-head: differences of attn_weight",
        "The output projection's own gradients are right, everything before it is wrong.",
        "dout is the gradient behind the output projection; the heads need the one in front of it, dheads = dout · "
        "Wᵀ, which has just been computed and is not used.",
    ),
]
