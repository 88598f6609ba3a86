# %% [markdown]
# # 8. Attention, first of three: softmax and its Jacobian
#
# Attention takes a weighted mean whose weights are a softmax of scores. A softmax turns a row of
# scores into weights that are positive and add up to 1, so each weight depends on all scores of the
# row.
#
# **Symbols.** s: the scores of one row; p: the weights, softmax(s); i, j: positions in the row; δ_ij: 1
# if i = j, else 0; J: the Jacobian, J_ij = ∂p_i/∂s_j; ∂: a partial derivative; ∘: entry by entry; Σ_j: the sum over the
# row; dp, ds: the loss's gradients of p and s.
#
# **Predict.** Raise one score. Which weights rise, which fall, and by how much together?

# %%
import numpy as np

from gpt_numpy.layers.attention import softmax, softmax_backward
from gpt_numpy.study import check_gradients
from gpt_numpy.study.drawing import heat, show

s = np.log(np.array([1.0, 2.0, 5.0]))
p = softmax(s)
print("weights", p)
assert np.allclose(p, [1 / 8, 2 / 8, 5 / 8])

# %% [markdown]
# ## Derive
#
# Take the logarithm first: it turns the quotient into a difference, whose derivative is short.
#
#     p_i = exp(s_i) / Σ_j exp(s_j)
#     log p_i = s_i − log Σ_j exp(s_j)
#
#     ∂(log p_i)/∂s_j = δ_ij − exp(s_j) / Σ_j exp(s_j) = δ_ij − p_j
#
# On the other hand ∂(log p_i)/∂s_j = (1/p_i) · ∂p_i/∂s_j. So
#
#     J_ij = ∂p_i/∂s_j = p_i · (δ_ij − p_j)
#
# and the chain rule, for a given gradient dp of the weights,
#
#     ds_j = Σ_i dp_i · J_ij = Σ_i dp_i · p_i · (δ_ij − p_j) = p_j · (dp_j − Σ_i dp_i · p_i)
#
# The sum Σ_i dp_i · p_i is one number a row. Nobody builds J: one row sum is enough.

# %%
J = p[:, None] * (np.eye(3) - p[None, :])
h = 1e-30
changed = [np.exp(s + 1j * h * e) for e in np.eye(3)]  # one score at a time, by the complex step of lesson 5
by_complex_step = np.stack([np.imag(e / e.sum()) for e in changed], axis=1) / h
assert np.allclose(J, by_complex_step, rtol=1e-13)
show(heat({"J": J}, "Softmax's Jacobian: a score raises its own weight and lowers all others", "i", "j"))

# %% [answer]
# **Answer:** the weight of the raised score rises (J_jj = p_j (1 − p_j) > 0), all others fall (J_ij =
# −p_i p_j < 0), and together the change is 0: the weights go on adding up to 1. Each column of J sums
# to 0.

# %% [markdown]
# ## By hand
#
# p = (⅛, ¼, ⅝), dp = (8, 0, 0). The row sum is 8 · ⅛ = 1, and ds = p ∘ (dp − 1) = (⅛ · 7, −¼, −⅝) =
# (0.875, −0.25, −0.625). It sums to 0, because adding one number to all scores changes no weight.

# %%
dp = np.array([8.0, 0.0, 0.0])
ds = softmax_backward(dp, p)
print("ds =", ds)
assert np.allclose(ds, [0.875, -0.25, -0.625]) and abs(ds.sum()) < 1e-15
assert np.allclose(ds, dp @ J)

# %% [markdown]
# ## Check


# %%
def forward(scores):
    weights = softmax(scores)
    return weights, weights


rng = np.random.default_rng(0)
inputs = dict(scores=rng.normal(size=(4, 5)))
report = check_gradients(forward, softmax_backward, inputs)
print(f"{report.checked} entries, error {report.tensors[0].error:.0e}")
assert report.passed
assert np.abs(J.sum(axis=0)).max() < 1e-16

# %% [markdown]
# ## Break it
#
# Keep the diagonal alone, ds = p ∘ dp: the score is blamed for its own weight, and not for the others.


# %%
def diagonal_only(dweights, weights):
    return weights * dweights


print("rows of ds sum to", diagonal_only(rng.normal(size=(2, 5)), softmax(rng.normal(size=(2, 5)))).sum(axis=-1))
assert not check_gradients(forward, diagonal_only, inputs).passed

# %% [markdown]
# ## Exercise
#
# A key that may not be seen has the score −∞. What is its weight, and what is the gradient of its
# score? (Then write the backward: `gpt-numpy study exercise softmax`.)

# %% [answer]
# **Answer:** exp(−∞) = 0, so p = 0, and ds = p · (…) = 0, both exactly: such a key has no effect and
# gets no gradient, though its dp need not be 0.

# %% [proof]
weights = softmax(np.array([0.3, -np.inf, 1.2]))
assert weights[1] == 0 and softmax_backward(np.array([1.0, 7.0, -2.0]), weights)[1] == 0
assert check_gradients(forward, softmax_backward, inputs, seed=1).passed
scores, dweights = rng.normal(size=(2, 3, 4))
assert np.abs(softmax_backward(dweights, softmax(scores)).sum(axis=-1)).max() < 1e-14
print("lesson 8 holds")
