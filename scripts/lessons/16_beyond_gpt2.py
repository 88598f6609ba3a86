# %% [markdown]
# # 16. After GPT-2: RMSNorm, a gated MLP, rotary positions, and gradients over depth
#
# Llama, Mistral and Qwen are GPT-2 with a few parts exchanged. Three of these parts have backwards of their
# own, and each is a lesson that you have had already, changed in one line: RMSNorm is layernorm (lesson 7)
# without the mean, SwiGLU is an activation (lesson 5) times a second factor, and the rotary embedding is a
# linear layer (lesson 4) without a weight.
#
#     r = (mean(x²) + ε)^(−½)
#     xhat = x · r
#     out = xhat ∘ w
#
# **Symbols.** C: number of channels; x: a row of C numbers; w: the weight, C numbers; ε: a small constant; r:
# one number a row; xhat: the scaled row; out: the output; dout, dxhat, dr, dx, dw: the loss's gradients; Σ: the
# sum over the channels of a row; mean: Σ divided by C; ∘: entry by entry.
#
# **Predict.** Add 5 to every entry of a row: does out change? Double the row: does it (for ε = 0)? Which of the
# two directions without gradient of lesson 7 is left?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import cases, check_gradients, trace, with_functions
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import curves, graph, heat, show

x, ones = np.array([[1.0, 2.0, 3.0]]), np.ones(3)
out, cache = layers.rmsnorm_forward(x, ones, epsilon=0.0)
print("out =", out)

# %% [answer]
# **Answer:** a shift changes out, because the mean is not subtracted; doubling does not. So dx need not sum to 0
# over a row, but it has no component along the row itself: Σ dx ∘ x = 0 for ε = 0.

# %% [proof]
assert not np.allclose(layers.rmsnorm_forward(x + 5, ones, epsilon=0.0)[0], out)
assert np.allclose(layers.rmsnorm_forward(2 * x, ones, epsilon=0.0)[0], out)

# %% [markdown]
# ## Derive, from layernorm's backward
#
# Layernorm has c = x − mean(x) where RMSNorm has x (c: the centred row). Everything that lesson 7 derived for c
# holds for x here, since the two layers are the same from there on:
#
#     layernorm:   dc = r · dxhat − r · xhat ∘ mean(dxhat ∘ xhat)
#                  dx = dc − mean(dc)
#     RMSNorm:     dx = r · dxhat − r · xhat ∘ mean(dxhat ∘ xhat)
#
# The line dx = dc − mean(dc) came from the mean, and falls away with it. Step by step, from the last line to the
# first, x being used twice, in xhat and in r:
#
#     dxhat = dout ∘ w
#     dr = Σ dxhat ∘ x
#     dx = r · dxhat + (−½ r³ · dr) · (2/C) · x        x in xhat, and x² in r
#     dx = r · (dxhat − xhat ∘ mean(dxhat ∘ xhat))     with r · x = xhat

# %%
show(
    graph(
        {"x": (0, 0, "(…, C)"), "r": (1, 1, "(…, 1)"), "xhat": (2, 0, "(…, C)"), "out": (3, 0, "(…, C)")},
        [("x", "r", "mean of x²"), ("x", "xhat"), ("r", "xhat", "·"), ("xhat", "out", "· w")],
        "RMSNorm: layernorm's graph without the mean",
    )
)
rng = np.random.default_rng(0)
C = 6
x, w, dout = rng.normal(size=(4, C)), rng.normal(size=C), rng.normal(size=(4, C))


def mean(a):
    return a.mean(axis=-1, keepdims=True)


r = (mean(x * x) + 1e-5) ** -0.5
xhat, dxhat = x * r, dout * w
dr = (dxhat * x).sum(axis=-1, keepdims=True)
the_long_way = r * dxhat + (-0.5 * r**3 * dr) * (2 / C) * x
the_short_way = r * (dxhat - xhat * mean(dxhat * xhat))
_, cache = layers.rmsnorm_forward(x, w)
dx, dw = layers.rmsnorm_backward(dout, cache)
assert np.allclose(the_long_way, the_short_way) and np.allclose(dx, the_short_way)
assert np.allclose(dw, (dout * xhat).sum(axis=0))
centred = x - mean(x)  # on centred rows the two layers agree, and layernorm's dx is RMSNorm's without its mean
_, of_rms = layers.rmsnorm_forward(centred, w)
_, of_layernorm = layers.layernorm_forward(centred, w, np.zeros(C))
from_rms, from_layernorm = layers.rmsnorm_backward(dout, of_rms)[0], layers.layernorm_backward(dout, of_layernorm)[0]
assert np.allclose(from_layernorm, from_rms - mean(from_rms))

