# %% [markdown]
# # 7. A layer whose outputs all depend on all its inputs: layernorm
#
#     xhat = (x − mean) / √(variance + ε),   out = xhat · weight + bias
#
# Mean and variance are taken over the channels of one place, so every output of a row depends on
# every input of it.
#
# **Predict.** Add 5 to every entry of a row: how does out change? Double the row: how (for ε = 0)?
# What does that say about the directions in which the gradient can point?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant

x = np.array([[1.0, 2.0, 3.0]])
ones, zeros = np.ones(3), np.zeros(3)
out, cache = layers.layernorm_forward(x, ones, zeros, epsilon=0.0)
print(out)
assert np.allclose(layers.layernorm_forward(x + 5, ones, zeros, epsilon=0.0)[0], out)
assert np.allclose(layers.layernorm_forward(2 * x, ones, zeros, epsilon=0.0)[0], out)

# %% [markdown]
# ## By hand, on three numbers
#
# (1, 2, 3) has mean 2 and variance (1 + 0 + 1)/3 = ⅔, so r = 1/√⅔ = √1.5 = 1.224745 and xhat = (−r,
# 0, r).
#
# Let dout = (1, 0, 0): the loss is simply xhat₁. From the formula below with mean(dxhat) = ⅓ and
# mean(dxhat ∘ xhat) = −r/3:
#
#     dx₁ = r (1 − ⅓ − (−r)(−r/3)) = r (⅔ − r²/3) = r (⅔ − ½) = r/6  =  0.204124
#     dx₂ = r (0 − ⅓ − 0)                                 = −r/3 = −0.408248
#     dx₃ = r (0 − ⅓ − r·(−r/3))   = r (−⅓ + ½)           = r/6  =  0.204124

# %%
dx, _, _ = layers.layernorm_backward(np.array([[1.0, 0.0, 0.0]]), cache)
print(dx)
r = np.sqrt(1.5)
assert np.allclose(dx, [[r / 6, -r / 3, r / 6]])

# %% [markdown]
# Sum it: 0, since a shift changes nothing. Multiply it by xhat and sum: (−r·r/6 + 0 + r·r/6) = 0,
# since a stretch changes nothing. A layernorm's gradient has no part along either direction.
#
# ## Derive, step by step
#
# Take the forward apart and go back through it, one operation a line. A name that was used twice
# gets two terms.
#
#     m = mean(x)                      dc  = dxhat · r + (2/C) · c · dv
#     c = x − m                        dm  = −Σ dc
#     v = mean(c²)                     dv  = −½ r³ · dr
#     r = (v + ε)^(−½)                 dr  = Σ dxhat ∘ c
#     xhat = c · r                     dx  = dc + dm / C

# %%
rng = np.random.default_rng(0)
C = 6
x, weight, bias, dout = rng.normal(size=(4, C)), rng.normal(size=C), rng.normal(size=C), rng.normal(size=(4, C))
epsilon = 1e-5


def mean(a):
    return a.mean(axis=-1, keepdims=True)


def row_sum(a):
    return a.sum(axis=-1, keepdims=True)


c = x - mean(x)
r = (mean(c * c) + epsilon) ** -0.5
xhat = c * r
dxhat = dout * weight
dr = row_sum(dxhat * c)
dv = -0.5 * r**3 * dr
dc = dxhat * r + (2 / C) * c * dv
dm = -row_sum(dc)
the_long_way = dc + dm / C

# %% [markdown]
# Substitute everything into one line and simplify (Σ c = 0 makes the variance's part of dm vanish,
# c · r is xhat):
#
#     dx = r · (dxhat − mean(dxhat) − xhat · mean(dxhat ∘ xhat))

# %%
the_short_way = r * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
_, cache = layers.layernorm_forward(x, weight, bias, epsilon)
dx, dweight, dbias = layers.layernorm_backward(dout, cache)
assert np.allclose(the_long_way, the_short_way) and np.allclose(dx, the_short_way)
assert np.allclose(dweight, (dout * xhat).sum(axis=0)) and np.allclose(dbias, dout.sum(axis=0))

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
# Forget that the mean depends on x. The result still looks like a gradient; its row sums give it
# away.

# %%
broken, _ = plant(BUGS["layernorm-mean-term-forgotten"])
_, cache = broken.layernorm_forward(x, weight, bias)
print("row sums", broken.layernorm_backward(dout, cache)[0].sum(axis=-1))
assert not check_gradients(broken.layernorm_forward, broken.layernorm_backward, inputs).passed

# %% [markdown]
# ## Exercise
#
# A fresh model has weight = 1 and bias = 0 everywhere. Which bug would a check of the fresh model
# never find? (Answer: one that forgets `weight` in dxhat = dout · weight. A check needs parameters
# that are not neutral.)

# %%
broken, _ = plant(BUGS["layernorm-weight-forgotten"])
neutral = dict(x=x, weight=np.ones(C), bias=np.zeros(C))
assert check_gradients(broken.layernorm_forward, broken.layernorm_backward, neutral).passed
assert not check_gradients(broken.layernorm_forward, broken.layernorm_backward, inputs).passed
assert check_gradients(layers.layernorm_forward, layers.layernorm_backward, inputs, seed=1).passed
print("lesson 7 holds")
