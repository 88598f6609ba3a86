# %% [markdown]
# # 3. The forward pass, in twenty lines
#
# A GPT is a *residual stream*: an array (B, T, C) into which the tokens' embeddings are written, to
# which every block adds twice, and from which the next token is read at the end. What each layer does
# inside is the subject of the lessons named here; this one puts them together.
#
# - *embedding* (lesson 9): looks up a vector for each token and one for each position, and adds them;
# - *layernorm* (lesson 7): shifts and scales the C numbers of each position to mean 0 and variance 1;
# - *attention* (lesson 8): each position takes a weighted mean over the positions up to itself. It is
#   the only layer in which positions meet;
# - *MLP* (lesson 5): two matrices with a nonlinearity between, on each position alone;
# - *head* (lesson 9): the product with every token's embedding gives one number a token, the logits;
# - *loss* (lesson 6): −log of the probability that the logits give the true next token.
#
# **Symbols.** B: sequences in a batch; T: positions; C: channels, the width of the stream; V: tokens
# in the vocabulary; L: blocks (`n_layer`); s: a standard deviation.
#
# **Predict.** A fresh model knows nothing. With V = 11 tokens, what is its loss?

# %%
import math

import numpy as np

from gpt_numpy import GPT, GPTConfig, layers, parameters
from gpt_numpy.study.drawing import graph, show

config = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12)
model = GPT(config, dtype=np.float64, ops=layers)
rng = np.random.default_rng(0)
tokens, targets = rng.integers(0, 11, (2, 2, 5))

# %% [answer]
# **Answer:** nearly equal logits make every token 1/V probable, and −log(1/V) = log V = 2.398. If a
# fresh model's loss is far from that, something is wrong before any training.

# %% [proof]
print(f"loss {model.loss(tokens, targets):.4f}, log V = {math.log(11):.4f}")

# %% [markdown]
# ## The stream and its branches

# %%
show(
    graph(
        {
            "tokens": (0, 0, "(B, T)"),
            "embedding": (1, 0, "(B, T, C)"),
            "ln_1": (2, 1, "(B, T, C)"),
            "attention": (3, 1, "(B, T, C)"),
            "+": (4, 0, "(B, T, C)"),
            "ln_2": (4, 1, "(B, T, C)"),
            "MLP": (5, 1, "4C inside"),
            "+ ": (6, 0, "(B, T, C)"),
            "ln_f": (6, 1, "(B, T, C)"),
            "head": (7, 1, "(B, T, V)"),
            "loss": (8, 1, "one number"),
        },
        [
            *[("tokens", "embedding"), ("embedding", "+"), ("embedding", "ln_1"), ("ln_1", "attention")],
            *[("attention", "+"), ("+", "+ "), ("+", "ln_2"), ("ln_2", "MLP"), ("MLP", "+ ")],
            *[("+ ", "ln_f"), ("ln_f", "head"), ("head", "loss")],
        ],
        "A GPT with one block: the stream is the upper row, the branches read from it and add to it",
    )
)

# %% [markdown]
# ## Derive: put it together
#
# Every line is one layer of `gpt_numpy.layers`; each returns its output and a cache for the backward
# pass. Pre-norm means that a branch normalises what it reads; the stream itself is never normalised,
# only added to.


# %%
def forward(p, tokens):
    x, _ = layers.embedding_forward(tokens, np.arange(tokens.shape[1]), p["wte.weight"], p["wpe.weight"])
    for i in range(config.n_layer):
        h = f"h.{i}."
        normed, _ = layers.layernorm_forward(x, p[h + "ln_1.weight"], p[h + "ln_1.bias"])
        branch, _ = layers.multi_head_attention_forward(
            normed,
            p[h + "attn.c_attn.weight"],
            p[h + "attn.c_attn.bias"],
            p[h + "attn.c_proj.weight"],
            p[h + "attn.c_proj.bias"],
            config.n_head,
        )
        x = x + branch
        normed, _ = layers.layernorm_forward(x, p[h + "ln_2.weight"], p[h + "ln_2.bias"])
        branch, _ = layers.mlp_forward(
            normed,
            p[h + "mlp.c_fc.weight"],
            p[h + "mlp.c_fc.bias"],
            p[h + "mlp.c_proj.weight"],
            p[h + "mlp.c_proj.bias"],
        )
        x = x + branch
    x, _ = layers.layernorm_forward(x, p["ln_f.weight"], p["ln_f.bias"])
    return x @ p["wte.weight"].T  # the head is the embedding, transposed


