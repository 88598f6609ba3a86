# %% [markdown]
# # 11. The whole way back
#
# The model's backward is its forward read from the bottom up: for every line x = layer(x) a line dx
# = layer_backward(dx). Open `gpt_numpy/model.py` and put `_block_forward` and `_block_backward`
# side by side.
#
# **Predict.** The stream's gradient after the first block is a sum. Of how many terms, in a model
# of L blocks?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import trace
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.whole_model import check_model, unit_scale

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

config = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12)
model = GPT(config, dtype=np.float64, ops=layers)
rng = np.random.default_rng(0)
unit_scale(model.params, rng)
tokens, targets = rng.integers(0, 11, (2, 2, 5))

# %% [markdown]
# (Each branch reads the stream and adds to it, so the gradient doubles its number of paths at each
# of the 2(L − 1) branches above: 2^(2(L−1)) paths from the last layernorm to block 0.
# Backpropagation adds them up without ever listing them.)
#
# ## By hand: one block backward
#
# `trace` shows every intermediate of a pass with its gradient. We go back through the last block
# with nothing but the layers' backwards, from the gradient of its output to the gradient of its
# input.

# %%
with trace(model) as t:
    model.loss(tokens, targets)
    model.zero_gradients()
    model.backward()
p, h = model.params, "h.1."

x0 = t["h.0.residual_2"].value  # the block's input
normed_1, ln_1 = layers.layernorm_forward(x0, p[h + "ln_1.weight"], p[h + "ln_1.bias"])
branch, attn = layers.multi_head_attention_forward(
    normed_1,
    p[h + "attn.c_attn.weight"],
    p[h + "attn.c_attn.bias"],
    p[h + "attn.c_proj.weight"],
    p[h + "attn.c_proj.bias"],
    config.n_head,
)
x1 = x0 + branch
normed_2, ln_2 = layers.layernorm_forward(x1, p[h + "ln_2.weight"], p[h + "ln_2.bias"])
branch, mlp = layers.mlp_forward(
    normed_2, p[h + "mlp.c_fc.weight"], p[h + "mlp.c_fc.bias"], p[h + "mlp.c_proj.weight"], p[h + "mlp.c_proj.bias"]
)
x2 = x1 + branch
assert np.array_equal(x2, t["h.1.residual_2"].value)

dx2 = t["h.1.residual_2"].grad
dnormed_2, *_ = layers.mlp_backward(dx2, mlp)  # x2 = x1 + mlp(...): the branch gets dx2
dbelow, *_ = layers.layernorm_backward(dnormed_2, ln_2)
dx1 = dx2 + dbelow  # and so does the stream; what came through the branch is added
dnormed_1, *_ = layers.multi_head_attention_backward(dx1, attn)
dbelow, *_ = layers.layernorm_backward(dnormed_1, ln_1)
dx0 = dx1 + dbelow
assert np.allclose(dx1, t["h.1.residual_1"].grad, rtol=1e-12)
assert np.allclose(dx0, t["h.0.residual_2"].grad, rtol=1e-12)

# %% [markdown]
# ## Look
#
# Attention weights and their gradients in both blocks. A positive gradient says that the loss would
# fall if that weight were smaller.

# %%
if plt:
    figure, axes = plt.subplots(2, 3, figsize=(8, 5), constrained_layout=True)
    for row, side in zip(axes, ("value", "grad")):
        for head, ax in enumerate(row):
            matrix = getattr(t["h.0.attn.weights"], side)[0, head]
            limit = np.abs(matrix).max()
            ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_title(f"head {head}, {side}", fontsize=9)
    plt.show()

# %% [markdown]
# ## Check
#
# Every traced gradient can be checked where it stands: replace the intermediate by a slightly
# changed one, run the rest of the model again, and see whether the loss changes as the gradient
# says.

# %%
for name in ("h.0.attn.scores", "h.0.attn.weights", "h.1.mlp.gelu", "h.0.ln_1.rstd", "ln_f.xhat", "lm_head.logits"):
    check = t.check(name, max_entries=150)
    print(f"{name:20} {check.checked:4} {check.method:10} error {check.error:.0e}")
    assert check.passed

# %% [markdown]
# ## Break it
#
# Hand the gradient only through the branch: each layer alone is still right, and only the check of
# the whole model sees it.

# %%
_, broken = plant(BUGS["model-residual-gradient-lost"])
failed = check_model(layers, gpt=broken, max_entries=1, n_directions=4).failed_checks()
print(len(failed), "of the model's tensors fail; those above the lost sum still pass")
assert "differences of embedding" in failed and "differences of ln_f.weight" not in failed

# %% [markdown]
# ## Exercise
#
# The gradient of the key bias (the middle third of c_attn.bias) is 0, whatever the data. Why?
# (Answer: adding the same vector to all keys adds the same number q·b to all scores of a query, and
# softmax does not notice. GPT-2 carries these parameters nevertheless.)

# %%
key_bias = model.grads["h.0.attn.c_attn.bias"][12:24]
print("largest entry", np.abs(key_bias).max())
assert np.abs(key_bias).max() < 1e-12 < np.abs(model.grads["h.0.attn.c_attn.bias"][:12]).max()
assert check_model(layers, max_entries=1, n_directions=6).passed
print("lesson 11 holds")
