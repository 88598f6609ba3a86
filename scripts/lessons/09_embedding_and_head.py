# %% [markdown]
# # 9. Looking up, and looking up backwards: embedding and tied head
#
# The embedding copies rows of a table: out[b, t] = wte[token] + wpe[t]. The output head uses the
# same table the other way round: logits = x · wteᵀ, the product of the final state with every
# token's embedding.
#
# **Symbols.** B: sequences; b: one of them; T: positions; V: tokens in the vocabulary; C: channels;
# wte: the table of token embeddings, (V, C); wpe: the table of position embeddings, (T, C); v: a token,
# a row of wte; c: a channel; t: a position; out: the output; O: a one-hot matrix; x: the final state, a
# row of C numbers for each position; y: the target at a position; p: the probabilities, softmax of the
# logits; δ_vy: 1 if v = y, else 0; N: number of positions that count; Σ_t: the sum over all positions
# of all sequences; dwte, dwpe, dx, dlogits, dout: the loss's gradients.
#
# **Predict.** In the sentence "a b a", which rows of dwte are not 0 coming from the embedding, and
# which coming from the head?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import cases, check_gradients, trace
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import grid, heat, show

wte = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
wpe = np.zeros((3, 2))
tokens = np.array([[0, 1, 0]])
out, cache = layers.embedding_forward(tokens, np.arange(3), wte, wpe)

# %% [markdown]
# ## By hand, on three tokens
#
# With dout = (1, 2), (10, 20), (100, 200) at the three positions: row 0 was copied to positions 0
# and 2, so dwte₀ = (1, 2) + (100, 200) = (101, 202); row 1 to position 1: (10, 20); row 2 to none: (0, 0).
# Each position was used once: dwpe = dout.

# %%
dout = np.array([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]])
dwte, dwpe = layers.embedding_backward(dout, cache)
print(dwte)
rows = {"position": [("0", -1), ("1", -1), ("2", -1)], "token": [("a", 0), ("b", 1), ("a", 0)]}
show(grid(rows, "Row a of the table is copied twice, so its gradient has two terms"))
assert np.array_equal(dwte, [[101, 202], [10, 20], [0, 0]]) and np.array_equal(dwpe, dout[0])

# %% [markdown]
# ## Derive
#
# A look-up is a product with a one-hot matrix: O[t, v] = 1 where the token at position t is v, else 0.
# It is a linear layer (lesson 4):
#
#     out = O · wte
#     dwte = Oᵀ · dout
#     dwte_v = Σ_t O_tv · dout_t = the sum of dout_t over all t whose token is v
#
# Nobody builds O: `np.add.at` adds each row of dout to its row of dwte.

# %%
one_hot = np.eye(3)[tokens[0]]
assert np.array_equal(one_hot @ wte, out[0]) and np.array_equal(one_hot.T @ dout[0], dwte)

# %% [markdown]
# ## Break it
#
# `dwte[tokens] += dout` looks the same. NumPy reads, adds and writes, so of several positions with the
# same token only the last one's sum is kept.

# %%
buffered = np.zeros_like(wte)
buffered[tokens] += dout
print(buffered)
assert np.array_equal(buffered[0], [100, 200])  # and not [101, 202]

# %% [markdown]
# ## The table has two jobs, and two gradients
#
# The head is a linear layer, too, with the weight wteᵀ and no bias. For each position,
#
#     logits_v = Σ_c x_c · wte_vc               Σ_c: the sum over channels
#     dx_c = Σ_v dlogits_v · wte_vc             dx = dlogits · wte
#     dwte_vc = Σ_t dlogits_v · x_c             dwte = dlogitsᵀ · x, positions as rows
#
# (Σ_v: the sum over tokens.) With the cross-entropy's dlogits_v = (p_v − δ_vy) / N (lesson 6), at each
# position row v gets p_v · x / N, and the target's row (p_y − 1) · x / N. No probability is 0, so the
# head reaches every row. The embedding reaches only rows of tokens that occur. The model adds both
# into the same array.

# %%
model = GPT(GPTConfig(11, 7, n_layer=1, n_head=3, n_embd=12), dtype=np.float64, ops=layers)
tokens, targets = np.array([[1, 2, 1, 3]]), np.array([[2, 1, 3, 4]])
model.loss(tokens, targets)
dembedding = model.backward()
from_embedding = np.zeros_like(model.grads["wte.weight"])
np.add.at(from_embedding, tokens, dembedding)
from_head = model.grads["wte.weight"] - from_embedding
with trace(model) as traced:
    model.loss(tokens, targets)
    model.zero_gradients()
    model.backward()
x, p = traced["ln_f"].value[0], np.exp(traced["lm_head.log_probabilities"].value[0])
by_formula = np.zeros_like(from_head)
for t, y in enumerate(targets[0]):
    for v in range(11):
        by_formula[v] += (p[t, v] - (v == y)) * x[t] / 4
assert np.allclose(by_formula, from_head)
show(
    heat(
        {"from the embedding": from_embedding, "from the head": from_head},
        "The two gradients of wte",
        "token",
        "channel",
    )
)
print("rows from the embedding", np.flatnonzero(from_embedding.any(axis=-1)))
print("rows from the head     ", np.flatnonzero(from_head.any(axis=-1)))
assert np.flatnonzero(from_embedding.any(axis=-1)).tolist() == [1, 2, 3] and from_head.any(axis=-1).all()

# %% [answer]
# **Answer:** in "a b a" the embedding's gradient has the rows a and b, the head's has all rows: every
# logit takes part in the softmax.

# %% [markdown]
# ## Check

# %%
for case in cases.layer_cases(layers):
    if case.layer in ("embedding", "lm-head", "lm-head-cross-entropy"):
        assert cases.check_case(case).passed
        print(case.name, "passes")
broken, _ = plant(BUGS["embedding-overwrites-repeated-tokens"])  # the buffered += of above
case = next(c for c in cases.layer_cases(broken) if c.name == "embedding")
assert cases.check_case(case).failed_checks() == ["differences of wte"]

# %% [markdown]
# ## Exercise
#
# A check of the embedding with tokens 0, 1, 2, 3 would have passed the broken version. Show it, and
# say what a test's inputs must have. (And write the backwards: `gpt-numpy study exercise embedding`,
# `lm-head`, `lm-head-cross-entropy`.)

# %% [answer]
# **Answer:** a repeated token. Tests should be built around what the code could get wrong.

# %% [proof]
broken, _ = plant(BUGS["embedding-overwrites-repeated-tokens"])
table = np.random.default_rng(0).normal(size=(4, 2))
inputs = dict(tokens=np.array([[0, 1, 2, 3]]), positions=np.arange(4), wte=table, wpe=table.copy())
assert check_gradients(broken.embedding_forward, broken.embedding_backward, inputs).passed
inputs["tokens"] = np.array([[0, 1, 0, 3]])
assert not check_gradients(broken.embedding_forward, broken.embedding_backward, inputs).passed
assert check_gradients(layers.embedding_forward, layers.embedding_backward, inputs).passed
print("lesson 9 holds")
