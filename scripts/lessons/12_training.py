# %% [markdown]
# # 12. Following the gradient: AdamW
#
# The gradient points uphill. Plain gradient descent takes a step against it; AdamW divides each
# parameter's step by the recent size of its own gradient, so that all parameters move at a
# comparable pace.
#
# **Predict.** In the very first step of Adam, how far does a parameter with gradient 1000 move, and
# one with 0.001?

# %%
import math

import numpy as np

from gpt_numpy import GPT, CharTokenizer, GPTConfig, layers
from gpt_numpy.data import batch

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None


def adamw(p, g, m, v, step, learning_rate=0.1, decay=0.0, beta1=0.9, beta2=0.99, epsilon=1e-8):
    edges, decays = np.array([0, len(p)]), np.array([decay])
    layers.adamw_update(p, g, m, v, edges, decays, learning_rate, beta1, beta2, epsilon, step)


# %% [markdown]
# ## By hand, on three numbers
#
# With g = (1000, 0.001, −2), in step 1: m = 0.1 g and v = 0.01 g². Both means started at 0 and are
# too small by exactly 1 − β: m̂ = m/0.1 = g, v̂ = v/0.01 = g². The step is lr · g/√g² = lr · sign
# g: all three move by 0.1, whatever their size.
#
# In step 2 with g = (1000, −0.001, −2): the second one has changed its sign. m = 0.9 · 0.1 · g₁ +
# 0.1 · g₂, so for it m = 0.00009 − 0.0001 = −0.00001, m̂ = −0.00001/0.19 = −0.0000526, √v̂ = 0.001:
# it moves by only 0.1 · 0.0526 = 0.00526.

# %%
p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
adamw(p, np.array([1000, 0.001, -2]), m, v, step=1, epsilon=0.0)
print(p)
assert np.allclose(p, [-0.1, -0.1, 0.1])
adamw(p, np.array([1000, -0.001, -2]), m, v, step=2, epsilon=0.0)
print(p)
assert np.allclose(p, [-0.2, -0.1 + 0.1 * 0.00001 / 0.19 / 0.001, 0.2])

# %% [markdown]
# ## Derive: why weight decay stands apart
#
# Adding decay · p to the gradient (as in plain L2 regularisation) would send it through the
# division by √v̂: parameters with large gradients would be decayed least. AdamW takes learning_rate
# · decay · p off directly: the W stands for that.

# %%
p, m, v = np.array([1.0, 1.0, 1.0]), np.zeros(3), np.zeros(3)
adamw(p, np.array([1e6, 1.0, 0.0]), m, v, step=1, decay=0.5)
print(p)
assert np.allclose(p, [0.85, 0.85, 0.95], atol=1e-6)  # each lost 0.05 to decay

# %% [markdown]
# ## Train
#
# A whole training loop: batch, gradients, clip, step. Twenty seconds of it on a nursery rhyme.

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
    clip = min(1.0, 1.0 / norms[-1])
    learning_rate = 5e-3 * min(1, step / 10) * 0.5 * (1 + math.cos(math.pi * step / 120))
    adamw(model.params.flat, model.grads.flat * np.float32(clip), m, v, step, learning_rate, decay=0.1)
print(f"loss {losses[0]:.2f} (log V is {math.log(tokenizer.n_vocab):.2f}) → {losses[-1]:.2f}")
assert abs(losses[0] - math.log(tokenizer.n_vocab)) < 0.2 and losses[-1] < 0.5
if plt:
    plt.figure(figsize=(6, 3.5))
    plt.plot(losses, label="loss")
    plt.plot(norms, label="gradient's norm", alpha=0.6)
    plt.xlabel("step")
    plt.legend()
    plt.show()

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
# Leave the bias correction out (divide m and √v, not m̂ and √v̂). In step 1, m is 10 times and √v
# also 10 times too small for β₁ = 0.9 and β₂ = 0.99: they happen to cancel. With β₂ = 0.999, the
# usual value, they do not: the first step would be 0.1/√0.001 = 3.2 times too long, just when
# nothing is known yet.

# %%
g = 7.0
uncorrected = (0.1 * g) / math.sqrt(0.001 * g**2)
print(f"{uncorrected:.2f} times the learning rate instead of 1")
assert abs(uncorrected - 3.16) < 0.01

# %% [markdown]
# ## Exercise
#
# Why warm up? (Answer: v̂ after a few steps is a mean over a few batches, a poor guess of the
# gradient's size, and everything is divided by its root. Small steps until it is a better one cost
# little and avoid a bad start.)

# %%
p, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
for step in range(1, 4):
    adamw(p, np.array([3.0, -0.01]), m, v, step, learning_rate=0.1, epsilon=0.0)
assert np.allclose(p, [-0.3, 0.3])  # a steady gradient moves by the learning rate each step, whatever its size
print("lesson 12 holds")
