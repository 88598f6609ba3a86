# %% [markdown]
# # 8. Attention: the only layer in which places see each other
#
# Each place sends out a query; each place also has a key and a value. A query's product with the
# keys it may see, through a softmax, becomes weights; the output is the weighted mean of the
# values.
#
#     S = q kᵀ / √d,   P = softmax(S),   out = P v            (d is the width of a head)
#
# **Predict.** Place 0 sees only itself. What is its weight, and what are dq₀ and the part of dk₀
# that comes from it?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import cases, check_gradients
from gpt_numpy.study.bugs import BUGS, plant

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

# %% [markdown]
# ## By hand: one query, two keys
#
# One head of width 1, so √d = 1. The query at place 1 is q = 1, the keys are 0 and log 3, the
# values 2 and 6. Scores 0 and log 3; weights 1/(1 + 3) = ¼ and ¾; out = ¼·2 + ¾·6 = 5.
#
# With dout = 1:  dv = (¼, ¾).  dP = dout · v = (2, 6).  Then softmax's backward, dS = P ∘ (dP − Σ
# P∘dP) = (¼ (2 − 5), ¾ (6 − 5)) = (−¾, ¾): it sums to 0, since adding a constant to all scores
# changes nothing.  dq = Σ dS · k = ¾ log 3;  dk = dS · q = (−¾, ¾).


# %%
def column(*values):
    return np.array(values, dtype=float).reshape(1, -1, 1, 1)  # (B, T, n_head, head_size)


q, k, v = column(0.5, 1), column(0, np.log(3)), column(2, 6)
out, cache = layers.attention_forward(q, k, v)
assert np.allclose(out.ravel(), [2, 5])  # place 0 sees only itself: weight 1, out = v₀
dq, dk, dv = layers.attention_backward(column(0, 1), cache)
print(dq.ravel(), dk.ravel(), dv.ravel())
assert np.allclose(dv.ravel(), [0.25, 0.75])
assert np.allclose(dq.ravel(), [0, 0.75 * np.log(3)])
assert np.allclose(dk.ravel(), [-0.75, 0.75])

# %% [markdown]
# For place 0 nothing can change: with one key the weight is 1 whatever the score, so dq₀ = 0 and
# its part of dk₀ = 0.
#
# ## Derive
#
#     out = P v          dP = dout · vᵀ,   dv = Pᵀ · dout
#     P = softmax(S)     dS = P ∘ (dP − rowsum(dP ∘ P))
#     S = s · q kᵀ       dq = s · dS · k,   dk = s · dSᵀ · q        s = 1/√d
#
# The middle line: ∂p_i/∂s_j = p_i (δ_ij − p_j), so ds_j = Σ_i dp_i p_i (δ_ij − p_j) = p_j (dp_j −
# Σ_i dp_i p_i).

# %%
rng = np.random.default_rng(0)
T, d = 5, 4
q, k, v, dout = rng.normal(size=(4, 1, T, 1, d))
_, cache = layers.attention_forward(q, k, v)
Q, K, V, D = (a[0, :, 0] for a in (q, k, v, dout))
s = 1 / np.sqrt(d)
S = np.where(np.tri(T, dtype=bool), s * Q @ K.T, -np.inf)
P = np.exp(S - S.max(axis=-1, keepdims=True))
P /= P.sum(axis=-1, keepdims=True)
dP = D @ V.T
dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
by_hand = s * dS @ K, s * dS.T @ Q, P.T @ D
for mine, theirs in zip(by_hand, layers.attention_backward(dout, cache)):
    assert np.allclose(mine, theirs[0, :, 0])
assert np.abs(dS.sum(axis=-1)).max() < 1e-15 and (dS[np.triu_indices(T, 1)] == 0).all()

if plt:
    figure, axes = plt.subplots(1, 2, figsize=(7, 3))
    for ax, (title, matrix) in zip(axes, {"weights P": P, "gradient of the scores dS": dS}.items()):
        limit = np.abs(matrix).max()
        ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(title=title, xlabel="key", ylabel="query")
    plt.show()

# %% [markdown]
# ## Check, with everything at once
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
# Let every query see one key too many, in the forward and the backward alike. Differences agree: it
# is the right gradient of the wrong function. What finds it is a statement about the function
# itself, that ∂out_t/∂x_{>t} is exactly 0.

# %%
broken, _ = plant(BUGS["attention-mask-leaks-one-key"])
assert check_gradients(broken.attention_forward, broken.attention_backward, dict(q=q, k=k, v=v)).passed
case = next(c for c in cases.layer_cases(broken) if c.name == "attention")
print(cases.check_case(case).violations)
assert cases.check_case(case).failed_checks() == ["visibility"]

# %% [markdown]
# ## Exercise
#
# Why 1/√d? Take q and k with independent entries of variance 1. (Answer: q·k is a sum of d products
# of variance 1 each, so its variance is d; the factor makes it 1. Without it, for d = 64 the scores
# have standard deviation 8, the softmax is nearly one-hot, P ∘ (dP − …) nearly 0, and queries and
# keys hardly learn.)

# %%
q, k = rng.normal(size=(2, 1000, 64))
products = q @ k.T
print(f"standard deviation {products.std():.2f}, scaled {(products / 8).std():.2f}")
assert abs((products / 8).std() - 1) < 0.05
for case in cases.layer_cases(layers, seed=1):
    if case.layer in ("attention", "multi-head"):
        assert cases.check_case(case).passed
print("lesson 8 holds")
