# %% [markdown]
# # 13. Writing text: sampling and the key-value cache
#
# A trained model gives logits for the next token. Choose one, append it, repeat. Done naively, every
# new token costs a forward pass over everything so far, although nothing about the earlier positions
# has changed: no position sees a later one.
#
# **Symbols.** t: a position; k, v: keys and values of all positions so far; q: the query of one
# position; C: channels; L: blocks; row: the C numbers of one position; d: the width of a head; out: attention's output.
#
# **Predict.** Generating the 100th token naively multiplies how many rows with every weight? And with
# the keys and values of the first 98 kept?

# %%
import time

import numpy as np

from gpt_numpy import GPT, GPTConfig, KVCache, generate, layers
from gpt_numpy.inference import Sampling
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.study.drawing import bars, grid, show
from gpt_numpy.study.whole_model import unit_scale

config = GPTConfig(vocab_size=11, block_size=32, n_layer=2, n_head=3, n_embd=12)
model = GPT(config, dtype=np.float64, ops=layers)
unit_scale(model.params, np.random.default_rng(0))

# %% [markdown]
# ## Derive
#
# Position t's output depends on its own query and on the keys and values of positions <= t. Keys and
# values of earlier positions never change once computed. So keep them: the *key-value cache*. A new
# token then needs one row through every matrix, and one query against the kept keys:
#
#     out_t = softmax(q_t · kᵀ / √d) · v        k, v: positions 0 … t

# %% [answer]
# **Answer:** the 100th token is predicted from the 99 before it: naively, 99 rows go through every
# matrix. With 98 positions in the cache, only the 99th does: one row.

# %%
kept, new = [(f"k{t} v{t}", 0) for t in range(6)], [("k6 v6", 1)]
rows = {"cache before": kept, "after a token": kept + new, "its query sees": kept + new}
show(grid(rows, "A new token adds one key and one value, and sees all"))

# %% [markdown]
# ## Compare: cached equals uncached
#
# Twelve tokens in three pieces, of 7, 1 and 4.

# %%
tokens = np.random.default_rng(1).integers(0, 11, (1, 12))
cache = KVCache(config, batch=1, dtype=np.float64)
decoder = OpsDecoder(model)
pieces = [decoder.extend(tokens[:, a:b], cache, every=True) for a, b in ((0, 7), (7, 8), (8, 12))]
cached = np.concatenate(pieces, axis=1)
whole = model.forward(tokens)
print(f"largest difference {np.abs(cached - whole).max():.0e}")
assert np.allclose(cached, whole, rtol=1e-11, atol=1e-12)
assert cache.lengths.tolist() == [12]

# %% [markdown]
# ## Measure: the prompt at once, then token by token
#
# *Prefill* puts the prompt's keys and values into the cache: many rows at once, large products. *Decode*
# adds one token: every weight is read for a single row, so memory is what limits it. The third bar is
# what a token costs without a cache. (Times differ from machine to machine; the order does not.)

# %%
larger = GPTConfig(vocab_size=500, block_size=256, n_layer=4, n_head=4, n_embd=128)
text = np.random.default_rng(2).integers(0, 500, (1, 128))
model_32 = GPT(larger, ops=layers)
timed = OpsDecoder(model_32)


def milliseconds(function, n=3):
    taken = []
    for _ in range(n):
        started = time.perf_counter()
        function()
        taken.append(1e3 * (time.perf_counter() - started))
    return sorted(taken)[n // 2]


filled = KVCache(larger, batch=1)
prefill = milliseconds(lambda: timed.extend(text, KVCache(larger, batch=1)))
timed.extend(text, filled)
decode = milliseconds(lambda: timed.extend(text[:, :1], filled))
naive = milliseconds(lambda: model_32.forward(text))
times = {"prefill, a token": prefill / 128, "decode, a token": decode, "no cache, a token": naive}
show(bars(times, "Milliseconds a token", "ms"))

# %% [markdown]
# ## By hand: sampling, on three logits
#
# Logits log 1, log 2, log 5 are probabilities ⅛, ¼, ⅝. Temperature ½ squares them: 1, 4, 25 over 30.
# Temperature 0 always takes the largest. top_k = 2 keeps ¼ and ⅝, which are then 2/7 and 5/7. top_p =
# 0.6 keeps the fewest that reach 0.6: ⅝ alone.

# %%
logits = np.log(np.array([1.0, 2.0, 5.0]))


def distribution(**options):
    ids, probabilities = Sampling(**options).distribution(logits, [])
    full = np.zeros(3)
    full[ids] = probabilities
    return full


assert np.allclose(distribution(temperature=1.0), [1 / 8, 1 / 4, 5 / 8])
assert np.allclose(distribution(temperature=0.5), [1 / 30, 4 / 30, 25 / 30])
assert np.allclose(distribution(temperature=1.0, top_k=2), [0, 2 / 7, 5 / 7])
assert np.allclose(distribution(temperature=1.0, top_p=0.6), [0, 0, 1])

# %% [markdown]
# ## Check: greedy generation is the argmax of the full forward, again and again

# %%
prompt = [3, 1, 4]
sequence = list(prompt)
for _ in range(10):
    sequence.append(int(model.forward(np.array([sequence]))[0, -1].argmax()))
generated = generate(model, prompt, 10, temperature=0)
print("generated", generated)
assert generated.tolist() == sequence[3:]
assert np.array_equal(generate(model, prompt, 10, seed=5), generate(model, prompt, 10, seed=5))

# %% [markdown]
# ## Break it
#
# Forget that a cached token has a position: feed the second piece at position 0 again. Every key and
# value is in the right row of the cache, and the logits are wrong.

# %%
wrong = model.forward(tokens, positions=np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]))
assert np.abs(wrong[:, 7:] - whole[:, 7:]).max() > 1e-3 and np.array_equal(wrong[:, :7], whole[:, :7])

# %% [markdown]
# ## Exercise
#
# How many bytes does GPT-2's cache hold for 1,024 tokens in float32? (And write it: `gpt-numpy study
# exercise cache`, then `sampling`.)

# %% [answer]
# **Answer:** keys and values, L = 12 blocks, C = 768 numbers of 4 bytes each: 2 · 12 · 768 · 4 = 73,728
# bytes a token, 75.5 MB.

# %% [proof]
small = KVCache(config, batch=1, dtype=np.float32)
OpsDecoder(GPT(config, ops=layers)).extend(tokens, small)
assert small.nbytes == 12 * 2 * config.n_layer * config.n_embd * 4
assert 2 * 12 * 768 * 4 * 1024 == 75_497_472
for cut in range(1, 12):
    cache = KVCache(config, batch=1, dtype=np.float64)
    decoder.extend(tokens[:, :cut], cache)
    assert np.allclose(decoder.extend(tokens[:, cut:], cache), whole[:, -1], rtol=1e-11, atol=1e-12)
print("lesson 13 holds")
