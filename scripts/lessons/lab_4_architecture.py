# %% [markdown]
# # Lab 4. Change the architecture, derive its backward, prove it
#
# Newer models differ from GPT-2 in small parts. Two of them are changed here: GELU becomes the squared ReLU
# (So et al. 2021, "Primer"), and layernorm becomes RMSNorm (Zhang and Sennrich 2019). For each: write the
# forward, derive the backward, check it alone, put it into the model, and check the gradient of every
# parameter. `with_functions` gives the package's layers with some of them replaced by yours; `GPT(config,
# ops=…)` computes with them.
#
# **Symbols.** x: the input, a row of numbers; C: how many they are; f: the activation; h: the hidden
# layer of the MLP; w: the weight of the norm; b: its bias; ε: a small constant; r: (mean(x²) + ε)^(−½);
# xhat: x · r; dout, dx, dxhat, dr: the loss's gradients; mean: over the C numbers of a row; Σ: their
# sum; ∘: entry by entry.
#
# ## First change: f(x) = max(x, 0)²
#
# **Predict.** What is f'? f is 0 on the left and grows like x² on the right: does f' jump at 0, as the
# derivative of max(x, 0) does?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import check_gradients, check_model, labs, with_functions
from gpt_numpy.study.drawing import curves, graph, show

rng = np.random.default_rng(0)

# %% [answer]
# **Answer:** f'(x) = 2 · max(x, 0). It is 0 at 0 from both sides, so it does not jump: differences across
# 0 agree with it, which they would not for max(x, 0).


# %%
def relu_squared_forward(x):
    return np.maximum(x, 0) ** 2, x


def relu_squared_backward(dout, x):
    return dout * 2 * np.maximum(x, 0)


at_zero = np.array([-1.0, 0.0, 1.0])
assert check_gradients(relu_squared_forward, relu_squared_backward, {"x": at_zero}).passed
grid = np.linspace(-2, 2, 101)
two = {"gelu": layers.gelu_forward(grid)[0], "squared ReLU": relu_squared_forward(grid)[0]}
show(curves({name: (grid, y) for name, y in two.items()}, "Two activations", x="x"))

# %% [markdown]
# The MLP is a chain of three layers, so its backward is the three backwards in reverse (lesson 5). The model hands
# over more than is needed here: `into`, which `with_functions` takes care of, `alloc`, which saves memory,
# and the name of GPT-2's activation, both of which may be ignored.


# %%
def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, *options):
    hidden, fc = layers.linear_forward(x, fc_weight, fc_bias)
    activation, kept = relu_squared_forward(hidden)
    out, proj = layers.linear_forward(activation, proj_weight, proj_bias)
    return out, (fc, kept, proj)


def mlp_backward(dout, cache, alloc=None):
    fc, kept, proj = cache
    dactivation, dproj_weight, dproj_bias = layers.linear_backward(dout, proj)
    dhidden = relu_squared_backward(dactivation, kept)
    dx, dfc_weight, dfc_bias = layers.linear_backward(dhidden, fc)
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias


primer = with_functions(mlp_forward=mlp_forward, mlp_backward=mlp_backward)
report = check_model(primer, max_entries=30, n_directions=6)
print(f"every parameter of a model of two blocks: {report.checked} entries and directions, all passed: {report.passed}")
assert report.passed

# %% [markdown]
# ## Second change: RMSNorm
#
# It leaves out the mean. What was "shift and scale" becomes "scale":
#
#     r = (mean(x²) + ε)^(−½)
#     xhat = x · r
#     out = xhat ∘ w + b
#
# (RMSNorm has no bias. The model's table of parameters has one, so b stays, and starts at 0.)

# %%
show(
    graph(
        {"x": (0, 0, "(…, C)"), "r": (1, 1, "(…, 1)"), "xhat": (2, 0, "(…, C)"), "out": (3, 0, "(…, C)")},
        [("x", "r", "mean of x²"), ("x", "xhat"), ("r", "xhat", "·"), ("xhat", "out", "· w + b")],
        "RMSNorm: x is used twice",
    )
)


def rmsnorm_forward(x, weight, bias, epsilon=1e-5, alloc=None):
    r = (np.mean(x * x, axis=-1, keepdims=True) + epsilon) ** -0.5
    return x * r * weight + bias, (x, r, weight)


# %% [markdown]
# **Predict.** Layernorm's backward is dx = r · (dxhat − mean(dxhat) − xhat ∘ mean(dxhat ∘ xhat)) (lesson 7).
# Which of the three terms are left? Derive it: x is used in xhat and in r. Then write `rmsnorm_backward`, and
# only then open the answer.