# %% [markdown]
# ## By hand, on two numbers
#
# x = (3, 4), w = (1, 1), ε = 0: mean(x²) = 12.5, r = 0.282843, xhat = (0.848528, 1.131371). With dout = (1, 0):
# mean(dxhat ∘ xhat) = 0.424264, and
#
#     dx = r · (1 − 0.848528 · 0.424264, 0 − 1.131371 · 0.424264)
#        = 0.282843 · (0.64, −0.48) = (0.181019, −0.135765)
#
# Along the row: 3 · 0.181019 − 4 · 0.135765 = 0.

# %%
_, cache = layers.rmsnorm_forward(np.array([[3.0, 4.0]]), np.ones(2), epsilon=0.0)
by_hand, _ = layers.rmsnorm_backward(np.array([[1.0, 0.0]]), cache)
print("dx =", by_hand)
assert np.allclose(by_hand, [[0.181019, -0.135765]], atol=1e-6) and abs((by_hand * [3.0, 4.0]).sum()) < 1e-15

# %% [markdown]
# ## A gate: SwiGLU
#
# The hidden layer has twice the width. Its left half g opens the way for its right half u: out = f(g) ∘ u, where
# f(g) = g · sigmoid(g) (f: the SiLU; g: the gate; u: the values behind it). A product hands each factor dout times
# the other one:
#
#     du = dout ∘ f(g)
#     dg = dout ∘ u ∘ f'(g)
#
# f'(g) = sigmoid(g) + g · sigmoid(g) · (1 − sigmoid(g)), by the product rule, as for GELU in lesson 5.

# %%
g, u = rng.normal(size=(2, 3, 5))
s = 1 / (1 + np.exp(-g))
out, cache = layers.swiglu_forward(np.concatenate([g, u], axis=-1))
d = rng.normal(size=(3, 5))
dhidden = layers.swiglu_backward(d, cache)
assert np.allclose(out, g * s * u)
assert np.allclose(dhidden, np.concatenate([d * u * (s + g * s * (1 - s)), d * g * s], axis=-1))
axis = np.linspace(-6, 6, 121)
silu = axis / (1 + np.exp(-axis))
gelu = layers.gelu_forward(axis)[0]
show(curves({"SiLU": (axis, silu), "GELU": (axis, gelu)}, "The gate's function beside GELU", x="g"))

# %% [markdown]
# ## An angle: rotary positions
#
# A query at position m and a key at position n (m, n: two positions) have their numbers taken in pairs, and each
# pair (a, b) is turned by the angle φ = m · ω or n · ω (a, b: the two numbers of a pair; φ: the angle; ω: one
# speed for each pair). Turning is a product with a matrix R (R: the rotation; Rᵀ: its transpose):
#
#     R = [[cos φ, −sin φ], [sin φ, cos φ]]
#
# A linear layer's gradient passes through the transpose (lesson 4), and Rᵀ turns by −φ: the backward is the same
# function with the angle's sign changed. The product of a turned query and a turned key depends on m − n alone.

# %%
case = next(case for case in cases.layer_cases(layers) if case.name == "rotary")
vector, rotation = case.inputs["x"], case.inputs["rotation"]
turned, cache = layers.rotary_forward(vector, rotation)
back = layers.rotary_backward(turned, cache)
print(f"turned and turned back: {np.abs(back - vector).max():.0e}")
assert np.allclose(back, vector) and np.allclose((turned**2).sum(axis=-1), (vector**2).sum(axis=-1))
angles = {
    "cos φ": rotation.cos.reshape(-1, rotation.cos.shape[-1]),
    "sin φ": rotation.sin.reshape(-1, rotation.sin.shape[-1]),
}
show(heat(angles, "The angle grows with the position, faster for the first pairs", "position", "pair"))

