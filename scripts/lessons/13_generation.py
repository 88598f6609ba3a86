# %% [markdown]
# # 13. Writing text: sampling and the key-value cache
#
# A trained model gives logits for the next token. Choose one, append it, repeat. Done naively,
# every new token costs a forward pass over everything so far, although nothing about the earlier
# places has changed: nobody sees the future.
#
# **Predict.** Generating the 100th token naively multiplies how many rows with every weight? And
# with the keys and values of the first 99 kept?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, KVCache, generate, layers
from gpt_numpy.inference import Sampling
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.study.whole_model import unit_scale

config = GPTConfig(vocab_size=11, block_size=32, n_layer=2, n_head=3, n_embd=12)
model = GPT(config, dtype=np.float64, ops=layers)
unit_scale(model.params, np.random.default_rng(0))

# %% [markdown]
# ## Derive
#
# Place t's output depends on its own query and on the keys and values of places ≤ t. Keys and
# values of earlier places never change once computed. So keep them: a new token needs one query row
# against the kept keys, one row through every matrix. (100 rows against 1.)
#
# ## Compare: cached equals uncached

# %%
tokens = np.random.default_rng(1).integers(0, 11, (1, 12))
cache = KVCache(config, batch=1, dtype=np.float64)
decoder = OpsDecoder(model)
pieces = [decoder.extend(tokens[:, a:b], cache, every=True) for a, b in ((0, 7), (7, 8), (8, 12))]
cached = np.concatenate(pieces, axis=1)
whole = model.forward(tokens)
print("largest difference", np.abs(cached - whole).max())
assert np.allclose(cached, whole, rtol=1e-11, atol=1e-12)
assert cache.lengths.tolist() == [12]

# %% [markdown]
# ## By hand: sampling, on three logits
#
# Logits log 1, log 2, log 5 are probabilities ⅛, ¼, ⅝. Temperature ½ squares them: 1, 4, 25 over
# 30. Temperature 0 always takes the largest. top_k = 2 keeps ¼ and ⅝, which are then 2/7 and 5/7.
# top_p = 0.6 keeps the fewest that reach 0.6: ⅝ alone.

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
print(generated)
assert generated.tolist() == sequence[3:]
assert np.array_equal(generate(model, prompt, 10, seed=5), generate(model, prompt, 10, seed=5))

# %% [markdown]
# ## Break it
#
# Forget that a cached token has a position: feed the second piece at position 0 again, and the
# logits are wrong though every key and value is where it belongs.

# %%
wrong = model.forward(tokens, positions=np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]))
assert np.abs(wrong[:, 7:] - whole[:, 7:]).max() > 1e-3 and np.array_equal(wrong[:, :7], whole[:, :7])

# %% [markdown]
# ## Exercise
#
# How many bytes does GPT-2's cache hold for 1,024 tokens in float32? (Answer: keys and values, 12
# layers, 768 numbers of 4 bytes each: 2 · 12 · 768 · 4 = 73,728 bytes a token, 75.5 MB.)

# %%
small = KVCache(config, batch=1, dtype=np.float32)
OpsDecoder(GPT(config, ops=layers)).extend(tokens, small)
assert small.nbytes == 12 * 2 * config.n_layer * config.n_embd * 4
assert 2 * 12 * 768 * 4 * 1024 == 75_497_472
for cut in range(1, 12):
    cache = KVCache(config, batch=1, dtype=np.float64)
    decoder.extend(tokens[:, :cut], cache)
    assert np.allclose(decoder.extend(tokens[:, cut:], cache), whole[:, -1], rtol=1e-11, atol=1e-12)
print("lesson 13 holds")
