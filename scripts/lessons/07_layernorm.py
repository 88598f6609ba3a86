# %% [markdown]
# # 7. A layer whose outputs all depend on all its inputs: layernorm
#
#     xhat = (x − mean) / √(variance + ε),   out = xhat · weight + bias
#
# Mean and variance are taken over the channels of one position, so every output of a row depends on
# every input of it.
#
# **Symbols.** C: number of channels; x: a row of C numbers; out: the output; weight, bias: C numbers
# each; ε: a small constant (`epsilon`) that keeps the root away from 0; m: the mean of the row; c: x −
# m; v, variance: mean(c²); r: (v + ε)^(−½); xhat: c · r; dout, dxhat, dr, dv, dc, dm, dx: the
# loss's gradients of out, xhat, r and so on; Σ: the sum over the channels of a row; mean: Σ divided by
# C; ∘: entry by entry.
#
# **Predict.** Add 5 to every entry of a row: how does out change? Double the row: how (for ε = 0)?
# What does that say about the directions in which the gradient can point?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import graph, heat, show

x = np.array([[1.0, 2.0, 3.0]])
ones, zeros = np.ones(3), np.zeros(3)
out, cache = layers.layernorm_forward(x, ones, zeros, epsilon=0.0)
print("out =", out)

# %% [answer]
# **Answer:** out does not change in either case. So the loss does not change along these two
# directions, and dx has no component along (1, …, 1), nor (for ε = 0) along the row itself.

# %% [proof]
assert np.allclose(layers.layernorm_forward(x + 5, ones, zeros, epsilon=0.0)[0], out)
assert np.allclose(layers.layernorm_forward(2 * x, ones, zeros, epsilon=0.0)[0], out)

# %% [markdown]
# ## Derive, step by step
#
# Take the forward apart, one operation a line. Then go back through it from the last line to the
# first; read the right column from the top. c is used twice (in xhat and in v), so its gradient has
# two terms. x is used twice (in c and in m), and so has dx.
#
#     forward                  backward, in the order of computation
#
#     m = mean(x)              dxhat = dout ∘ weight
#     c = x − m                dr = Σ dxhat ∘ c                  xhat = c · r
#     v = mean(c²)             dv = −½ r³ · dr                   r = (v + ε)^(−½)
#     r = (v + ε)^(−½)         dc = r · dxhat + (2/C) · c · dv   c in xhat, and c² in v
#     xhat = c · r             dm = −Σ dc                        every c has −m in it
#                              dx = dc + dm / C                  x in c, and x/C in m

# %%
show(
    graph(
        {
            "x": (0, 0, "(…, C)"),
            "m": (1, 1, "(…, 1)"),
            "c": (2, 0, "(…, C)"),
            "v": (3, 1, "(…, 1)"),
            "r": (4, 1, "(…, 1)"),
            "xhat": (5, 0, "(…, C)"),
            "out": (6, 0, "(…, C)"),
        },
        [
            *[("x", "m", "mean"), ("x", "c"), ("m", "c", "−"), ("c", "v", "mean of c²"), ("v", "r", "^(−½)")],
            *[("c", "xhat"), ("r", "xhat", "·"), ("xhat", "out", "· w + b")],
        ],
        "Layernorm taken apart: x and c are each used twice",
    )
)
rng = np.random.default_rng(0)
C = 6
x, weight, bias, dout = rng.normal(size=(4, C)), rng.normal(size=C), rng.normal(size=C), rng.normal(size=(4, C))
epsilon = 1e-5


def mean(a):
    return a.mean(axis=-1, keepdims=True)


def row_sum(a):
    return a.sum(axis=-1, keepdims=True)


c = x - mean(x)
v = mean(c * c)
r = (v + epsilon) ** -0.5
xhat = c * r
dxhat = dout * weight
dr = row_sum(dxhat * c)
dv = -0.5 * r**3 * dr
dc = r * dxhat + (2 / C) * c * dv
dm = -row_sum(dc)
the_long_way = dc + dm / C

# %% [markdown]
# Now substitute. First dv into dc, with c · r = xhat and dr = Σ dxhat ∘ c = (1/r) · Σ dxhat ∘ xhat:
#
#     (2/C) · c · dv = −(1/C) · c · r³ · dr = −r · xhat · (1/C) · Σ dxhat ∘ xhat
#     dc = r · dxhat − r · xhat · mean(dxhat ∘ xhat)
#
# Then dm. xhat sums to 0 over a row, because c does, so the second term of dc has no part in it:
#
#     Σ dc = r · Σ dxhat
#     dx = dc − mean(dc) = r · (dxhat − mean(dxhat) − xhat · mean(dxhat ∘ xhat))
#
# The weight multiplies xhat and the bias is added, in every row. If a value is used several times, its
# gradient is the sum over its uses, here over the rows. For a channel (k: a column of out),
#
#     out_k = xhat_k · weight_k + bias_k
#     dweight_k = Σ_rows dout_k · xhat_k
#     dbias_k = Σ_rows dout_k