# %% [markdown]
# ## Over depth: why a deep model can learn at all
#
# A block computes x + f(norm(x)), twice (f: a branch, which is attention or the MLP; norm: RMSNorm or layernorm). Let L
# blocks stand on each other (L: the number of blocks), with weights such that each branch returns numbers about as large
# as those it gets. What happens to the gradient on its way down? Three kinds of block, with J for the Jacobian of f (J:
# the matrix of its derivatives; Jᵀ: its transpose):
#
#     no norm, no residual:   dx = Jᵀ · dout                    a product of L matrices
#     residual, no norm:      dx = dout + Jᵀ · dout             a product of L sums
#     residual and norm:      dx = dout + (norm's backward of Jᵀ · dout)
#
# A product of L matrices shrinks or grows exponentially with L: if each one multiplies the gradient by 1/2, 24 of them
# multiply it by 6e-8. With the residual alone the first addend always arrives: the gradient does not vanish, but each
# branch adds to its square a share c (c: a number near 1 for these weights), and L blocks make of it (1 + c)ᴸ. So does the
# forward, to x. The norm's backward divides by the size of x: that is the factor r of the derivation above. Each branch
# adds as much to the mean square of x as the one before, so after l blocks (l: a block's number) r² is about 1/l, and the
# share that branch l adds is about c/l. The product of 1 + c/l over all blocks grows like Lᶜ: no longer exponentially.
#
# **Predict.** By which factor does the gradient change over 24 blocks: with both, without the norm, without the
# residual, and with neither?

# %%
DEEP = GPTConfig(vocab_size=64, block_size=16, n_layer=24, n_head=4, n_embd=32)
texts = np.random.default_rng(1).integers(0, 64, (4, 17))


def traced(config, ops=layers):
    """A backward through a fresh model whose branches keep the size of what they get: std 1/√(inputs of the matrix)."""
    model = GPT(config, dtype=np.float64, ops=ops)
    for name, weights in model.params.items():
        if name.startswith("h.") and weights.ndim == 2:
            weights *= len(weights) ** -0.5 / weights.std()
    with trace(model) as t:
        model.loss(texts[:, :-1], texts[:, 1:])
        model.backward()
    return t


def of_stream(t, what):
    """The Euclidean norm of the stream after every block, or (``what`` = "grad") of its gradient."""
    return np.array([np.linalg.norm(getattr(t[f"h.{i}.residual_2"], what)) for i in range(DEEP.n_layer)])


no_norm = dict(
    layernorm_forward=lambda x, weight, bias, epsilon, alloc=None: (x.copy(), weight),
    layernorm_backward=lambda dout, weight, alloc=None: (dout.copy(), 0 * weight, 0 * weight),
)
no_residual = dict(
    residual_forward=lambda x, branch, dropout=None, alloc=None: (branch.copy(), None),
    residual_backward=lambda dout, cache, alloc=None: (0 * dout, dout.copy()),
)

# %% [answer]
# **Answer:** with both, a factor of about 5. Without the norm, about a million. Without the residual, some ten: the norm
# still divides each gradient by the size of its row. With neither, a hundred-millionth is left.

# %% [proof]
kinds = {"both": {}, "no norm": no_norm, "no residual": no_residual, "neither": {**no_norm, **no_residual}}
streams = {name: traced(DEEP, with_functions(**changes)) for name, changes in kinds.items()}
gradients = {name: of_stream(t, "grad") for name, t in streams.items()}
numbers = np.arange(1, DEEP.n_layer + 1)
shown = {name: (numbers, gradient / gradient[-1]) for name, gradient in gradients.items()}
show(curves(shown, "The gradient after each block, as a share of the last one's", x="block", y="gradient", log=True))
for name, gradient in gradients.items():
    print(f"{name:12} the first block gets {gradient[0] / gradient[-1]:.1e} times the last one's gradient")
grown = {name: gradient[0] / gradient[-1] for name, gradient in gradients.items()}
assert 1 < grown["both"] < 20 < 1e5 < grown["no norm"] and grown["neither"] < 1e-6
size = of_stream(streams["both"], "value")
print(f"from block 6 to block 24 the stream grows by the factor {size[-1] / size[5]:.2f}; √(24/6) = 2")
assert 1.6 < size[-1] / size[5] < 2.4

# %% [markdown]
# Each part of today's blocks, put into that stack alone. RMSNorm does to the gradient what layernorm does, but that one
# direction fewer is removed. A rotation changes no length, and its transpose none either. A gate multiplies its gradient
# by a second factor, and heads of keys that are shared get the sum of several gradients: both change c, and neither
# changes the law. What makes depth possible is the norm inside the branch and the free way past it.

