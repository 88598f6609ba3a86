# %% [markdown]
# # 12. Following the gradient: AdamW
#
# The gradient points uphill. Plain gradient descent takes a step against it; AdamW divides each
# parameter's step by the recent size of its own gradient, so that all parameters move at a
# comparable pace.
#
# **Symbols.** t: the number of the step, from 1; p: a parameter; g: its gradient in step t; m: running
# mean of g, the first moment; v: running mean of g², the second moment; m̂, v̂: m and v corrected for
# their start at 0; β₁, β₂: decay rates of the two means, β either of them; η: the learning rate; ε: a
# small constant against division by 0; λ: the weight decay; n: the norm of the whole gradient; c: the
# norm at which gradients are clipped; W: the number of warm-up steps; S: the number of all steps.
#
# **Predict.** In the very first step of Adam, how far does a parameter with gradient 1000 move, and
# one with 0.001?

# %%
import math

import numpy as np

from gpt_numpy import GPT, CharTokenizer, GPTConfig, layers
from gpt_numpy.data import batch
from gpt_numpy.study.drawing import curves, show

# %% [markdown]
# ## Derive: the update
#
#     m ← β₁ · m + (1 − β₁) · g
#     v ← β₂ · v + (1 − β₂) · g²
#     m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)
#     p ← p − η · ( m̂ / (√v̂ + ε) + λ · p )
#
# Why the division by 1 − βᵗ? Both means start at 0. Let the gradient be the same g in every step. After
# t steps m = (1 − β)(1 + β + … + βᵗ⁻¹) · g = (1 − βᵗ) · g, a geometric sum: too small by the factor 1 −
# βᵗ, which the division removes. For β = 0.9 that is 0.1 in step 1, 0.19 in step 2, 0.65 in step 10.


# %%
def adamw(p, g, m, v, t, learning_rate=0.1, decay=0.0, beta1=0.9, beta2=0.99, epsilon=1e-8):
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    p -= learning_rate * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)


def of_the_package(p, g, m, v, t, learning_rate=0.1, decay=0.0, beta1=0.9, beta2=0.99, epsilon=1e-8):
    edges, decays = np.array([0, len(p)]), np.array([decay])
    layers.adamw_update(p, g, m, v, edges, decays, learning_rate, beta1, beta2, epsilon, t)


mine, theirs = [[np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)] for _ in range(2)]
rng = np.random.default_rng(0)
for t in range(1, 6):
    g = rng.normal(size=3)
    adamw(mine[0], g, *mine[1:], t, decay=0.1)
    of_the_package(theirs[0], g, *theirs[1:], t, decay=0.1)
assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(mine, theirs))
mean, beta = 0.0, 0.9
for t in range(1, 11):
    mean = beta * mean + (1 - beta) * 7.0
    assert abs(mean - (1 - beta**t) * 7.0) < 1e-12
print(f"1 − 0.9ᵗ for t = 1, 2, 10: {1 - 0.9:.2f}, {1 - 0.9**2:.2f}, {1 - 0.9**10:.2f}")

# %% [markdown]
# ## By hand, on three numbers
#
# With g = (1000, 0.001, −2), β₁ = 0.9 and β₂ = 0.99, in step 1: m = 0.1 g and v = 0.01 g². Divided by 1
# − 0.9 and 1 − 0.99: m̂ = g, v̂ = g². The step is η · g/√g² = η · (the sign of g).
#
# In step 2 with g = (1000, −0.001, −2) the second entry has changed its sign. For it m = 0.9 · 0.0001 −
# 0.1 · 0.001 = −0.00001; 1 − 0.9² = 0.19, so m̂ = −0.00001/0.19 = −0.0000526; g² is the same in both
# steps, so √v̂ = 0.001. It moves by only 0.1 · 0.0526 = 0.00526.

# %%
p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
adamw(p, np.array([1000, 0.001, -2]), m, v, t=1, epsilon=0.0)
print("after step 1", p)
assert np.allclose(p, [-0.1, -0.1, 0.1])
adamw(p, np.array([1000, -0.001, -2]), m, v, t=2, epsilon=0.0)
print("after step 2", p)
assert np.allclose(p, [-0.2, -0.1 + 0.1 * 0.00001 / 0.19 / 0.001, 0.2])

# %% [answer]
# **Answer:** both move by the learning rate, 0.1: in the first step only the sign of the gradient
# matters.

# %% [markdown]
# ## Why weight decay stands apart
#
# Adding λ · p to the gradient (as in plain L2 regularisation) would send it through the division by
# √v̂: parameters with large gradients would be decayed least. AdamW subtracts η · λ · p directly: the W
# stands for that.

# %%
p, m, v = np.array([1.0, 1.0, 1.0]), np.zeros(3), np.zeros(3)
adamw(p, np.array([1e6, 1.0, 0.0]), m, v, t=1, decay=0.5)
print(p)
assert np.allclose(p, [0.85, 0.85, 0.95], atol=1e-6)  # each lost 0.05 to decay

