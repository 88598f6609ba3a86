# %% [markdown]
# # 11. The whole backward pass
#
# Every layer's backward is known. This lesson writes the backward of the whole model with them, every
# parameter's gradient included, and compares it with `model.backward()` to the last digits.
#
# The rule is short. Read the forward from the last line to the first; for each line `out =
# layer(inputs, parameters)` write `dinputs, dparameters = layer_backward(dout)`. If a value is used
# several times, its gradient is the sum over its uses.
#
# **Symbols.** L: number of blocks; x: the stream; P: attention weights; h: a block; ln_1, ln_2, ln_f:
# layernorms; d and a name: the loss's gradient of it; q·b: the product of a query with the key bias.
#
# **Predict.** The stream before block 0 reaches the last layernorm along many paths: at each branch it
# can go through or past. How many paths are there in a model of L blocks?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import trace
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import graph, heat, show
from gpt_numpy.study.whole_model import check_model, unit_scale

config = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12)
model = GPT(config, dtype=np.float64, ops=layers)
rng = np.random.default_rng(0)
unit_scale(model.params, rng)
tokens, targets = rng.integers(0, 11, (2, 2, 5))
p = model.params

# %% [markdown]
# ## The forward, every cache kept
#
# As in lesson 3, with the caches.


# %%
def block_forward(x, h):
    ln_1, ln_1_cache = layers.layernorm_forward(x, p[h + "ln_1.weight"], p[h + "ln_1.bias"])
    branch, attn_cache = layers.multi_head_attention_forward(
        ln_1,
        *(p[h + n] for n in ("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias")),
        config.n_head,
    )
    x = x + branch
    ln_2, ln_2_cache = layers.layernorm_forward(x, p[h + "ln_2.weight"], p[h + "ln_2.bias"])
    branch, mlp_cache = layers.mlp_forward(
        ln_2, *(p[h + n] for n in ("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"))
    )
    return x + branch, (ln_1_cache, attn_cache, ln_2_cache, mlp_cache)


def forward(tokens, targets):
    wte, positions = p["wte.weight"], np.arange(tokens.shape[1])
    x, embedding = layers.embedding_forward(tokens, positions, wte, p["wpe.weight"])
    blocks = []
    for i in range(config.n_layer):
        x, caches = block_forward(x, f"h.{i}.")
        blocks.append(caches)
    x, ln_f = layers.layernorm_forward(x, p["ln_f.weight"], p["ln_f.bias"])
    logits, head = layers.lm_head_forward(x, wte)
    loss, cross_entropy = layers.cross_entropy_forward(logits, targets)
    return loss, (embedding, blocks, ln_f, head, cross_entropy)


loss, caches = forward(tokens, targets)
print(f"loss {loss:.6f}")
assert abs(loss - model.loss(tokens, targets)) < 1e-12

# %% [markdown]
# ## By hand: one block backward
#
# x goes two ways, into the branch and past it. So dx is the gradient that comes past the branch plus
# the one that comes through it. The branch gets the same dx, because a sum passes its gradient to both
# terms.


# %%
def block_backward(dx, h, block, grads):
    ln_1, attn, ln_2, mlp = block
    dnormed, *parameters = layers.mlp_backward(dx, mlp)
    for name, g in zip(("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"), parameters):
        grads[f"{h}mlp.{name}"] = g
    through, grads[h + "ln_2.weight"], grads[h + "ln_2.bias"] = layers.layernorm_backward(dnormed, ln_2)
    dx = dx + through
    dnormed, *parameters = layers.multi_head_attention_backward(dx, attn)
    for name, g in zip(("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"), parameters):
        grads[f"{h}attn.{name}"] = g
    through, grads[h + "ln_1.weight"], grads[h + "ln_1.bias"] = layers.layernorm_backward(dnormed, ln_1)
    return dx + through


show(
    graph(
        {
            "x": (0, 0, "dx: sum of 2"),
            "ln_1": (1, 1),
            "attention": (2, 1),
            "x + attn": (3, 0, "dx: sum of 2"),
            "ln_2": (4, 1),
            "MLP": (5, 1),
            "out": (6, 0, "dx given"),
        },
        [
            *[("x", "x + attn", "past"), ("x", "ln_1", "into"), ("ln_1", "attention"), ("attention", "x + attn")],
            *[("x + attn", "out", "past"), ("x + attn", "ln_2", "into"), ("ln_2", "MLP"), ("MLP", "out")],
        ],
        "A block: gradients run against the arrows, and add up where two arrows leave",
    )
)

# %% [markdown]
# ## Derive: the whole model
#
# From the loss to the embedding. wte is used twice, in the head and in the embedding, so its gradient
# has two terms.


