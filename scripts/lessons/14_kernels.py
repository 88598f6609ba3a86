# %% [markdown]
# # 14. The same numbers, faster: kernels
#
# `gpt_numpy.kernels` has the functions of `gpt_numpy.layers` under the same names, compiled by
# numba. NumPy's arithmetic is fast; its memory traffic is what costs: every operation reads whole arrays
# and writes a whole array.
#
# **Symbols.** x: the input, an array of S numbers; S: how many they are; u: tanh's argument in GELU (lesson 5);
# r, dxhat, xhat: the layernorm of lesson 7; M, K, N: sizes of a matrix product, (M, K) · (K, N); n: the
# size of square matrices; mean: over a row; ∘: entry by entry; s: seconds.
#
# **Predict.** Count every array of x's size that is read or written, each time. `layers.gelu_forward`
# has about a dozen operations. How many reads and writes are these? How many does one need at least?

# %%
import time

import numpy as np

from gpt_numpy import kernels, layers
from gpt_numpy.study import cases
from gpt_numpy.study.drawing import bars, show

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
# ## By hand: reads and writes
#
# One way of counting for both: arrays of x's size read, arrays written. (A Boolean array is a quarter
# of a float32 array.)

# %%
operations = {  # of layers.gelu_forward, in order: (reads, writes)
    "clip x": (1, 1),
    "0.044715 · x": (1, 1),
    "… · x": (2, 1),
    "… · x ": (2, 1),
    "x + …": (2, 1),
    "√(2/π) · …": (1, 1),
    "tanh": (1, 1),
    "1 + …": (1, 1),
    "½ · …": (1, 1),
    "x == −∞": (1, 0.25),
    "where": (1.25, 1),
    "x · gate": (2, 1),
}
traffic = sum(reads + writes for reads, writes in operations.values())
show(bars({"NumPy": traffic, "one kernel": 2}, "Reads and writes of arrays of x's size", "arrays"))
assert len(operations) == 12 and traffic == 27.5

# %% [answer]
# **Answer:** NumPy's twelve operations read and write about 27 arrays. A fused kernel reads x and
# writes the result, which is two; everything between stays in registers.

# %% [markdown]
# 512 · 3072 float32 are 6.3 MB. Two of them are 12.6 MB; at 20 GB/s of memory bandwidth that is 0.6 ms.
# 27 of them are 8.5 ms, before any arithmetic.
#
# The measured ratio has more causes than traffic. The kernel also runs on several threads, computes 4
# to 16 numbers at once in vector registers, and its tanh is a short polynomial.

# %%
slow, fast = milliseconds(layers.gelu_forward, x), milliseconds(kernels.gelu_forward, x)
print(f"NumPy {slow:.1f} ms, kernel {fast:.1f} ms: {slow / fast:.0f} times")
megabytes = x.nbytes / 1e6
assert abs(megabytes - 6.3) < 0.01 and abs(2 * megabytes / 20 - 0.63) < 0.01 and abs(27 * megabytes / 20 - 8.5) < 0.1

# %% [markdown]
# ## Derive: fusing the layernorm's backward
#
#     dx = r · (dxhat − mean(dxhat) − xhat · mean(dxhat ∘ xhat))
#
# This needs two sums over a row and then one pass. The row is still in the processor's cache when it is
# read again, so memory delivers it once. The specification makes a dozen arrays for the same result.

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
# A vector register holds 4, 8 or 16 numbers, a row any number. The *tail* is what is left over. Here is
# a kernel that forgets it: right for every width that 4 divides, wrong for the others. So check all
# widths from 1 to 40, and not only round ones.


# %%
def without_tail(row):
    out = kernels.gelu_forward(row)[0].copy()
    out[..., row.shape[-1] - row.shape[-1] % 4 :] = 0
    return out


wrong_for = []
for width in range(1, 41):
    row = rng.normal(size=(3, width))
    right = layers.gelu_forward(row)[0]
    assert np.allclose(kernels.gelu_forward(row)[0], right, rtol=1e-12), width
    if not np.allclose(without_tail(row), right):
        wrong_for.append(width)
assert wrong_for == [width for width in range(1, 41) if width % 4]

# %% [markdown]
# ## Exercise
#
# A matrix product (M, K) · (K, N) does 2MKN operations on MK + KN + MN numbers. Above which size is
# it limited by arithmetic and not by memory, if a machine does 100 GFLOP/s and reads 20 GB/s? (And
# write attention in tiles: `gpt-numpy study exercise online-softmax`.)

# %% [answer]
# **Answer:** for squares of size n, 2n³/10¹¹ s against 12n²/2·10¹⁰ s: equal at n = 30. Products are
# worth blocking and vectorising, GELU is worth fusing.

# %% [proof]
n = 12 / 2e10 / (2 / 1e11)
assert round(n) == 30
for width in (1, 7, 16, 37):
    row = rng.normal(size=(5, width))
    dout = rng.normal(size=(5, width))
    fast = kernels.gelu_backward(dout, kernels.gelu_forward(row)[1])
    assert np.allclose(fast, layers.gelu_backward(dout, layers.gelu_forward(row)[1]), rtol=1e-10, atol=1e-13)
print("lesson 14 holds")
