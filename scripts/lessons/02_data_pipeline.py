# %% [markdown]
# # 2. Tokens become batches
#
# Training needs arrays of one shape: inputs, and targets that are the same tokens one position
# further. From somebody's files to such arrays there are five stages: read, normalise, encode, pack,
# sample.
#
# **Symbols.** B: number of sequences in a batch; T: positions in a sequence; t: one position, from 0
# to T − 1.
#
# **Predict.** With T = 4, how many predictions does one window of five tokens train? And which part
# of the text does the first of them see?

# %%
import pathlib
import tempfile

import numpy as np

from gpt_numpy import CharTokenizer
from gpt_numpy.data import batch, count_blocks, document_masks, epoch_batch, normalize, pack, read_documents
from gpt_numpy.data.rows.fitting import concat_cuts, count_cuts, fit_rows
from gpt_numpy.study.drawing import grid, show

# %% [markdown]
# ## Read and normalise: a file of your own
#
# `read_documents` takes files and folders and gives one text a document. `normalize` makes equal
# what only looks equal: "é" can be one character or an e with an accent, a line can end in \n or in
# \r\n. Each variant would become other tokens. (`gpt-numpy data prepare notes/` runs all stages and
# writes shards; the path below could be yours.)

# %%
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "notes.txt"
    path.write_bytes("caf\u0065\u0301  \r\nis open".encode())
    (raw,) = read_documents([str(path)])
print(repr(raw), "→", repr(normalize(raw)))
assert normalize(raw).startswith("caf\u00e9") and "\r" not in normalize(raw)

# %% [markdown]
# ## Encode and pack
#
# Documents have any length, so they are joined with an end-of-text token between them, and windows
# are cut out of the long row.

# %%
documents = ["hello", "hi", "good morning"]
tokenizer = CharTokenizer.train(documents, special_tokens=("<|endoftext|>",))
tokens = pack([tokenizer.encode(d) for d in documents], tokenizer.eot_id)
print(tokens, "end of text is", tokenizer.eot_id)
colours = np.cumsum(tokens == tokenizer.eot_id) - (tokens == tokenizer.eot_id)
names = ["<end>" if i == tokenizer.eot_id else tokenizer.decode([i]) for i in tokens]
show(grid({"one row": list(zip(names, colours))}, "Three documents in one row of tokens, each with its end"))

# %% [markdown]
# ## By hand
#
# `hello` and `hi` have 5 and 2 letters; with an end after each document, the row has 5+1 + 2+1 +
# 12+1 = 22 tokens. A window of T + 1 = 5 tokens starting at 3 is `l o <end> h i`: inputs `l o <end>
# h`, targets `o <end> h i`.

# %% [answer]
# **Answer:** every one of the four positions makes a prediction; the one at position t sees the
# inputs 0 … t. So one window trains four predictions, with one to four tokens of context, and the
# first sees one token.

# %%
assert len(tokens) == 22
window = tokens[3:8]
inputs, targets = window[:-1], window[1:]
print(tokenizer.decode(inputs), "→", tokenizer.decode(targets))
assert (inputs[1:] == targets[:-1]).all()

# %% [markdown]
# ## Sample: at random, or in epochs
#
# `batch` cuts B windows at positions that are a function of the seed and the step: there is no
# generator whose state could be lost. Step 7 of a resumed run is step 7 of the run that was never
# interrupted, and each of several processes can compute its rows alone.
#
# Random windows repeat some tokens before they reach others. An *epoch* takes each window once, in
# shuffled order: `epoch_batch` cuts the row into non-overlapping blocks and visits every block
# before it visits one again.

# %%
inputs, targets = batch(tokens, batch_size=3, block_size=4, seed=0, step=7)
for x, y in zip(inputs, targets):
    print(repr(tokenizer.decode(x)), "→", repr(tokenizer.decode(y)))
assert (inputs[:, 1:] == targets[:, :-1]).all()
again, _ = batch(tokens, 3, 4, seed=0, step=7, rows=range(1, 3))
assert (again == inputs[1:]).all()
blocks = [epoch_batch(tokens, 1, 4, seed=0, step=step)[0].tolist() for step in range(count_blocks(tokens, 4))]
print(len(blocks), "blocks in an epoch")
assert len({str(block) for block in blocks}) == count_blocks(tokens, 4) == 5

# %% [markdown]
# ## Documents that share a window
#
# In the window `l o <end> h` the `h` of `hi` can see `lo` of `hello`. Usually that is accepted. It
# need not be. `document_masks` returns three arrays for it. `first_key` says for each position which
# token is the first it may look at. Positions count from the document's beginning. And the
# end-of-text token's own target (the next document's first letter, which nothing announces) is
# ignored: −1.

# %%
row = tokens[None, :-1].astype(np.int64)
following = tokens[None, 1:].astype(np.int64)
targets, positions, first_key = document_masks(row, following, tokenizer.eot_id)
print("first_key", first_key[0])
print("positions", positions[0])
print("targets  ", targets[0])

# %% [markdown]
# ## Check
#
# Written out for each position: what it may see is its own document up to itself, and nothing else.


# %%
def seen_by(t, first_key):
    return tokenizer.decode(row[0, first_key[0, t] : t + 1].tolist())


own = [document[: i + 1] for document in documents for i in range(len(document))]
letters = np.flatnonzero(row[0] != tokenizer.eot_id)
assert [seen_by(t, first_key) for t in letters] == own
assert (targets[row == tokenizer.eot_id] == -1).all()

# %% [markdown]
# ## Break it
#
# With first_key = 0 everywhere, the `h` of `hi` sees `hello<end>h`.

# %%
leaking = np.zeros_like(first_key)
print([seen_by(t, leaking) for t in letters][5])
assert [seen_by(t, leaking) for t in letters] != own

# %% [markdown]
# ## Best fit: fewer documents cut in two
#
# Cutting one long row into blocks cuts many documents. *Best-fit packing* puts whole documents into
# rows instead, longest first, each into the row with the least room that still takes it. Both lose
# little: compare the number of documents that are cut, for 200 documents of 1 to 60 tokens and rows
# of 64.

# %%
lengths = np.random.default_rng(0).integers(1, 61, 200)
rows = fit_rows(lengths.tolist(), 64)
cut_by_blocks, cut_by_best_fit = concat_cuts(lengths.tolist(), 63)[0], count_cuts(rows)[0]
print(f"cuts: {cut_by_blocks} in blocks, {cut_by_best_fit} with best fit, in {len(rows)} rows")
assert cut_by_best_fit < cut_by_blocks

# %% [markdown]
# ## Exercise
#
# Why does a batch of windows from one long row waste nothing, where a batch of single documents
# padded to the longest would? Compute the share of padding for our three documents.

# %% [answer]
# **Answer:** padded to 13, the three rows hold 39 positions, of which 22 are tokens: 44 % is
# padding. The long row has none.

# %% [proof]
longest = max(map(len, documents)) + 1
assert round(100 * (1 - len(tokens) / (longest * len(documents)))) == 44
inputs, targets = batch(tokens, batch_size=50, block_size=4, seed=3, step=0)
assert (inputs[:, 1:] == targets[:, :-1]).all() and inputs.shape == targets.shape == (50, 4)
targets, positions, first_key = document_masks(row, following, tokenizer.eot_id)
assert [seen_by(t, first_key) for t in letters] == own
print("lesson 2 holds")