# %%
assert np.allclose(dc, r * dxhat - r * xhat * mean(dxhat * xhat))
assert np.allclose(row_sum(dc), r * row_sum(dxhat)) and np.abs(row_sum(xhat)).max() < 1e-14
the_short_way = r * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
_, cache = layers.layernorm_forward(x, weight, bias, epsilon)
dx, dweight, dbias = layers.layernorm_backward(dout, cache)
assert np.allclose(the_long_way, dc - mean(dc)) and np.allclose(the_long_way, the_short_way)
assert np.allclose(dx, the_short_way)
assert np.allclose(dweight, (dout * xhat).sum(axis=0)) and np.allclose(dbias, dout.sum(axis=0))

# %% [markdown]
# ## By hand, on three numbers
#
# (1, 2, 3) has mean 2 and variance (1 + 0 + 1)/3 = ⅔, so with ε = 0, r = 1/√⅔ = √1.5 = 1.224745 and
# xhat = (−r, 0, r). Let weight = 1 and dout = (1, 0, 0): the loss is xhat₁. Then mean(dxhat) = ⅓,
# mean(dxhat ∘ xhat) = −r/3, and
#
#     dx₁ = r (1 − ⅓ − (−r)(−r/3)) = r (⅔ − r²/3) = r (⅔ − ½) = r/6  =  0.204124
#     dx₂ = r (0 − ⅓ − 0)                                 = −r/3 = −0.408248
#     dx₃ = r (0 − ⅓ − r·(−r/3))   = r (−⅓ + ½)           = r/6  =  0.204124

# %%
three = np.array([[1.0, 2.0, 3.0]])
_, small = layers.layernorm_forward(three, ones, zeros, epsilon=0.0)
by_hand, _, _ = layers.layernorm_backward(np.array([[1.0, 0.0, 0.0]]), small)
print("dx =", by_hand)
root = np.sqrt(1.5)
assert np.allclose(by_hand, [[root / 6, -root / 3, root / 6]])

# %% [markdown]
# ## Two directions without gradient
#
# Sum dx over the row: 0, exactly. Subtracting the two means removes the gradient's components along
# a shift and along a scaling of the row, which do not change the output (the second exactly only for
# ε = 0). For ε > 0, mean(xhat²) = v/(v + ε), which is a little less than 1, and what is left along
# xhat is
#
#     Σ dx ∘ xhat = r · Σ dxhat ∘ xhat · (1 − v/(v + ε)) = r · ε/(v + ε) · Σ dxhat ∘ xhat

# %%
jacobian = np.eye(C) - 1 / C - xhat[0][:, None] * xhat[0] / C
show(heat({"∂xhat/∂x, divided by r": jacobian}, "The Jacobian of one row: rows and columns sum to 0", "i", "j"))
assert np.abs(row_sum(dx)).max() < 1e-14
for large in (0.0, 1e-5, 0.5):
    _, cache = layers.layernorm_forward(x, weight, bias, large)
    dx_large, xhat_large = layers.layernorm_backward(dout, cache)[0], c * cache.rstd
    left = cache.rstd * large / (v + large) * row_sum(dxhat * xhat_large)
    print(f"ε = {large}: dx along xhat {row_sum(dx_large * xhat_large)[0, 0]:+.6f}, by the formula {left[0, 0]:+.6f}")
    assert np.allclose(row_sum(dx_large * xhat_large), left, atol=1e-12)

# %% [markdown]
# ## Check

# %%
inputs = dict(x=x, weight=weight, bias=bias)
report = check_gradients(layers.layernorm_forward, layers.layernorm_backward, inputs)
print([f"{t.tensor}: {t.error:.0e}" for t in report.tensors])
assert report.passed

# %% [markdown]
# ## Break it
#
# Forget that the mean depends on x. The result still looks like a gradient, but its rows do not sum
# to 0.

# %%
broken, _ = plant(BUGS["layernorm-mean-term-forgotten"])
_, cache = broken.layernorm_forward(x, weight, bias)
print("row sums", broken.layernorm_backward(dout, cache)[0].sum(axis=-1))
assert not check_gradients(broken.layernorm_forward, broken.layernorm_backward, inputs).passed

# %% [markdown]
# ## Exercise
#
# A fresh model has weight = 1 and bias = 0 everywhere. Which bug would a check of the fresh model
# never find? (Then write the whole backward from an empty page: `gpt-numpy study exercise layernorm
# --level blank`, and `--check`.)

# %% [answer]
# **Answer:** one that forgets `weight` in dxhat = dout ∘ weight. A check needs parameters that are
# not neutral.

# %% [proof]
broken, _ = plant(BUGS["layernorm-weight-forgotten"])
neutral = dict(x=x, weight=np.ones(C), bias=np.zeros(C))
assert check_gradients(broken.layernorm_forward, broken.layernorm_backward, neutral).passed
assert not check_gradients(broken.layernorm_forward, broken.layernorm_backward, inputs).passed
assert check_gradients(layers.layernorm_forward, layers.layernorm_backward, inputs, seed=1).passed
print("lesson 7 holds")
