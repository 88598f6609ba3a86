# %% [markdown]
# # Lab 1. Predict, then train: a sweep
#
# A prediction that is written down before a run teaches more than the run. This lab trains a small
# model several times. The runs differ in one setting alone: learning rate, then width. Do it again with a
# text of your own: `gpt-numpy study lab sweep --data FILE --setting lr --values 5e-4 5e-3 5e-2 --predict
# 5e-3`. For models of real size, `gpt-numpy sweep` trains every combination of settings and `gpt-numpy
# runs --plot` compares the runs.
#
# **Symbols.** η: the learning rate; C: the model's width, its number of channels; V: characters in the
# vocabulary; L: blocks; T: positions of a window.
#
# **Predict.** The three learning rates are 0.0005, 0.005 and 0.05, with Adam, on 60 steps of eight windows.
# Which one ends lowest on text that was not trained on? What does the curve of the largest one look like?

# %%
import math
from collections import Counter

from gpt_numpy.study import labs
from gpt_numpy.study.drawing import bars, curves, show

print(labs.TEXT[:75])
print("settings:", labs.SETTINGS)
STEPS = 60

# %% [answer]
# **Answer:** 0.005. In the first steps Adam moves every parameter by about η, whatever the gradient's size
# (lesson 12). The weights start near 0.02, so steps of 0.0005 need dozens of steps to change one
# noticeably, and steps of 0.05 overwrite them: the loss jumps up before it falls.

# %% [proof]
runs = {rate: labs.train(STEPS, lr=rate) for rate in (0.0005, 0.005, 0.05)}
show(
    curves(
        {f"η = {rate:g}": (range(STEPS), run.losses) for rate, run in runs.items()},
        "Loss on the training text",
        x="step",
        y="loss",
    )
)
held_out = {rate: run.held_out for rate, run in runs.items()}
assert min(held_out, key=lambda rate: held_out[rate]) == 0.005

# %% [markdown]
# ## The limits of every curve
#
# Two losses are known before any training. A model that knows nothing gives each of the V characters
# the probability 1/V (lesson 3). A model that knows only how frequent each character is reaches the
# entropy of these frequencies:
#
#     nothing known:        log V
#     frequencies known:    −Σ_c f_c · log f_c
#
# (f_c: the share of the character c; Σ_c: the sum over all characters.)

# %%
counts = Counter(labs.TEXT)
shares = [n / len(labs.TEXT) for n in counts.values()]
nothing, frequencies = math.log(len(counts)), -sum(f * math.log(f) for f in shares)
middle = labs.train(STEPS)
known = {"nothing known": nothing, "frequencies known": frequencies, f"after {STEPS} steps": middle.held_out}
show(bars(known, "Loss, in nats a character"))
assert nothing > frequencies > middle.held_out and abs(middle.losses[0] - nothing) < 0.1

# %% [markdown]
# ## Width
#
# A block has about 12 · C² weights (lessons 5 and 8), so a model of twice the width has four times the
# weights and takes about four times as long for a step.
#
# **Predict.** Widths 8, 16 and 32 at the same η and the same number of steps. Does the loss fall with the
# width? By a constant amount?

# %% [answer]
# **Answer:** the loss falls with the width, by less each time: there is little left to learn. This text
# repeats three sentences; in each of them only a few letters are uncertain, and no width can predict those.

# %% [proof]
widths = labs.sweep("width", (8, 16, 32), STEPS)
show(bars({f"C = {width}": loss for width, loss in widths.items()}, "Loss on text that was not trained on"))
assert widths[8] > widths[16] > widths[32]

# %% [markdown]
# ## Exercise
#
# `--setting heads --values 1 2 4`: how does the number of weights change with the number of heads? And
# `--setting context`: which loss can no longer be reached with a context of 4 characters? Try both.

# %% [answer]
# **Answer:** not at all: heads divide the same C columns (lesson 8). With 4 characters of context the model
# cannot tell which sentence it is in, so it cannot do better than to guess among what follows these 4
# characters anywhere.

# %% [proof]
sizes = {heads: labs.train(1, heads=heads).model.params.flat.size for heads in (1, 2, 4)}
assert len(set(sizes.values())) == 1
contexts = labs.sweep("context", (4, 24), STEPS)
print({f"T = {context}": round(loss, 3) for context, loss in contexts.items()})
assert contexts[4] > contexts[24]
print("lab 1 holds")
