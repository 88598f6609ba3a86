# %% [markdown]
# # 4. The chain rule, once and for all: the linear layer
#
# Training needs the gradient of the loss with respect to every parameter. Nobody writes that formula
# down for a whole model. Instead every layer answers one question: *given the gradient of the loss with
# respect to my output, what is it with respect to my inputs?* `dout` stands for ∂loss/∂out, has the
# shape of `out`, and is handed from layer to layer, last to first.
#
# **Symbols.** x: the input, one row for each position of each sequence; W: the weight; b: the bias;
# out: the output; L: the loss; r: a row of x and out; k: a column of x and a row of W; n: a column of
# W and out; Σ: a sum over the index below it; h: a small step; dout, dx, dW, db: ∂L/∂out and so on.
#
# **Predict.** For out = x · W + b with x (rows, 3) and W (3, 2): what shapes do dx, dW and db have?
# Which products of dout (rows, 2), x and W give these shapes at all?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import graph, show

x = np.array([[1.0, 2.0, 3.0]])
W = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
b = np.array([0.5, -0.5])
out, cache = layers.linear_forward(x, W, b)
print("out =", out)

# %% [answer]
# **Answer:** each gradient has the shape of what it belongs to: dx (rows, 3), dW (3, 2), db (2,).
# dout · Wᵀ is the only product that is (rows, 3), xᵀ · dout the only one that is (3, 2), and summing
# the rows of dout gives (2,).

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
# If a value is used several times, its gradient is the sum over its uses: that is all of the
# multivariate chain rule. x_rk is used in every entry of row r of out, W_kn in column n of every row,
# b_n likewise:
#
#     out_rn = Σ_k x_rk · W_kn + b_n
#
#     ∂L/∂x_rk = Σ_n dout_rn · ∂out_rn/∂x_rk = Σ_n dout_rn · W_kn   dx = dout · Wᵀ
#     ∂L/∂W_kn = Σ_r dout_rn · ∂out_rn/∂W_kn = Σ_r dout_rn · x_rk   dW = xᵀ · dout
#     ∂L/∂b_n  = Σ_r dout_rn · ∂out_rn/∂b_n  = Σ_r dout_rn          db = sum of rows

# %%
rng = np.random.default_rng(0)
x, W, b, dout = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(5, 4))
_, cache = layers.linear_forward(x, W, b)
for by_hand, found in zip((dout @ W.T, x.T @ dout, dout.sum(axis=0)), layers.linear_backward(dout, cache)):
    assert np.allclose(by_hand, found)
by_index = np.zeros_like(W)
for r, k, n in np.ndindex(5, 3, 4):
    by_index[k, n] += dout[r, n] * x[r, k]
assert np.allclose(by_index, x.T @ dout)
show(
    graph(
        {
            "x": (0, 0, "(rows, K)", "dx = dout·Wᵀ"),
            "W": (0, 1, "(K, N)", "dW = xᵀ·dout"),
            "b": (0, 2, "(N,)", "db = Σ rows"),
            "out": (2, 1, "(rows, N)", "dout given"),
        },
        [("x", "out"), ("W", "out"), ("b", "out")],
        "The linear layer: each input with its shape and its gradient",
    )
)

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
# A natural mistake: averaging dout over the rows where the bias's gradient is their sum. With a batch
# of one row it would never show.

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
# A check with dout = 1 everywhere is common. Find a wrong backward that passes it. (And write the
# backward yourself: `gpt-numpy study exercise linear`.)

# %% [answer]
# **Answer:** for example a backward that permutes the columns of dout. Columns of ones are all
# alike; random ones are not.


# %% [proof]
def permuting(dout, cache):
    return layers.linear_backward(dout[:, ::-1], cache)


_, cache = layers.linear_forward(x, W, b)
ones = np.ones_like(dout)
assert all(np.array_equal(a, c) for a, c in zip(permuting(ones, cache), layers.linear_backward(ones, cache)))
assert not check_gradients(layers.linear_forward, permuting, inputs).passed
assert check_gradients(layers.linear_forward, layers.linear_backward, inputs, seed=1).passed
print("lesson 4 holds")
