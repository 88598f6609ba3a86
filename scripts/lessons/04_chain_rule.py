# %% [markdown]
# # 4. The chain rule, once and for all: the linear layer
#
# Training needs ∂loss/∂p for every parameter p. Nobody writes that formula down for a whole model.
# Instead every layer answers one question: *given the gradient of the loss with respect to my
# output, what is it with respect to my inputs?* `dout` stands for ∂loss/∂out, has the shape of
# `out`, and is handed from layer to layer, last to first.
#
# **Predict.** For out = x · W + b with x (rows, 3) and W (3, 2): what shapes do dx, dW and db have?
# Which products of dout (rows, 2), x and W give these shapes at all?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant

x = np.array([[1.0, 2.0, 3.0]])
W = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
b = np.array([0.5, -0.5])
out, cache = layers.linear_forward(x, W, b)
print(out)

# %% [markdown]
# ## By hand, on three numbers
#
# out₁ = 1·1 + 2·0 + 3·2 + 0.5 = 7.5 and out₂ = 0 + 2 − 3 − 0.5 = −1.5. Suppose the loss likes out₁
# smaller and out₂ larger: dout = (1, −2).
#
# - x₁ enters out₁ with factor 1 and out₂ with factor 0, so dx₁ = 1·1 + (−2)·0 = 1.
# - x₂: dx₂ = 1·0 + (−2)·1 = −2.
# - x₃: dx₃ = 1·2 + (−2)·(−1) = 4.
# - W₃₁ multiplies x₃ = 3 in out₁, so dW₃₁ = 1·3 = 3; W₃₂ likewise −2·3 = −6.
# - b₁ is simply added: db = (1, −2).

# %%
dout = np.array([[1.0, -2.0]])
dx, dW, db = layers.linear_backward(dout, cache)
print(dx, dW, db, sep="\n")
assert np.array_equal(dx, [[1, -2, 4]])
assert np.array_equal(dW, [[1, -2], [2, -4], [3, -6]])
assert np.array_equal(db, [1, -2])

# %% [markdown]
# ## Derive
#
# A quantity that is used several times collects one term from each use; that is all of the
# multivariate chain rule.
#
#     out_rn = Σ_k x_rk W_kn + b_n
#     dx_rk  = Σ_n dout_rn W_kn        dx = dout · Wᵀ
#     dW_kn  = Σ_r x_rk dout_rn        dW = xᵀ · dout      a weight is used by every row
#     db_n   = Σ_r dout_rn             db = column sums

# %%
rng = np.random.default_rng(0)
x, W, b, dout = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(5, 4))
_, cache = layers.linear_forward(x, W, b)
for by_hand, found in zip((dout @ W.T, x.T @ dout, dout.sum(axis=0)), layers.linear_backward(dout, cache)):
    assert np.allclose(by_hand, found)

# %% [markdown]
# ## Check
#
# No derivation should be believed. With a random dout, L = Σ dout · out is a plain number, and each
# entry of dx must be what (L(x + h) − L(x − h)) / 2h says. `check_gradients` does that for every
# entry of every input.

# %%
inputs = dict(x=x, weight=W, bias=b)
report = check_gradients(layers.linear_forward, layers.linear_backward, inputs)
for tensor in report.tensors:
    print(f"{tensor.tensor:7} {tensor.checked:3} entries, relative error {tensor.error:.1e}")
assert report.passed and report.checked == 15 + 12 + 4

# %% [markdown]
# ## Break it
#
# The most natural mistake: forgetting that the bias is used by every row. With a batch of one row
# it would never show.

# %%
broken, _ = plant(BUGS["linear-bias-gradient-averaged"])
wrong = check_gradients(broken.linear_forward, broken.linear_backward, inputs)
print(wrong.failed_checks(), f"{wrong.tensors[2].analytic:.4f} instead of {wrong.tensors[2].numeric:.4f}")
assert wrong.failed_checks() == ["differences of bias"]
one_row = check_gradients(broken.linear_forward, broken.linear_backward, {**inputs, "x": x[:1]})
assert one_row.passed  # a check with B = 1 is no check

# %% [markdown]
# ## Exercise
#
# Check with dout = 1 everywhere is common. Find a wrong backward that passes it. (One answer: a
# gradient that permutes the columns of dout. All-ones columns are all alike; random ones are not.)


# %%
def permuting(dout, cache):
    return layers.linear_backward(dout[:, ::-1], cache)


_, cache = layers.linear_forward(x, W, b)
ones = np.ones_like(dout)
assert all(np.array_equal(a, c) for a, c in zip(permuting(ones, cache), layers.linear_backward(ones, cache)))
assert not check_gradients(layers.linear_forward, permuting, inputs).passed
assert check_gradients(layers.linear_forward, layers.linear_backward, inputs, seed=1).passed
print("lesson 4 holds")