# %%
parts = {
    "GPT-2": {},
    "RMSNorm": dict(norm="rmsnorm"),
    "rotary": dict(positions="rotary"),
    "SwiGLU": dict(mlp="swiglu", n_inner=88),
    "shared keys": dict(n_kv_head=1),
    "norms of q, k": dict(qk_norm=True),
}
gradients = {name: of_stream(traced(DEEP.replace(**changes)), "grad") for name, changes in parts.items()}
shown = {name: (numbers, gradient / gradient[-1]) for name, gradient in gradients.items()}
show(curves(shown, "The same, one part changed at a time", x="block", y="gradient", log=True))
assert all(1 < gradient[0] / gradient[-1] < 30 for gradient in gradients.values())

# %% [markdown]
# ## What the norms of queries and keys are for
#
# Scores are products of two vectors that both come from weights. When training makes these weights larger by a factor s
# (s: the factor), scores grow by s², softmax gives one key all the weight, and its backward P ∘ (dP − rowsum(dP ∘ P))
# goes to 0 (P: the weights of attention; dP: their gradient; rowsum: the sum over the keys), because P is 0 or 1 (lesson
# 8). An rmsnorm of each query and key makes scores independent of s, and so their gradient.

# %%
TWO, FACTORS = DEEP.replace(n_layer=2), (0.5, 1, 2, 4, 8, 16)


def of_scores(factor, qk_norm):
    """The size of the gradient of block 0's scores, where its queries and keys have weights ``factor`` times as large."""
    model = GPT(TWO.replace(qk_norm=qk_norm), dtype=np.float64, ops=layers)
    columns = model.params["h.0.attn.c_attn.weight"][:, : 2 * TWO.n_embd]
    columns *= factor * TWO.n_embd**-0.5 / columns.std()
    with trace(model) as t:
        model.loss(texts[:, :-1], texts[:, 1:])
        model.backward()
    return np.linalg.norm(t["h.0.attn.scores"].grad)


flow = {qk_norm: np.array([of_scores(factor, qk_norm) for factor in FACTORS]) for qk_norm in (False, True)}
lines = {"without norms": (FACTORS, flow[False]), "with norms": (FACTORS, flow[True])}
show(
    curves(lines, "The gradient of the scores", x="factor s on the weights of queries and keys", y="gradient", log=True)
)
assert flow[False][-1] < 0.2 * flow[False][0] and np.allclose(flow[True], flow[True][0], rtol=1e-3)

# %% [markdown]
# ## Check

# %%
for name in ("rmsnorm", "swiglu", "rotary"):
    for case in cases.layer_cases(layers):
        if case.layer == name:
            report = cases.check_case(case, dot_product=True)
            worst = max(t.error for t in report.tensors)
            print(
                f"{case.name:28} differences {worst:.0e}, dot product {max(t.dot_product for t in report.tensors):.0e}"
            )
            assert report.passed

# %% [markdown]
# ## Break it
#
# Turn the gradient in the same direction as the value. For small angles this is nearly right, so position 0 is
# right and the error grows with the position.

# %%
broken, _ = plant(BUGS["rotary-gradient-turned-the-same-way"])
case = next(case for case in cases.layer_cases(broken) if case.name == "rotary")
print(cases.check_case(case).failed_checks())
assert cases.check_case(case).failed_checks() == ["differences of x"]

# %% [markdown]
# ## Exercise
#
# A reader takes layernorm's backward for RMSNorm's, mean term and all. On which inputs would a check not notice?
# (And write them: `gpt-numpy study exercise rmsnorm`, `swiglu`, `rotary`, `shared-heads`, `qk-norm`.)

# %% [answer]
# **Answer:** where mean(dxhat) is 0 in every row, for example a dout whose rows sum to 0 with w = 1. The cure is
# that of lesson 4: a random dout, and weights that are not neutral.

# %% [proof]
broken, _ = plant(BUGS["rmsnorm-mean-term-too-many"])
inputs = dict(x=x, weight=w)
assert not check_gradients(broken.rmsnorm_forward, broken.rmsnorm_backward, inputs).passed
balanced = dout - mean(dout)
_, cache = layers.rmsnorm_forward(x, np.ones(C))
right, wrong = layers.rmsnorm_backward(balanced, cache)[0], broken.rmsnorm_backward(balanced, cache)[0]
assert np.allclose(right, wrong)
assert check_gradients(layers.rmsnorm_forward, layers.rmsnorm_backward, inputs, seed=1).passed
print("lesson 16 holds")
