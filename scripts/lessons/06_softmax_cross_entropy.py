# %% [markdown]
# # 6. Where the backward pass begins: softmax and cross-entropy
#
# The model ends in logits, one number for each token of the vocabulary. Softmax makes them
# probabilities, the loss is −log of the probability of what really came.
#
# **Symbols.** x: the logits of one position; i, j: tokens; y: the target, the token that really came;
# p: the probabilities, p_i = exp(x_i) / Σ_j exp(x_j); δ_iy: 1 if i = y, else 0; N: number of positions
# that count; m: any constant; ε: AdamW's small constant; loss: −log p_y; Σ_j: the sum over all tokens j.
#
# **Predict.** The gradient of the loss with respect to the logits of one position sums to what? Is
# it ever 0?

# %%
import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import bars, show

logits = np.log(np.array([[1.0, 2.0, 5.0]]))
target = np.array([1])
loss, cache = layers.cross_entropy_forward(logits, target)
print(f"loss {loss:.6f}")

# %% [markdown]
# ## Derive
#
#     loss = −log(exp(x_y) / Σ_j exp(x_j)) = log Σ_j exp(x_j) − x_y
#     ∂loss/∂x_i = exp(x_i) / Σ_j exp(x_j) − δ_iy = p_i − δ_iy
#
# The two awkward steps, exp and log, cancel: no division by a probability that may be 0 is left.
# No entry exceeds 1 in magnitude.

# %% [answer]
# **Answer:** Σ_i (p_i − δ_iy) = 1 − 1 = 0: a step against the gradient raises the target's logit by as
# much as it lowers all others together. The gradient is 0 only if p_y = 1.

# %% [markdown]
# ## By hand, on three numbers
#
# exp of the logits is 1, 2, 5; their sum 8; the probabilities ⅛, ¼, ⅝. The target is token 1, so
# the loss is −log ¼ = 1.386294, and the gradient is the probabilities with 1 subtracted at the
# target: (⅛, ¼ − 1, ⅝) = (0.125, −0.75, 0.625).

# %%
dlogits = layers.cross_entropy_backward(1.0, cache)
print(dlogits)
assert np.isclose(loss, np.log(4)) and np.allclose(dlogits, [[0.125, -0.75, 0.625]])
show(bars({"p of token 0": 1 / 8, "p of the target": 1 / 4, "p of token 2": 5 / 8}, "The probabilities of the example"))

# %% [markdown]
# ## A mean over positions
#
# The loss of a batch is the mean over N positions, so each position's gradient is divided by N.
# Positions with ignored targets are not counted in N; their gradient is 0.

# %%
rng = np.random.default_rng(0)
logits = 2 * rng.normal(size=(2, 5, 11))
targets = rng.integers(0, 11, (2, 5))
targets[0, 3] = -1
_, cache = layers.cross_entropy_forward(logits, targets)
dlogits = layers.cross_entropy_backward(1.0, cache)
p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
by_hand = (p - np.eye(11)[targets]) / 9
by_hand[0, 3] = 0
assert np.allclose(dlogits, by_hand) and np.abs(dlogits.sum(axis=-1)).max() < 1e-15

# %% [markdown]
# ## Check

# %%
inputs = dict(logits=logits, targets=targets)
report = check_gradients(layers.cross_entropy_forward, layers.cross_entropy_backward, inputs)
print(f"{report.checked} entries, error {report.tensors[0].error:.1e}")
assert report.passed

# %% [markdown]
# ## Break it
#
# Divide by all ten positions instead of the nine that count. Every entry is wrong by the same factor
# 9/10. With plain gradient descent this changes the step: the learning rate would depend on how many
# targets are ignored. AdamW divides by the size of the gradient, so that a constant factor has no
# effect there (ε aside); only gradient clipping and the printed norm would show it.

# %%
broken, _ = plant(BUGS["cross-entropy-mean-over-ignored-rows"])
wrong = check_gradients(broken.cross_entropy_forward, broken.cross_entropy_backward, inputs)
ratio = wrong.tensors[0].analytic / wrong.tensors[0].numeric
print(f"analytic / numeric = {ratio:.6f}")
assert not wrong.passed and abs(ratio - 0.9) < 1e-6

# %% [markdown]
# ## Exercise
#
# exp(1000) overflows. Why may the largest logit be subtracted from all of them first, and what does
# the gradient say about that? (And write the backward: `gpt-numpy study exercise cross-entropy`.)

# %% [answer]
# **Answer:** log Σ exp(x − m) = log Σ exp(x) − m, and x_y − m subtracts the same m, so the loss is
# unchanged. A function that does not change when a constant is added to all its inputs has a
# gradient that sums to 0: the two statements are one.

# %% [proof]
with np.errstate(over="raise"):
    shifted, _ = layers.cross_entropy_forward(logits + 1000, targets)
assert np.isclose(shifted, layers.cross_entropy_forward(logits, targets)[0])
assert check_gradients(layers.cross_entropy_forward, layers.cross_entropy_backward, inputs, seed=1).passed
print("lesson 6 holds")
