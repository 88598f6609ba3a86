# %% [markdown]
# # Lab 3. What is wrong with this model? Four diagnoses by attention maps
#
# A model can be broken and still give a loss. This lab trains a small model and damages four copies of it,
# each in one way. Look at the attention maps and at the loss, and say which fault it is.
#
# The faults, in no order:
#
# - *untrained-head*: queries and keys of head 0 in block 0 have been set back to fresh random numbers;
# - *leaking-mask*: every query also sees the key after its own;
# - *positions-off-by-one*: each position gets the embedding of the position before it;
# - *dead-layer*: the attention of the last block has zero weights.
#
# **Symbols.** P: attention weights, (T, T) a head; i: a query's position, a row of P; j: a key's position, a
# column of P; T: positions.
#
# **Predict.** For each fault: what does it change in the maps, in which block, and in which heads?

# %%
import numpy as np

from gpt_numpy.study import labs, trace
from gpt_numpy.study.drawing import bars, heat, show

run = labs.train(90)
tokens = np.array([run.tokenizer.encode(labs.TEXT[:15])])
print("what the model reads:", repr(labs.TEXT[:14]))


def look(model, caption):
    """Show the maps of all heads of both blocks; returns the loss."""
    with trace(model) as traced:
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        maps = {f"block {i}, head {h}": traced[f"h.{i}.attn.weights"].value[0, h] for i in (0, 1) for h in (0, 1)}
    show(heat(maps, f"{caption}: loss {loss:.3f}", "query", "key"))
    return loss


losses = {"right": look(run.model, "The model as it was trained")}

# %% [answer]
# **Answer:** *untrained-head*: one head of block 0 is nearly uniform over the keys it sees, all else has
# changed only as far as it reads that head. *leaking-mask*: weights above the diagonal, in all heads.
# *positions-off-by-one*: no head is uniform, nothing is above the diagonal, but the patterns of block 0 have
# moved. *dead-layer*: block 0 as before; in block 1 every head is exactly uniform, since all scores are 0.

# %% [markdown]
# ## The four cases

# %%
for case in (1, 2, 3, 4):
    losses[f"case {case}"] = look(labs.damaged(run, labs.fault_of(case)), f"Case {case}")
show(bars(losses, "Loss on what the model reads"))

# %% [markdown]
# A loss does not say what is wrong: two of the four have nearly the loss of the right model. Write your four
# diagnoses down first. (`gpt-numpy study lab attention --case 1 --answer dead-layer` tells right from wrong
# without telling the answer; without `--answer` it writes the whole microscope page of a case.)
#
# Then: one of the four is worse than all others, although a model that is *trained* with it has a lower loss
# than the right one. Which, and why?

# %% [answer]
# **Answer:** the one that sees the next key, which is the token to be predicted. This model was trained without
# it, so the next key only disturbs. A model that is trained with the leak learns to copy from it: training looks
# better than it should, and generation, where no next token is there to be seen, fails.

# %% [proof]
found = {case: labs.fault_of(case) for case in (1, 2, 3, 4)}
print(found)
leaking = labs.damaged(run, "leaking-mask")
with trace(leaking) as traced:
    leaking.loss(tokens[:, :-1], tokens[:, 1:])
above = np.triu_indices(14, 1)
assert np.abs(traced["h.0.attn.weights"].value[..., above[0], above[1]]).max() > 0
print(traced.faults()[0])
copying = labs.train(90, ops=leaking.ops)
print(f"trained with the leak: {copying.held_out:.3f}; without: {run.held_out:.3f}")
assert copying.held_out < run.held_out
dead = labs.damaged(run, "dead-layer")
with trace(dead) as traced:
    dead.loss(tokens[:, :-1], tokens[:, 1:])
assert np.allclose(traced["h.1.attn.weights"].value[0, :, -1], 1 / 14)

# %% [markdown]
# ## A check for each
#
# A map is looked at; a check runs in every test suite. Which statement about a model finds a leaking mask, for
# any weights and without looking?

# %% [answer]
# **Answer:** "a later token changes no earlier logit". Change the last token and compare the logits before it,
# bit by bit. Gradient checks do not find the leak: the backward of the leaking forward is right (lesson 8).

# %% [proof]
changed = tokens[:, :-1].copy()
changed[0, -1] = (changed[0, -1] + 1) % run.tokenizer.n_vocab
for model, causal in ((run.model, True), (leaking, False)):
    before, after = model.forward(tokens[:, :-1])[:, :-1].copy(), model.forward(changed)[:, :-1]
    assert np.array_equal(before, after) == causal

# %% [markdown]
# ## Exercise
#
# Damage a copy yourself, in a way that is not in the list: exchange two heads' output rows, halve a layernorm's
# weight, set a position's embedding to 0. Which of them does a map show, and which only the loss?

# %% [answer]
# **Answer:** maps show what changes queries, keys or what they are computed from: the position embedding and
# the first layernorm do. The rows of `c_proj` come after the weights, so exchanging them changes no map of that
# block, only those of later blocks and the loss.

# %% [proof]
model = labs.damaged(run, "dead-layer")
model.params.flat[...] = run.model.params.flat
rows = model.params["h.1.attn.c_proj.weight"]
rows[...] = np.roll(rows, len(rows) // 2, axis=0)
with trace(run.model) as right:
    right_loss = run.model.loss(tokens[:, :-1], tokens[:, 1:])
with trace(model) as traced:
    assert model.loss(tokens[:, :-1], tokens[:, 1:]) != right_loss
assert np.array_equal(traced["h.1.attn.weights"].value, right["h.1.attn.weights"].value)
print("lab 3 holds")
