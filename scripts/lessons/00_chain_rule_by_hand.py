# %% [markdown]
# # 0. The chain rule by hand: one number at a time
#
# A loss is one number. A gradient says how that number changes when a parameter changes a little.
# This lesson finds gradients on a graph of single numbers, then for 2 × 2 matrices entry by entry.
# Everything later is this, with more numbers.
#
# **Symbols.** w, b: parameters; x: an input; y: the wanted output; z, e, L: intermediate values, L
# the loss; h: a small step; dw: the gradient ∂L/∂w, and so on for every value: d and its name.
#
# **Predict.** L = (w · x + b − y)² with w = 2, x = 3, b = 1, y = 5. If w grows by 0.001, by about
# how much does L change?

# %%
import numpy as np

from gpt_numpy.study.drawing import graph, show

w, x, b, y = 2.0, 3.0, 1.0, 5.0
z = w * x + b  # 7
e = z - y  # 2
L = e * e  # 4
print(f"z = {z}, e = {e}, L = {L}")

# %% [markdown]
# ## By hand: go back through the graph
#
# Each arrow of the graph is one operation, whose derivative is known. Start at the end, where dL =
# 1, and multiply by one derivative at each step backwards:
#
#     L = e · e        de = 2 · e · dL = 4
#     e = z − y        dz = de = 4,   dy = −de = −4
#     z = w · x + b    dw = x · dz = 12,   dx = w · dz = 8,   db = dz = 4
#
# If a value is used several times, its gradient is the sum over its uses: e is used twice in e · e,
# and each use contributes e · dL.

# %%
dL = 1.0
de = e * dL + e * dL
dz, dy = de, -de
dw, dx, db = x * dz, w * dz, dz
assert (dw, dx, db, dy) == (12, 8, 4, -4)

show(
    graph(
        {
            "w": (0, 0, "2", "dw = 12"),
            "x": (0, 1, "3", "dx = 8"),
            "b": (0, 2, "1", "db = 4"),
            "z": (1, 1, "w·x + b = 7", "dz = 4"),
            "y": (1, 2, "5", "dy = −4"),
            "e": (2, 1, "z − y = 2", "de = 4"),
            "L": (3, 1, "e² = 4", "dL = 1"),
        },
        [
            ("w", "z", "· x"),
            ("x", "z", "· w"),
            ("b", "z", "· 1"),
            ("z", "e", "· 1"),
            ("y", "e", "· −1"),
            ("e", "L", "· 2e"),
        ],
        "A graph of numbers: forward along the arrows, gradients against them, each arrow with its factor",
    )
)

# %% [answer]
# **Answer:** dw = 12, so L grows by about 12 · 0.001 = 0.012. (Exactly by 0.012009: the rest is the
# square of the step.)

# %% [proof]
print(f"L grows by {((w + 0.001) * x + b - y) ** 2 - L:.6f}")
assert abs(((w + 0.001) * x + b - y) ** 2 - L - 0.012) < 1e-4

# %% [markdown]
# ## Check: a difference quotient
#
# A derivation can be wrong; a difference quotient needs none. (L(w + h) − L(w − h)) / 2h is dw, up
# to an error of the order of h².


# %%
def loss(w, x, b, y):
    return (w * x + b - y) ** 2


h = 1e-5
for name, gradient, step in (("w", dw, (h, 0, 0, 0)), ("x", dx, (0, h, 0, 0)), ("b", db, (0, 0, h, 0))):
    up = loss(*(v + s for v, s in zip((w, x, b, y), step)))
    down = loss(*(v - s for v, s in zip((w, x, b, y), step)))
    print(f"d{name} = {gradient}, difference quotient {(up - down) / (2 * h):.8f}")
    assert abs(gradient - (up - down) / (2 * h)) < 1e-6

# %% [markdown]
# ## Derive: two by two, by index
#
# Now four numbers at once: out = X · W with 2 × 2 matrices.
#
# **Symbols.** X, W: matrices, 2 × 2; out: their product; r: a row of X and out; k: a column of X and
# a row of W; n: a column of W and out; Σ_k: the sum over both values of k; G: the gradient of out,
# given.
#
#     out_rn = Σ_k X_rk · W_kn                      for example out_11 = X_11 W_11 + X_12 W_21
#     dX_rk  = Σ_n G_rn · ∂out_rn/∂X_rk = Σ_n G_rn · W_kn
#     dW_kn  = Σ_r G_rn · ∂out_rn/∂W_kn = Σ_r G_rn · X_rk
#
# X_rk is used in row r of out only, once for each n; so its gradient is a sum over n. W_kn is used
# in column n only, once for each row r; so its gradient is a sum over r. Written with loops, there
# is nothing to remember.

# %%
X = np.array([[1.0, 2.0], [3.0, 4.0]])
W = np.array([[5.0, 6.0], [7.0, 8.0]])
G = np.array([[1.0, -1.0], [0.5, 2.0]])
dX, dW = np.zeros((2, 2)), np.zeros((2, 2))
for r in range(2):
    for k in range(2):
        for n in range(2):
            dX[r, k] += G[r, n] * W[k, n]
            dW[k, n] += G[r, n] * X[r, k]
print(dX, dW, sep="\n")
assert np.array_equal(dX, [[5 - 6, 7 - 8], [2.5 + 12, 3.5 + 16]])
assert np.array_equal(dX, G @ W.T) and np.array_equal(dW, X.T @ G)

# %% [markdown]
# The sums are products again: Σ_n G_rn W_kn is row r of G times row k of W, which is G · Wᵀ; Σ_r
# X_rk G_rn is Xᵀ · G. Lesson 4 does this for any sizes.
#
# ## Break it
#
# The transpose is easily forgotten. For square matrices the shapes do not object, and the numbers
# are wrong.

# %%
forgotten = G @ W
print("G · W instead of G · Wᵀ:", forgotten, sep="\n")
assert forgotten.shape == dX.shape and not np.allclose(forgotten, dX)

# %% [markdown]
# ## Exercise
#
# L = p · p · q with p = 3 and q = 2 (p, q: two parameters). Find dp and dq by going back through the
# graph, where p is used twice.

# %% [answer]
# **Answer:** L = (p · p) · q. With s = p · p (s: the square): ds = q = 2 and dq = s = 9. Each use of p in p · p
# contributes p · ds = 6, so dp = 12.

# %% [proof]
p, q = 3.0, 2.0
s = p * p
ds, dq = q, s
dp = p * ds + p * ds
assert (dp, dq) == (12, 9)
assert abs(dp - ((p + h) ** 2 * q - (p - h) ** 2 * q) / (2 * h)) < 1e-6
assert np.allclose(G @ W.T, dX) and np.allclose(X.T @ G, dW)
print("lesson 0 holds")
