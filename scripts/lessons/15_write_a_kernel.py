# %% [markdown]
# # 15. Write a kernel
#
# A kernel is a function that numba compiles to machine code. In it a loop over numbers costs nothing
# extra, so one can write what NumPy cannot say: "for each row, do all of this, then go on". This lesson
# writes one for softmax, checks it, measures it, and lets it use several cores.
#
# **Symbols.** x: scores, (N, V); N: number of rows; V: numbers in a row; n: a row; j: a column; m: the
# largest score of a row; Σ_j: the sum over a row; out: the weights.
#
# **Predict.** Softmax of a row in NumPy: maximum, subtraction, exp, sum, division. Count the arrays of
# x's size that are read or written. How many does a kernel need that finishes a row before it begins
# the next?

# %%
import math
import time

import numpy as np
from numba import njit, prange

from gpt_numpy.layers.attention import softmax
from gpt_numpy.study.drawing import bars, show

rng = np.random.default_rng(0)

# %% [markdown]
# ## By hand: one row
#
#     m = max_j x_nj
#     out_nj = exp(x_nj − m) / Σ_j exp(x_nj − m)
#
# For the row (log 1, log 2, log 5): m = log 5, the exponentials are 1/5, 2/5 and 1, their sum 8/5, and
# the result ⅛, ¼, ⅝. (max_j: the maximum over a row.)
#
# ## Derive: three loops a row
#
# The order of the loops is the point: all three run over one row while it is in the processor's cache.


# %%
@njit
def softmax_rows(x, out):
    for n in range(x.shape[0]):
        m = x[n, 0]
        for j in range(x.shape[1]):
            m = max(m, x[n, j])
        total = 0.0
        for j in range(x.shape[1]):
            out[n, j] = math.exp(x[n, j] - m)
            total += out[n, j]
        for j in range(x.shape[1]):
            out[n, j] /= total


row = np.log(np.array([[1.0, 2.0, 5.0]]))
out = np.empty_like(row)
started = time.perf_counter()
softmax_rows(row, out)
print(f"the first call compiles: {time.perf_counter() - started:.2f} s;  result {out}")
assert np.allclose(out, [[1 / 8, 1 / 4, 5 / 8]])

# %% [answer]
# **Answer:** NumPy reads x twice (maximum, subtraction), the difference once, the exponentials twice
# (sum, division), and writes three arrays: eight in all. The kernel's row stays in the cache, so memory
# delivers x once and takes out once: two.

# %% [markdown]
# ## What numba needs
#
# - The types of the arguments are fixed at the first call; other types compile again.
# - Plain loops, numbers and arrays. No dictionaries of arrays, no `keepdims`.
# - The caller allocates `out`: a kernel that allocates inside a loop is slow again.
# - No bounds checks: an index that is too large reads or writes somewhere else. Check shapes before.
#
# ## Check: all widths, and numbers that overflow
#
# The specification is `layers`. A kernel sums in another order, so it agrees to rounding and not to the
# bit. exp(1000) is infinite; with the maximum subtracted the largest exponent is 0.

# %%
for width in range(1, 41):
    x = 3 * rng.normal(size=(4, width))
    x[2] += 1000
    out = np.empty_like(x)
    softmax_rows(x, out)
    assert np.allclose(out, softmax(x), rtol=1e-12), width
print("widths 1 to 40 agree")

# %% [markdown]
# ## Several cores
#
# Rows do not depend on each other, so they can run at the same time: `prange` divides them among
# threads. Each number is computed by one thread in one order, so the result has the same bits for any
# number of threads. (A sum over rows would not: who adds first would change the rounding.)


# %%
@njit(parallel=True)
def softmax_rows_parallel(x, out):
    for n in prange(x.shape[0]):
        m = x[n, 0]
        for j in range(x.shape[1]):
            m = max(m, x[n, j])
        total = 0.0
        for j in range(x.shape[1]):
            out[n, j] = math.exp(x[n, j] - m)
            total += out[n, j]
        for j in range(x.shape[1]):
            out[n, j] /= total


def milliseconds(function, n=5):
    function()
    times = []
    for _ in range(n):
        started = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times)[n // 2]


x = rng.normal(size=(2000, 300))
one, many = np.empty_like(x), np.empty_like(x)
times = {
    "NumPy": milliseconds(lambda: softmax(x)),
    "kernel": milliseconds(lambda: softmax_rows(x, one)),
    "kernel, all cores": milliseconds(lambda: softmax_rows_parallel(x, many)),
}
assert np.array_equal(one, many)
show(bars(times, "Softmax of 2,000 rows", "ms"))

# %% [markdown]
# On one core this kernel may be no faster than NumPy, though it moves a quarter of the memory:
# `math.exp` computes one number at a time, NumPy's exp several at once. The package's kernels use
# vector registers and a polynomial of their own for exp (`gpt_numpy/kernels/runtime`).

# %% [markdown]
# ## Break it
#
# Forget to set `total` back for each row: the first row is right, and so is every check with a single
# row.


# %%
@njit
def never_reset(x, out):
    total = 0.0
    for n in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[n, j] = math.exp(x[n, j])
            total += out[n, j]
        for j in range(x.shape[1]):
            out[n, j] /= total


x = rng.normal(size=(3, 5))
out = np.empty_like(x)
never_reset(x, out)
print("rows add up to", out.sum(axis=1))
assert np.allclose(out[0], softmax(x)[0]) and not np.allclose(out[1:], softmax(x)[1:])

# %% [markdown]
# ## Exercise
#
# Write it without looking: `gpt-numpy study exercise kernel`. And a question: why does the package not
# use `prange`, but hands its threads tasks of many rows or tiles?

# %% [answer]
# **Answer:** one start of the threads for a whole layer instead of one for each loop, and an order of
# work, and of sums, that does not depend on the number of threads: the package promises the same bits
# at any thread count, for sums over rows as well.

# %% [proof]
x = 3 * rng.normal(size=(6, 37))
x[1] += 1000
out = np.empty_like(x)
softmax_rows(x, out)
assert np.allclose(out, softmax(x), rtol=1e-12) and np.allclose(out.sum(axis=1), 1)
print("lesson 15 holds")
