# %% [markdown]
# # 14. The same numbers, faster: kernels
#
# `gpt_numpy.kernels` has the functions of `gpt_numpy.layers` under the same names, compiled by
# numba. What makes NumPy slow is not its arithmetic but its memory traffic: every operation reads
# whole arrays and writes a whole array.
#
# **Predict.** `layers.gelu_forward` makes about ten passes over arrays of x's size. How many does
# one need at least?

# %%
import time

import numpy as np

from gpt_numpy import kernels, layers
from gpt_numpy.study import cases

rng = np.random.default_rng(0)
x = rng.normal(size=(512, 3072)).astype(np.float32)


def milliseconds(function, *args, n=7):
    function(*args)  # the first call may compile
    times = []
    for _ in range(n):
        started = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - started)
    return 1e3 * sorted(times)[n // 2]


# %% [markdown]
# Read x once, write the result once: two. A fused kernel keeps everything between in registers.
#
# ## By hand: the bytes
#
# 512 · 3072 float32 are 6.3 MB. Two passes are 12.6 MB; at 20 GB/s of memory bandwidth that is 0.6
# ms. Ten passes are 3 ms, before any arithmetic. So the time tells how many passes there were.

# %%
slow, fast = milliseconds(layers.gelu_forward, x), milliseconds(kernels.gelu_forward, x)
print(f"NumPy {slow:.1f} ms, kernel {fast:.1f} ms: {slow / fast:.0f} times")

# %% [markdown]
# ## Derive: fusing the layernorm's backward
#
# dx = r (dxhat − mean(dxhat) − xhat · mean(dxhat ∘ xhat)) needs two sums over a row and then one
# pass: the row is still in the cache when it is read again, so memory sees it once. The
# specification makes a dozen arrays for the same thing.

# %%
weight, bias, dout = rng.normal(size=(3072,)), rng.normal(size=(3072,)), rng.normal(size=x.shape)
weight, bias, dout = (a.astype(np.float32) for a in (weight, bias, dout))
_, slow_cache = layers.layernorm_forward(x, weight, bias)
_, fast_cache = kernels.layernorm_forward(x, weight, bias)
slow = milliseconds(layers.layernorm_backward, dout, slow_cache)
fast = milliseconds(kernels.layernorm_backward, dout, fast_cache)
print(f"layernorm backward: NumPy {slow:.1f} ms, kernel {fast:.1f} ms: {slow / fast:.0f} times")

# %% [markdown]
# ## Compare: the same numbers
#
# Not the same bits: a sum in another order rounds differently. In float64 both must agree to many
# digits, and a kernel must agree with itself to the last bit however often it runs.

# %%
compared = []
for case in cases.layer_cases(layers):
    twin = getattr(kernels, case.forward.__name__, None)
    if twin is not None:
        assert np.allclose(case.forward(**case.inputs)[0], twin(**case.inputs)[0], rtol=1e-10, atol=1e-12), case.name
        compared.append(case.name)
print("agree:", ", ".join(compared))
assert len(compared) >= 15

# %% [markdown]
# ## Check
#
# Kernels run in float64 too, so that differences can check them as they check the specification.

# %%
inputs = dict(x=x[:4, :37].astype(np.float64))
report = cases.check_gradients(kernels.gelu_forward, kernels.gelu_backward, inputs)
print(f"{report.checked} entries, error {report.tensors[0].error:.0e}")
assert report.passed

# %% [markdown]
# ## Break it
#
# Vectors have 4, 8 or 16 numbers, rows any length. A kernel that forgets the tail is right for
# every width that divides evenly: check widths that do not. Here, all from 1 to 40.

# %%
for width in range(1, 41):
    row = rng.normal(size=(3, width))
    assert np.allclose(kernels.gelu_forward(row)[0], layers.gelu_forward(row)[0], rtol=1e-12), width

# %% [markdown]
# ## Exercise
#
# A matrix product (M, K) · (K, N) does 2MKN operations on MK + KN + MN numbers. Above which size is
# it limited by arithmetic and not by memory, if a machine does 100 GFLOP/s and reads 20 GB/s?
# (Answer: for squares of size n, 2n³/10¹¹ s against 12n²/2·10¹⁰ s: equal at n = 30. Products are
# worth blocking and vectorising, GELU is worth fusing.)

# %%
n = 12 / 2e10 / (2 / 1e11)
assert round(n) == 30
for width in (1, 7, 16, 37):
    row = rng.normal(size=(5, width))
    dout = rng.normal(size=(5, width))
    fast = kernels.gelu_backward(dout, kernels.gelu_forward(row)[1])
    assert np.allclose(fast, layers.gelu_backward(dout, layers.gelu_forward(row)[1]), rtol=1e-10, atol=1e-13)
print("lesson 14 holds")
