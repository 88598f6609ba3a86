# %% [markdown]
# # Lab 2. Prefill, decode, no cache: three speeds of one model
#
# A machine has two limits: the operations that its processors do in a second, and the bytes that its
# memory delivers in a second. Reading a prompt (*prefill*), writing a token with a key-value cache
# (*decode*), and writing a token without one do the same arithmetic with the same weights. They meet
# different limits. This lab measures both limits, counts, predicts, and compares.
#
# **Symbols.** s: seconds; N: the model's weights that a token is multiplied with; P: tokens of the
# prompt; R: the machine's operations a second; W: bytes a second from memory; n: sequences that are
# written at once.
#
# ## Derive
#
# A token takes one multiply-add a weight, which is 2N operations. A weight in float32 has 4 bytes, and all
# weights are read once a call, whatever the number of tokens in that call. So a call takes at least
#
#     prefill, P tokens:    arithmetic 2NP / R,    memory 4N / W
#     decode, one token:    arithmetic 2N / R,     memory 4N / W
#
# (The attention to earlier tokens, and the cache that it reads, are left out here. The measurement below
# counts them.)
#
# **Predict.** Take R = 200 GFLOP/s and W = 20 GB/s. Which limit holds for a prompt of 128 tokens, and which
# for decode? How many times longer than a token of a prompt does a new token take? And without a cache, when
# all 128 tokens before it go through the model again?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, KVCache, kernels, machine
from gpt_numpy.inference.figures import Meter
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.machine.cost import generation_bytes_per_token, generation_flops_per_token
from gpt_numpy.study.drawing import bars, graph, show

# %% [answer]
# **Answer:** a prompt of P tokens does P/2 operations for each byte that it reads, the machine R/W = 10.
# P/2 = 64 is more, so arithmetic limits prefill: 2N/R = N · 10⁻¹¹ s a token. Decode does half an operation a
# byte, so memory limits it: 4N/W = N · 2·10⁻¹⁰ s, which is 20 times as long. Without a cache, a token costs
# the prefill of all tokens before it: 128 times a prompt's token.

# %% [proof]
R, W, P = 200e9, 20e9, 128
prefill = max(2 * P / R, 4 / W) / P  # seconds a token and weight
decode = max(2 / R, 4 / W)
assert prefill == 2 / R and round(decode / prefill) == 20 and round(P * prefill / prefill) == 128

# %% [markdown]
# ## The machine, measured now
#
# Both limits are measured with all cores: chains of multiply-adds in registers, and a sum over an array far
# larger than any cache.

# %%
peak, bandwidth = machine.peak_flops(), machine.read_bandwidth()
print(f"this machine now: {peak / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.1f} GB/s: R/W = {peak / bandwidth:.0f}")
show(
    graph(
        {
            "weights": (0, 0, "in memory", "4N bytes"),
            "keys, values": (0, 1, "in memory", "the cache"),
            "arithmetic": (1, 0, "2N operations", "a token"),
            "logits": (2, 0, "(V,)"),
        },
        [
            *[("weights", "arithmetic", "W bytes a second"), ("keys, values", "arithmetic")],
            ("arithmetic", "logits", "R operations a second"),
        ],
        "Every call reads all weights once, however many tokens it computes",
    )
)

# %% [markdown]
# ## Measure
#
# A model whose weights are larger than most caches, so that memory has to deliver them for each call. `Meter`
# counts operations and bytes by the formulas of `gpt_numpy.machine.cost`, and takes the time.

# %%
config = GPTConfig(vocab_size=1000, block_size=256, n_layer=4, n_head=8, n_embd=512)
decoder = PanelDecoder.pack(GPT(config, ops=kernels))
text = np.random.default_rng(0).integers(0, 1000, (1, 160))
N = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
print(f"N = {N / 1e6:.1f} million weights, {4 * N / 1e6:.0f} MB")


def measured():
    """``(prefill, decode, no cache)``, each with its tokens, seconds, operations and bytes."""
    meter, cache = Meter(decoder), KVCache(config)
    meter.extend(text[:, :128], cache)
    for t in range(128, 160):
        meter.extend(text[:, t : t + 1], cache)
    again = Meter(decoder)
    for t in range(128, 132):  # all tokens before it, for each new one
        again.extend(text[:, : t + 1], KVCache(config))
    return meter.prefill, meter.decode, again.prefill


measured()  # the first time compiles
phases = dict(zip(("prefill", "decode", "no cache"), measured()))
shares = {}
for name, phase in phases.items():
    shares[f"{name}: of the arithmetic"] = 100 * phase.flops / phase.seconds / peak
    shares[f"{name}: of the memory"] = 100 * phase.bytes / phase.seconds / bandwidth
show(bars(shares, "Shares of the machine's two limits", "%"))

# %% [markdown]
# Prefill and the calls without a cache come near the arithmetic limit, decode near the memory's. So "no cache"
# uses the machine well, and for nothing: of the tokens of a call, one is new.

# %%
new_tokens = {"prefill": 128, "decode": 32, "no cache": 4}
useful = {name: 1e3 * phase.seconds / new_tokens[name] for name, phase in phases.items()}
show(bars(useful, "Milliseconds for a token that was not known before", "ms"))

# %% [markdown]
# ## Check
#
# The counts are the formulas above plus attention, and a cache changes no result.

# %%
assert generation_flops_per_token(config, context=0) == 2 * N
assert phases["decode"].flops == sum(generation_flops_per_token(config, t) for t in range(128, 160))
weights = decoder.weights.bytes_per_token
assert phases["decode"].bytes == sum(generation_bytes_per_token(config, weights, t) for t in range(128, 160))
cache = KVCache(config)
decoder.extend(text[:, :128], cache)
one = decoder.extend(text[:, 128:129], cache)
all_again = decoder.extend(text[:, :129], KVCache(config))
print(f"cached against not cached: {np.abs(one - all_again).max():.0e}")
assert np.allclose(one, all_again, rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## Exercise
#
# Many sequences can be written at once: n new tokens in one call, one for each sequence. How many until
# arithmetic becomes the limit, for R = 200 GFLOP/s and W = 20 GB/s? And what do weights of one byte change?

# %% [answer]
# **Answer:** n tokens take 2Nn/R of arithmetic and 4N/W of memory: equal at n = 2R/W = 20. Up to there another
# sequence costs nearly nothing. With one byte a weight, memory takes N/W: a single token is four times as
# fast, and arithmetic is the limit from n = 5 on. (This is why servers batch requests, and why
# `gpt-numpy quantize` speeds up generation, not prefill.)

# %% [proof]
assert 2 * R / W == 20 and R / W / 2 == 5
for n in (1, 4, 16):
    meter, cache = Meter(decoder), KVCache(config, batch=n)
    prompts = np.tile(text[:, :8], (n, 1))
    decoder.extend(prompts, cache)
    for t in range(8, 24):
        meter.extend(np.tile(text[:, t : t + 1], (n, 1)), cache)
    phase = meter.decode
    print(f"{n:2} at once: {phase.tokens / phase.seconds:,.0f} tokens a second")
    assert phase.tokens == 16 * n
print("lab 2 holds")