# %% [answer]
# **Answer:** go back from the last line. dxhat = dout ∘ w. xhat = x · r gives dr = Σ dxhat ∘ x, and the first
# part of dx, r · dxhat. r = (mean(x²) + ε)^(−½) gives d mean(x²) = −½ r³ · dr, and x² in the mean the second
# part, (2/C) · x · (−½ r³) · dr = −r · xhat · mean(dxhat ∘ xhat). Together
#
#     dx = r · (dxhat − xhat · mean(dxhat ∘ xhat))
#
# The term of the mean is gone, because the mean is not subtracted.


# %% [proof]
def rmsnorm_backward(dout, cache, alloc=None):
    x, r, weight = cache
    xhat, dxhat = x * r, dout * weight
    rows = tuple(range(x.ndim - 1))
    dx = r * (dxhat - xhat * np.mean(dxhat * xhat, axis=-1, keepdims=True))
    return dx, (dout * xhat).sum(axis=rows), dout.sum(axis=rows)


# %% [markdown]
# ## By hand, on two numbers
#
# x = (3, 4) with ε = 0 and w = 1: mean(x²) = 12.5, r = 0.2828, xhat = (0.8485, 1.1314). With dout = (1, 0):
# mean(dxhat ∘ xhat) = 0.8485/2 = 0.4243, so dx = r · (1 − 0.36, 0 − 0.48) = (0.1810, −0.1358).

# %%
out, cache = rmsnorm_forward(np.array([[3.0, 4.0]]), np.ones(2), np.zeros(2), epsilon=0.0)
dx, *_ = rmsnorm_backward(np.array([[1.0, 0.0]]), cache)
print("dx =", dx)
assert np.allclose(dx, [[0.1810, -0.1358]], atol=1e-4)
assert abs((dx * [3.0, 4.0]).sum()) < 1e-15  # no component along the row itself: scaling changes nothing

# %% [markdown]
# ## Prove it: alone, then in the model

# %%
inputs = dict(x=rng.normal(size=(3, 5)), weight=rng.normal(size=5), bias=rng.normal(size=5))
report = check_gradients(rmsnorm_forward, rmsnorm_backward, inputs)
print(report)
assert report.passed
both = with_functions(
    mlp_forward=mlp_forward,
    mlp_backward=mlp_backward,
    layernorm_forward=rmsnorm_forward,
    layernorm_backward=rmsnorm_backward,
)
report = check_model(both, max_entries=30, n_directions=6)
print(f"both changes in the model: {report.checked} entries and directions, all passed: {report.passed}")
assert report.passed

# %% [markdown]
# ## Break it
#
# Layernorm's own backward, on RMSNorm's forward: one term too many. The check says where.


# %%
def with_the_mean_term(dout, cache):
    dx, dweight, dbias = rmsnorm_backward(dout, cache)
    x, r, weight = cache
    return dx - r * np.mean(dout * weight, axis=-1, keepdims=True), dweight, dbias


broken = check_gradients(rmsnorm_forward, with_the_mean_term, inputs)
print("failed:", broken.failed_checks())
assert broken.failed_checks() == ["differences of x"]

# %% [markdown]
# ## Train it
#
# Right gradients are no proof that a change is an improvement. Only a run tells, and one run of a toy model
# tells little.

# %%
trained = {"GPT-2": labs.train(60), "both changes": labs.train(60, ops=both)}
show(curves({name: (range(60), run.losses) for name, run in trained.items()}, "Loss", x="step", y="loss"))
assert all(run.losses[-1] < 0.6 * run.losses[0] for run in trained.values())

# %% [markdown]
# ## Exercise
#
# A gated activation: out = (x · W₁) ∘ sigmoid(x · W₂), with sigmoid(u) = 1/(1 + exp(−u)) (W₁, W₂:
# weights of one shape; u: any number; a, s: the two factors of out). Derive dx, and check it. How many
# terms has it?

# %% [answer]
# **Answer:** two, since x is used twice. With a = x · W₁ and s = sigmoid(x · W₂): da = dout ∘ s, and sigmoid' =
# s ∘ (1 − s), so du = dout ∘ a ∘ s ∘ (1 − s); dx = da · W₁ᵀ + du · W₂ᵀ.


# %% [proof]
def gated_forward(x, first, second):
    a, s = x @ first, 1 / (1 + np.exp(-(x @ second)))
    return a * s, (x, first, second, a, s)


def gated_backward(dout, cache):
    x, first, second, a, s = cache
    da, du = dout * s, dout * a * s * (1 - s)
    return da @ first.T + du @ second.T, x.T @ da, x.T @ du


inputs = dict(x=rng.normal(size=(4, 3)), first=rng.normal(size=(3, 5)), second=rng.normal(size=(3, 5)))
assert check_gradients(gated_forward, gated_backward, inputs).passed
small = GPT(GPTConfig(11, 7, n_layer=1, n_head=3, n_embd=12), dtype=np.float64, ops=both)
assert np.isfinite(small.loss(np.array([[1, 2, 3]]), np.array([[2, 3, 4]])))
print("lab 4 holds")