# %%
def backward(caches):
    embedding, blocks, ln_f, head, cross_entropy = caches
    grads = {}
    dlogits = layers.cross_entropy_backward(1.0, cross_entropy)
    dx, dwte_of_head = layers.lm_head_backward(dlogits, head)
    dx, grads["ln_f.weight"], grads["ln_f.bias"] = layers.layernorm_backward(dx, ln_f)
    for i in reversed(range(config.n_layer)):
        dx = block_backward(dx, f"h.{i}.", blocks[i], grads)
    dwte_of_embedding, grads["wpe.weight"] = layers.embedding_backward(dx, embedding)
    grads["wte.weight"] = dwte_of_head + dwte_of_embedding
    return grads


mine = backward(caches)
model.zero_gradients()
model.backward()
assert set(mine) == set(model.grads)
worst = max(np.abs(mine[n] - g).max() / np.abs(g).max() for n, g in model.grads.items() if np.abs(g).max() > 1e-10)
print(f"{len(mine)} parameters, {sum(g.size for g in mine.values())} numbers; largest relative difference {worst:.0e}")
assert all(np.allclose(mine[n], g, rtol=1e-10, atol=1e-13) for n, g in model.grads.items())

# %% [answer]
# **Answer:** each of the 2L branches can be passed by or gone through, so there are 2^(2L) paths.
# Backpropagation adds them up without listing them: written out by *last branch gone through*, dx is a
# sum of 2L + 1 terms, one for each branch (the gradient at that branch's output, brought back through
# it) and one for the path past all branches.

# %% [markdown]
# The terms can be measured. At each of the 2L branches the gradient that came through is added; the
# rest came past all of them.

# %%
with trace(model) as t:
    model.loss(tokens, targets)
    model.backward()
dstream = t["h.1.residual_2"].grad
terms = {"past all branches": dstream}
for i in (1, 0):
    after_mlp, after_attn = t[f"h.{i}.residual_2"].grad, t[f"h.{i}.residual_1"].grad
    before = t["embedding"].grad if i == 0 else t[f"h.{i - 1}.residual_2"].grad
    terms[f"through h.{i}.mlp"] = after_attn - after_mlp
    terms[f"through h.{i}.attn"] = before - after_attn
assert len(terms) == 2 * config.n_layer + 1
assert np.allclose(sum(terms.values()), t["embedding"].grad)
print({name: f"{np.linalg.norm(term):.2f}" for name, term in terms.items()})

# %% [markdown]
# ## Look
#
# Attention weights of block 0 and their gradients. A positive gradient says that the loss would fall
# if that weight were smaller. Beyond the diagonal the gradient dP of the weights need not be 0, though
# those keys are not seen: dP says what the loss would do if the weight could change. The weight there
# is P = 0, and softmax's backward multiplies by P, so nothing passes.

# %%
weights, dweights, dscores = t["h.0.attn.weights"].value[0], t["h.0.attn.weights"].grad[0], t["h.0.attn.scores"].grad[0]
show(heat({"P, head 0": weights[0], "dP": dweights[0], "dS": dscores[0]}, "Block 0, head 0", "query", "key"))
future = np.triu_indices(5, 1)
assert np.abs(dweights[:, future[0], future[1]]).max() > 0
assert not weights[:, future[0], future[1]].any() and not dscores[:, future[0], future[1]].any()

# %% [markdown]
# ## Check
#
# Every traced gradient can be checked where it is: replace the intermediate by a slightly changed one,
# run the rest of the model again, and see whether the loss changes as the gradient says.

# %%
for name in ("h.0.attn.scores", "h.0.attn.weights", "h.1.mlp.gelu", "h.0.ln_1.rstd", "ln_f.xhat", "lm_head.logits"):
    check = t.check(name, max_entries=150)
    print(f"{name:20} {check.checked:4} {check.method:10} error {check.error:.0e}")
    assert check.passed

# %% [markdown]
# ## Break it
#
# Leave out the gradient that passes by the MLP: each layer alone is still right, and only the check of
# the whole model sees it.

# %%
_, broken = plant(BUGS["model-residual-gradient-lost"])
failed = check_model(layers, gpt=broken, max_entries=1, n_directions=4).failed_checks()
print(len(failed), "of the model's tensors fail; those above the lost sum still pass")
assert "differences of embedding" in failed and "differences of ln_f.weight" not in failed

# %% [markdown]
# ## Exercise
#
# Write it yourself, with dropout and recomputed blocks: `gpt-numpy study exercise block`, then
# `model`. And a question: the gradient of the key bias (the middle third of `c_attn.bias`) is 0, whatever
# the data. Why?

# %% [answer]
# **Answer:** adding the same vector to all keys adds the same number q·b to all scores of a query, and
# softmax does not change when one number is added to a whole row.

# %% [proof]
key_bias = mine["h.0.attn.c_attn.bias"][12:24]
print(f"largest entry {np.abs(key_bias).max():.0e}")
assert np.abs(key_bias).max() < 1e-12 < np.abs(mine["h.0.attn.c_attn.bias"][:12]).max()
assert check_model(layers, max_entries=1, n_directions=6).passed
print("lesson 11 holds")
