# %% [markdown]
# # 10. Two small layers with large consequences: residual and dropout
#
# out = x + branch(x). In the backward a sum hands its gradient to both terms unchanged, so the
# gradient of x is what comes past the branch plus what comes through it.
#
# **Symbols.** x: the stream; branch: what is added to it; out: the sum; m: dropout's factors, 0 or 1/(1
# − p); p: the probability of dropping an element; ∘: entry by entry; dout, dx, dbranch: the loss's
# gradients.
#
# **Predict.** Stack 20 layers out = 0.5 · x. What is the gradient of the first input? And with
# residuals, out = x + 0.5 · x?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.randomness import Dropout
from gpt_numpy.study import cases, check_gradients, trace
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import curves, show

# %% [answer]
# **Answer:** each layer multiplies the gradient by 0.5, so 20 of them leave 0.5²⁰ = 0.000001 of it.
# With residuals each multiplies it by 1.5: 1.5²⁰ = 3,325. Without the stream a gradient dies, with
# large branches it explodes; so the branches start small (lesson 3).

# %% [proof]
print(f"0.5^20 = {0.5**20:.1e};  1.5^20 = {1.5**20:,.0f}")
assert round(1.5**20) == 3325

# %% [markdown]
# ## By hand, on three numbers
#
# x = (1, 2, 3), branch = (10, 20, 30), dropout of ½ that keeps the first and the last: the kept
# values are doubled so that the expectation stays. out = (1 + 20, 2 + 0, 3 + 60). With dout = (1,
# 1, 1): dx = (1, 1, 1), dbranch = (2, 0, 2).
#
# Here a mask is not drawn from a generator but computed from the position of an element, so we look
# for a key with that mask.

# %%
x, branch = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[10.0, 20.0, 30.0]]])
for key in range(100):
    dropout = Dropout(0.5, key)
    kept, _ = layers.dropout_forward(np.ones((1, 1, 3)), dropout)
    if kept.ravel().tolist() == [2, 0, 2]:
        break
out, cache = layers.residual_forward(x, branch, dropout)
dx, dbranch = layers.residual_backward(np.ones((1, 1, 3)), cache)
print(out.ravel(), dx.ravel(), dbranch.ravel())
assert out.ravel().tolist() == [21, 2, 63]
assert dx.ravel().tolist() == [1, 1, 1] and dbranch.ravel().tolist() == [2, 0, 2]

# %% [markdown]
# ## Derive
#
# A sum passes its gradient to both terms unchanged, and dropout is a product with a constant:
#
#     out = x + m ∘ branch
#     dx = dout
#     dbranch = m ∘ dout          with the same m as in the forward
#
# The mask is a function of seed, step, layer and position. So the backward computes it again instead
# of keeping it, a resumed run has the masks of the uninterrupted one, and a batch in parts has those
# of the whole.

# %%
rng = np.random.default_rng(0)
dropout = Dropout(0.3, key=12345)
x, dout = rng.normal(size=(2, 6, 5, 4))
out, cache = layers.dropout_forward(x, dropout)
m = np.divide(out, x)
assert np.allclose(layers.dropout_backward(dout, cache), m * dout)
second_half, _ = layers.dropout_forward(x[3:], dropout._replace(first_sequence=3))
assert np.array_equal(second_half, out[3:])

# %% [markdown]
# ## Check and break

# %%
inputs = dict(x=x, branch=dout, dropout=dropout)
assert check_gradients(layers.residual_forward, layers.residual_backward, inputs).passed
broken, _ = plant(BUGS["residual-dropout-not-passed-back"])
wrong = check_gradients(broken.residual_forward, broken.residual_backward, inputs)
print(wrong.failed_checks())
assert wrong.failed_checks() == ["differences of branch"]

# %% [markdown]
# ## See the highway
#
# The norm of the gradient of the residual stream after every block, in a deep model: with the stream
# it is nearly the same from the last block to the first. A planted bug in `model.py` leaves out the
# gradient that passes by the MLP (and by attention, whose line is another, it stays): even with one
# of the two missing, the gradient dies.

# %%
config = GPTConfig(vocab_size=11, block_size=16, n_layer=12, n_head=2, n_embd=16)
tokens, targets = rng.integers(0, 11, (2, 2, 16))
_, gpt_without_highway = plant(BUGS["model-residual-gradient-lost"])
flow = {}
for name, gpt in {"with the stream": GPT, "without the MLP's skip": gpt_without_highway}.items():
    model = gpt(config, dtype=np.float64, ops=layers)
    with trace(model) as t:
        model.loss(tokens, targets)
        model.backward()
    flow[name] = [np.linalg.norm(t[f"h.{i}.residual_2"].grad) for i in range(config.n_layer)]
    print(f"{name:24} first block / last block = {flow[name][0] / flow[name][-1]:.1e}")
assert 0.1 < flow["with the stream"][0] / flow["with the stream"][-1] < 10
assert flow["without the MLP's skip"][0] / flow["without the MLP's skip"][-1] < 1e-3
show(
    curves(
        {n: (range(12), v) for n, v in flow.items()},
        "Gradient of the stream in a deep model",
        "block",
        "norm",
        log=True,
    )
)

# %% [markdown]
# ## Exercise
#
# Why are kept values divided by 1 − p while training, instead of multiplying by 1 − p when
# generating? (And write both backwards: `gpt-numpy study exercise residual`, `dropout`.)

# %% [answer]
# **Answer:** the expectation is the same; this way the model that generates contains nothing of
# dropout, and changing p changes nothing but training.

# %% [proof]
out, _ = layers.dropout_forward(np.ones((50, 40, 100)), Dropout(0.2, key=7))
assert abs(out.mean() - 1) < 0.01
for case in cases.layer_cases(layers, seed=1):
    if case.layer in ("residual", "dropout"):
        assert cases.check_case(case).passed
print("lesson 10 holds")
