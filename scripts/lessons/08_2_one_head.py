# %% [markdown]
# # 8. Attention, second of three: one masked head
#
# Attention is the only layer in which positions see each other. Each position has a query, a key and
# a value. A query's products with the keys it may see go through a softmax and become weights; the
# output is the weighted mean of the values.
#
#     S = q kᵀ / √d  where j <= i, and −∞ elsewhere
#     P = softmax(S)
#     out = P v
#
# **Symbols.** T: positions; d: width of the head; q, k, v: queries, keys, values, (T, d) each; i: a
# query's position, a row of S; j: a key's position, a column of S; S: scores, (T, T); P: weights, (T,
# T); 1/√d: the scale of the scores; out: the output, (T, d); D: dout, its gradient; Σ: a sum over the
# index below it; dP, dS, dq, dk, dv: the loss's gradients; rowsum: the sum over a row; ∘: entry by
# entry.
#
# **Predict.** Position 0 sees only itself. What is its weight, and what are dq₀ and the part of dk₀
# that comes from it?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import cases, check_gradients
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import heat, show

# %% [markdown]
# ## Derive
#
# Three lines forward, three backward, from the last to the first. The middle one is the first part of
# this lesson (softmax's Jacobian):
#
#     out = P v          dP = D · vᵀ,   dv = Pᵀ · D
#     P = softmax(S)     dS = P ∘ (dP − rowsum(dP ∘ P))
#     S = q kᵀ / √d      dq = dS · k / √d,   dk = dSᵀ · q / √d
#
# Each product is a linear layer (lesson 4). For dk_j the sum runs over the queries i, the rows of dS:
# dk_j = Σ_i dS_ij q_i / √d, which is dSᵀ · q.

# %%
rng = np.random.default_rng(0)
T, d = 5, 4
q, k, v, dout = rng.normal(size=(4, 1, T, 1, d))
_, cache = layers.attention_forward(q, k, v)
Q, K, V, D = (a[0, :, 0] for a in (q, k, v, dout))
S = np.where(np.tri(T, dtype=bool), Q @ K.T / np.sqrt(d), -np.inf)
P = np.exp(S - S.max(axis=-1, keepdims=True))
P /= P.sum(axis=-1, keepdims=True)
dP = D @ V.T
dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
by_hand = dS @ K / np.sqrt(d), dS.T @ Q / np.sqrt(d), P.T @ D
for mine, theirs in zip(by_hand, layers.attention_backward(dout, cache)):
    assert np.allclose(mine, theirs[0, :, 0])
assert np.abs(dS.sum(axis=-1)).max() < 1e-15

# %% [markdown]
# ## The mask
#
# A key after its query has the score −∞, so its weight is exactly 0. dP = D · vᵀ is not 0 there: it
# says what the loss would gain if that weight could change. But dS is multiplied by P, and P = 0
# there. So nothing passes to a key or a query from the future.

# %%
show(heat({"weights P": P, "dP": dP, "dS": dS}, "P and dS are 0 above the diagonal, dP is not", "query", "key"))
above = np.triu_indices(T, 1)
assert (P[above] == 0).all() and (dS[above] == 0).all() and np.abs(dP[above]).min() > 0

# %% [markdown]
# ## By hand: one query, two keys
#
# A head of width 1, so √d = 1. The query at position 1 is q = 1, the keys are 0 and log 3, the values
# 2 and 6. Scores 0 and log 3; weights 1/(1 + 3) = ¼ and ¾; out = ¼·2 + ¾·6 = 5.
#
# With D = 1 at position 1:  dv = (¼, ¾).  dP = D · v = (2, 6).  rowsum(dP ∘ P) = ¼·2 + ¾·6 = 5.  dS =
# (¼ (2 − 5), ¾ (6 − 5)) = (−¾, ¾), which sums to 0.  dq = Σ_j dS_j k_j = ¾ log 3 (Σ_j: the sum over
# the keys j);  dk = dS · q = (−¾, ¾).


# %%
def column(*values):
    return np.array(values, dtype=float).reshape(1, -1, 1, 1)  # (B, T, n_head, head_size)


q1, k1, v1 = column(0.5, 1), column(0, np.log(3)), column(2, 6)
out, cache = layers.attention_forward(q1, k1, v1)
assert np.allclose(out.ravel(), [2, 5])  # position 0 sees only itself: weight 1, out = v₀
dq, dk, dv = layers.attention_backward(column(0, 1), cache)
print("dq", dq.ravel(), "dk", dk.ravel(), "dv", dv.ravel())
assert np.allclose(dv.ravel(), [0.25, 0.75])
assert np.allclose(dq.ravel(), [0, 0.75 * np.log(3)])
assert np.allclose(dk.ravel(), [-0.75, 0.75])
dq, dk, _ = layers.attention_backward(column(1, 0), cache)
assert not dq.any() and not dk.any()

# %% [answer]
# **Answer:** position 0 sees one key: its weight is always 1, so its score has no effect. dq₀ = 0,
# and its part of dk₀ is 0.

# %% [markdown]
# ## Check, with masks and dropout
#
# `gpt_numpy.study.cases` holds each layer with awkward inputs: masks for documents, dropout, more
# keys than queries.

# %%
for case in cases.layer_cases(layers):
    if case.layer == "attention":
        report = cases.check_case(case)
        print(f"{case.name:42} {report.checked} entries, worst {max(t.error for t in report.tensors):.0e}")
        assert report.passed

# %% [markdown]
# ## Break it
#
# Let every query also see the next key. The difference check still passes: the gradient is right, the
# function is wrong. A statement about the function itself finds it: ∂out_i/∂x_j (x_j: anything at
# position j) is exactly 0 for j > i.

# %%
broken, _ = plant(BUGS["attention-mask-leaks-one-key"])
assert check_gradients(broken.attention_forward, broken.attention_backward, dict(q=q, k=k, v=v)).passed
case = next(c for c in cases.layer_cases(broken) if c.name == "attention")
print(cases.check_case(case).violations)
assert cases.check_case(case).failed_checks() == ["visibility"]

# %% [markdown]
# ## Exercise
#
# Why 1/√d? Take q and k with independent entries of variance 1. (Then write the backward: `gpt-numpy
# study exercise head`.)

# %% [answer]
# **Answer:** q·k is a sum of d products of variance 1 each, so its variance is d; the factor makes it
# 1. Without it, for d = 64 the scores have standard deviation 8, the softmax is nearly one-hot, P ∘
# (dP − …) is nearly 0, and queries and keys hardly learn.

# %% [proof]
many_q, many_k = rng.normal(size=(2, 1000, 64))
products = many_q @ many_k.T
print(f"standard deviation {products.std():.2f}, scaled {(products / 8).std():.2f}")
assert abs((products / 8).std() - 1) < 0.05
for case in cases.layer_cases(layers, seed=1):
    if case.layer == "attention":
        assert cases.check_case(case).passed
print("lesson 8 holds")