# %% [markdown]
# ## Clipping and the schedule
#
# A batch with an unusually large gradient would make an unusually bad step, and would be remembered in
# m and v. *Clipping* multiplies the whole gradient by min(1, c/n): its direction stays, its norm is at
# most c.
#
# The learning rate rises from 0 over W steps (*warm-up*), then falls along half a *cosine* to 0: large
# steps while much is to be gained, small ones at the end, when the noise of the batches is what keeps
# the loss up. With η the largest learning rate, in step t
#
#     η_t = η · t / W                                        t <= W
#     η_t = η · ½ (1 + cos(π · (t − W) / (S − W)))           t > W


# %%
def rate(t, largest=5e-3, W=10, S=120):
    return largest * t / W if t <= W else largest * 0.5 * (1 + math.cos(math.pi * (t - W) / (S - W)))


assert rate(10) == 5e-3 and abs(rate(65) - 2.5e-3) < 1e-12 and rate(120) < 1e-12
gradient = np.array([3.0, 4.0])
clipped = gradient * min(1, 1.0 / layers.gradient_norm(gradient))
assert np.allclose(clipped, [0.6, 0.8])
show(curves({"learning rate": (range(1, 121), [rate(t) for t in range(1, 121)])}, "Warm-up and cosine", "step"))

# %% [markdown]
# ## Train
#
# A whole training loop: batch, gradients, clip, step. A few seconds of it on a nursery rhyme.

# %%
text = "the cat sat on the mat. the rat sat on the cat. the cat sat on the hat. " * 20
tokenizer = CharTokenizer.train([text])
tokens = np.array(tokenizer.encode(text))
config = GPTConfig(tokenizer.n_vocab, block_size=24, n_layer=2, n_head=2, n_embd=32)
model = GPT(config, ops=layers)
m, v = np.zeros_like(model.params.flat), np.zeros_like(model.params.flat)
losses, norms = [], []
for step in range(1, 121):
    inputs, targets = batch(tokens, batch_size=8, block_size=24, seed=0, step=step)
    model.zero_gradients()
    losses.append(model.loss_and_gradients(inputs, targets))
    norms.append(layers.gradient_norm(model.grads.flat))
    clip = np.float32(min(1.0, 1.0 / norms[-1]))
    of_the_package(model.params.flat, model.grads.flat * clip, m, v, step, rate(step), decay=0.1)
print(f"loss {losses[0]:.2f} (log V is {math.log(tokenizer.n_vocab):.2f}, V tokens) → {losses[-1]:.2f}")
assert abs(losses[0] - math.log(tokenizer.n_vocab)) < 0.2 and losses[-1] < 0.5
show(curves({"loss": (range(120), losses), "gradient's norm": (range(120), norms)}, "A training run", "step"))

# %% [markdown]
# ## Check: an accumulated gradient is the batch's
#
# Where a batch does not fit into memory, its parts' gradients are added, each with its share of the
# loss.

# %%
inputs, targets = batch(tokens, 6, 24, seed=1, step=0)
model.zero_gradients()
model.loss_and_gradients(inputs, targets)
whole = model.grads.flat.copy()
model.zero_gradients()
for part in (slice(0, 2), slice(2, 6)):
    share = (part.stop - part.start) / 6
    model.loss_and_gradients(inputs[part], targets[part], share)
assert np.allclose(model.grads.flat, whole, rtol=1e-3, atol=1e-6)

# %% [markdown]
# ## Break it
#
# Leave the bias correction out: divide m by √v instead of m̂ by √v̂. In step 1, m is 0.1 · g. With β₂ =
# 0.99, √v = √0.01 · |g| = 0.1 · |g| is too small by the same factor: the two happen to cancel. With β₂
# = 0.999, the usual value, √v = 0.0316 · |g|, and the first step is 0.1/0.0316 = 3.16 times too long.

# %%
g = 7.0
uncorrected = (0.1 * g) / math.sqrt(0.001 * g**2)
print(f"{uncorrected:.2f} times the learning rate instead of 1")
assert abs(uncorrected - 3.16) < 0.01

# %% [markdown]
# ## Exercise
#
# Why warm up? (And write the update: `gpt-numpy study exercise adamw`; then `gpt-numpy study exercise
# train` trains on the functions that you have written.)

# %% [answer]
# **Answer:** v̂ after a few steps is a mean over a few batches, a poor guess of the gradient's size, and
# everything is divided by its root. Small steps until it is a better one cost little and avoid a bad
# start.

# %% [proof]
for update in (adamw, of_the_package):
    p, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 4):
        update(p, np.array([3.0, -0.01]), m, v, t, learning_rate=0.1, epsilon=0.0)
    assert np.allclose(p, [-0.3, 0.3])  # a steady gradient moves by the learning rate each step, whatever its size
print("lesson 12 holds")
