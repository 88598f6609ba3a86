# %% [markdown]
# # 2. Tokens become batches
#
# Training needs arrays of one shape: inputs (B, T), and targets that are the same tokens one place
# further. Documents have any length, so they are joined with an end-of-text token between them and
# windows are cut out of the long row.
#
# **Predict.** With T = 4, how many predictions does one window of five tokens train? And which part
# of the text does the first of them see?

# %%
import numpy as np

from gpt_numpy import GPT, CharTokenizer, GPTConfig, layers
from gpt_numpy.data import batch, document_masks, pack

documents = ["hello", "hi", "good morning"]
tokenizer = CharTokenizer.train(documents, special_tokens=("<|endoftext|>",))
tokens = pack([tokenizer.encode(d) for d in documents], tokenizer.eot_id)
print(tokens, "end of text is", tokenizer.eot_id)

# %% [markdown]
# ## By hand
#
# `hello` and `hi` have 5 and 2 letters; with an end after each document, the row has 5+1 + 2+1 +
# 12+1 = 22 tokens. A window of T + 1 = 5 tokens starting at 3 is `l o <end> h i`: inputs `l o <end>
# h`, targets `o <end> h i`. Every one of the four places makes a prediction; the one at place t
# sees the inputs 0 … t. So one window trains four predictions, with one to four tokens of context.

# %%
assert len(tokens) == 22
window = tokens[3:8]
inputs, targets = window[:-1], window[1:]
print(tokenizer.decode(inputs), "→", tokenizer.decode(targets))
assert (inputs[1:] == targets[:-1]).all()

# %% [markdown]
# ## Compare with the package
#
# `batch` cuts B windows at places that are a function of the seed and the step: there is no
# generator whose state could be lost. Step 7 of a resumed run is step 7 of the run that was never
# interrupted, and each of several processes can compute its rows alone.

# %%
inputs, targets = batch(tokens, batch_size=3, block_size=4, seed=0, step=7)
for x, y in zip(inputs, targets):
    print(repr(tokenizer.decode(x)), "→", repr(tokenizer.decode(y)))
assert (inputs[:, 1:] == targets[:, :-1]).all()
again, _ = batch(tokens, 3, 4, seed=0, step=7, rows=range(1, 3))
assert (again == inputs[1:]).all()

# %% [markdown]
# ## Derive: documents that share a window
#
# In the window `l o <end> h` the `h` of `hi` can see `lo` of `hello`. Usually that is accepted. It
# need not be: the array `first_key` says for each place which token is the first it may look at,
# positions can count from the document's beginning, and the end-of-text token's own target (the
# next document's first letter, which nothing announces) can be ignored. Then the packed row has
# exactly the loss of its documents one by one.

# %%
row = tokens[None, :-1].astype(np.int64)
following = tokens[None, 1:].astype(np.int64)
targets, positions, first_key = document_masks(row, following, tokenizer.eot_id)
print("first_key", first_key[0])
print("positions", positions[0])
print("targets  ", targets[0])

# %% [markdown]
# ## Check

# %%
model = GPT(GPTConfig(tokenizer.n_vocab, 32, n_layer=2, n_head=2, n_embd=8), seed=1, dtype=np.float64, ops=layers)
packed = model.loss(row, targets, positions=positions, first_key=first_key)
total, count = 0.0, 0
for document in documents:
    ids = np.array([[*tokenizer.encode(document), tokenizer.eot_id]])
    total += model.loss(ids[:, :-1], ids[:, 1:]) * (ids.size - 1)
    count += ids.size - 1
print(packed, total / count)
assert abs(packed - total / count) < 1e-12

# %% [markdown]
# ## Break it
#
# Leave `first_key` out, and the loss is another one: letters are now predicted from another
# document's.

# %%
leaking = model.loss(row, targets, positions=positions)
assert abs(leaking - packed) > 1e-9

# %% [markdown]
# ## Exercise
#
# Why does a batch of windows from one long row waste nothing, where a batch of single documents
# padded to the longest would? Compute the share of padding for our three documents. (Answer: padded
# to 13, the three rows hold 39 places, of which 22 are tokens: 44 % is padding. The long row has
# none.)

# %%
longest = max(map(len, documents)) + 1
assert round(100 * (1 - len(tokens) / (longest * len(documents)))) == 44
inputs, targets = batch(tokens, batch_size=50, block_size=4, seed=3, step=0)
assert (inputs[:, 1:] == targets[:, :-1]).all() and inputs.shape == targets.shape == (50, 4)
targets, positions, first_key = document_masks(row, following, tokenizer.eot_id)
packed = model.loss(row, targets, positions=positions, first_key=first_key)
assert abs(packed - total / count) < 1e-12
print("lesson 2 holds")
