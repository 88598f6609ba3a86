# %% [markdown]
# # 8. Attention, third of three: many heads and their projections
#
# Queries, keys and values are not given: each is a linear layer of the same x. One product with a
# (C, 3C) matrix makes all three. Each third is cut into heads, every head attends on its own, and the
# heads' outputs, side by side again, go through one more linear layer.
#
#     [q k v] = x · W + b,   W = [Wq Wk Wv],   b = [bq bk bv]
#     head_h = attention(q_h, k_h, v_h)
#     out = [head_1 … head_H] · Wo + bo
#
# **Symbols.** B: sequences; T: positions; C: channels; H: number of heads; d = C/H: width of a head; h:
# a head; x: the input, (B, T, C); W, b: weight and bias of the three projections, whose thirds are Wq,
# Wk, Wv and bq, bk, bv; q, k, v: queries, keys, values, (B, T, C) each; q_h: the d columns of q that
# belong to head h; Wo, bo: weight and bias of the output projection; heads: the heads' outputs side by
# side; out: the output; dq, dk, dv, dx, dW and so on: the loss's gradients.
#
# **Predict.** x is used three times: for q, for k and for v. How many terms has dx?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import cases
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import graph, grid, show

B, T, H, d = 2, 5, 3, 4
C = H * d
rng = np.random.default_rng(0)
x, dout = rng.normal(size=(2, B, T, C))
W, b = rng.normal(size=(C, 3 * C)) / np.sqrt(C), rng.normal(size=3 * C)
Wo, bo = rng.normal(size=(C, C)) / np.sqrt(C), rng.normal(size=C)

# %% [markdown]
# ## Splitting and merging heads
#
# Columns 0 … C−1 of x · W + b are q, the next C are k, the last C are v. Head h owns the columns h·d …
# h·d + d − 1 of each third. Splitting is a reshape: (B, T, 3C) → (B, T, 3, H, d). Merging is the
# reshape (B, T, H, d) → (B, T, C). No number moves.

# %%
columns = [(f"{n}{h}", h) for n in "qkv" for h in range(H) for _ in range(2)]
of_head_1 = [(name, head if head == 1 else -1) for name, head in columns]
picture = grid(
    {"x·W + b": columns, "head 1 reads": of_head_1}, "Three thirds, three heads each (two columns drawn a head)"
)
show(picture)
qkv = x @ W + b
q, k, v = (qkv[..., i * C : (i + 1) * C].reshape(B, T, H, d) for i in range(3))
assert all(np.array_equal(mine, theirs) for mine, theirs in zip((q, k, v), layers.attention.split_heads(qkv, H)))
assert np.array_equal(q[0, 2, 1], qkv[0, 2, d : 2 * d])

# %% [markdown]
# ## By hand: a single position
#
# With T = 1 every weight is 1, so each head's output is its value, and out = v · Wo + bo. Then dv =
# dout · Woᵀ, while dq = dk = 0, and dx = dv · Wvᵀ.

# %%
one, cache = layers.multi_head_attention_forward(x[:, :1], W, b, Wo, bo, H)
assert np.allclose(one, v[:, :1].reshape(B, 1, C) @ Wo + bo)
dx_one = layers.multi_head_attention_backward(dout[:, :1], cache)[0]
assert np.allclose(dx_one, dout[:, :1] @ Wo.T @ W[:, 2 * C :].T)
print("one position: dx = dout · Woᵀ · Wvᵀ")

# %% [markdown]
# ## Derive
#
# From the last line to the first. Merging heads is a reshape, and its backward is the reshape back.
#
#     dheads = dout · Woᵀ
#     dWo = headsᵀ · dout
#     dbo = sum of the rows of dout
#     dq_h, dk_h, dv_h = attention's backward (second part of this lesson), a head at a time
#     dW = [xᵀ·dq  xᵀ·dk  xᵀ·dv]
#     db = [sums of the rows of dq, of dk, of dv]
#     dx = dq · Wqᵀ + dk · Wkᵀ + dv · Wvᵀ
#
# (heads: the heads' outputs side by side, all positions as rows.) The three terms of dx are one
# product, [dq dk dv] · Wᵀ, when the three gradients are laid side by side.

# %%
heads, attention_cache = layers.attention_forward(q, k, v)
heads = heads.reshape(B, T, C)
dheads = dout @ Wo.T
dq, dk, dv = (g.reshape(B, T, C) for g in layers.attention_backward(dheads.reshape(B, T, H, d), attention_cache))
Wq, Wk, Wv = np.split(W, 3, axis=1)
dx = dq @ Wq.T + dk @ Wk.T + dv @ Wv.T


def rows(a):
    return a.reshape(-1, a.shape[-1])


dW = np.concatenate([rows(x).T @ rows(g) for g in (dq, dk, dv)], axis=1)
db = np.concatenate([rows(g).sum(axis=0) for g in (dq, dk, dv)])
dWo, dbo = rows(heads).T @ rows(dout), rows(dout).sum(axis=0)
out, cache = layers.multi_head_attention_forward(x, W, b, Wo, bo, H)
for mine, theirs in zip((dx, dW, db, dWo, dbo), layers.multi_head_attention_backward(dout, cache)):
    assert np.allclose(mine, theirs, rtol=1e-11)
assert np.allclose(dx, np.concatenate([dq, dk, dv], axis=-1) @ W.T)
show(
    graph(
        {
            "x": (0, 1, "(B, T, C)", "dx: 3 terms"),
            "q": (1, 0, "(B, T, H, d)"),
            "k": (1, 1, "(B, T, H, d)"),
            "v": (1, 2, "(B, T, H, d)"),
            "heads": (2, 1, "(B, T, C)"),
            "out": (3, 1, "(B, T, C)"),
        },
        [
            *[("x", "q", "Wq"), ("x", "k", "Wk"), ("x", "v", "Wv")],
            *[(n, "heads") for n in "qkv"],
            ("heads", "out", "Wo"),
        ],
        "Multi-head attention: x is used three times",
    )
)

# %% [answer]
# **Answer:** three: dx = dq · Wqᵀ + dk · Wkᵀ + dv · Wvᵀ. If a value is used several times, its
# gradient is the sum over its uses.

# %% [markdown]
# ## Check

# %%
for case in cases.layer_cases(layers):
    if case.layer == "multi-head":
        report = cases.check_case(case)
        print(f"{case.name:30} {report.checked} comparisons, worst {max(t.error for t in report.tensors):.0e}")
        assert report.passed

# %% [markdown]
# ## Break it
#
# Lay the three gradients side by side in the wrong order, dk before dq. All shapes agree.

# %%
broken, _ = plant(BUGS["multi-head-thirds-exchanged"])
case = next(c for c in cases.layer_cases(broken) if c.name == "multi-head")
print(cases.check_case(case).failed_checks())
assert "differences of attn_weight" in cases.check_case(case).failed_checks()

# %% [markdown]
# ## Exercise
#
# The gradient of bk, the key bias, is 0 whatever the data. Why? (Then write the backward: `gpt-numpy
# study exercise multi-head`, and all heads at once with masks and dropout: `attention`.)

# %% [answer]
# **Answer:** adding the same vector bk to all keys adds the same number q·bk to all scores of a query,
# and softmax does not change when one number is added to a whole row. GPT-2 has these parameters
# nevertheless.

# %% [proof]
assert np.abs(db[C : 2 * C]).max() < 1e-12 < np.abs(db[:C]).max()
for case in cases.layer_cases(layers, seed=1):
    if case.layer == "multi-head":
        assert cases.check_case(case).passed
print("lesson 8 holds")