assert np.allclose(forward(model.params, tokens), model.forward(tokens), rtol=1e-12)

# %% [markdown]
# ## By hand: count the parameters
#
# For C channels a block has 3C² + 3C (queries, keys, values), C² + C (attention's output), 4C² + 4C
# and 4C² + C (the MLP), and 4C in two layernorms: 12C² + 13C. Then V·C and T·C embeddings and 2C of
# the last layernorm. For GPT-2, with C = 768, 12 blocks, V = 50257 and T = 1024:

# %%
C = 768
by_hand = 12 * (12 * C**2 + 13 * C) + 50257 * C + 1024 * C + 2 * C
print(f"{by_hand:,}")
assert by_hand == parameters.count(GPTConfig.preset("gpt2")) == 124_439_808

# %% [markdown]
# ## Check: nobody sees the future
#
# Change the last token. The logits before it must stay the same, bit for bit: otherwise the model
# could read the answer off its own input, and its training loss would mean nothing.

# %%
changed = tokens.copy()
changed[:, -1] = (changed[:, -1] + 1) % 11
before, after = model.forward(tokens), model.forward(changed)
assert np.array_equal(before[:, :-1], after[:, :-1]) and not np.array_equal(before[:, -1], after[:, -1])

# %% [markdown]
# ## Break it
#
# Without positions a model of one block cannot tell an order: with all positions equal, exchanging
# the first two of three tokens leaves the third one's logits as they were. (With two blocks it can,
# a little: the first token's state has seen one token and the second one's two, so the causal mask
# itself gives the order away.)

# %%
one_block = GPT(config.replace(n_layer=1), dtype=np.float64, ops=layers)
ab, ba = np.array([[3, 5, 7]]), np.array([[5, 3, 7]])
nowhere = np.zeros(3, int)


def last_logits(a_model, tokens, positions=None):
    return a_model.forward(tokens, positions=positions)[0, -1]


assert np.allclose(last_logits(one_block, ab, nowhere), last_logits(one_block, ba, nowhere), rtol=1e-12)
assert not np.allclose(last_logits(one_block, ab), last_logits(one_block, ba), rtol=1e-12)
assert not np.allclose(last_logits(model, ab, nowhere), last_logits(model, ba, nowhere), rtol=1e-12)

# %% [markdown]
# ## The initial values
#
# Matrices start from a normal distribution with standard deviation s = 0.02, layernorm weights at 1,
# biases at 0. The two projections of each block that write to the stream (both are called `c_proj`)
# start smaller: their s is divided by √(2L).

# %%
fresh = GPT(GPTConfig(vocab_size=500, block_size=64, n_layer=8, n_head=4, n_embd=128), ops=layers).params
for name in ("wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight"):
    print(f"{name:24} standard deviation {fresh[name].std():.4f}")
assert abs(fresh["h.0.attn.c_attn.weight"].std() - 0.02) < 3e-4
assert abs(fresh["h.0.mlp.c_proj.weight"].std() - 0.02 / math.sqrt(2 * 8)) < 1e-4
assert (fresh["h.0.ln_1.weight"] == 1).all() and not fresh["h.0.mlp.c_fc.bias"].any()

# %% [markdown]
# ## Exercise
#
# Why is the standard deviation of these two projections divided by √(2L)?

# %% [answer]
# **Answer:** the stream is a sum of 2L branches. Were they independent with variance s² each, the
# sum would have variance 2L · s²; dividing s by √(2L) keeps it at s² however deep the model is.

# %% [proof]
for t in range(tokens.shape[1]):
    changed = tokens.copy()
    changed[:, t] = (changed[:, t] + 1) % 11
    assert np.array_equal(model.forward(changed)[:, :t], before[:, :t])
assert np.allclose(forward(model.params, tokens), before, rtol=1e-12)
print("lesson 3 holds")
