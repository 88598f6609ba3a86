# %% [markdown]
# # 9. Looking up, and looking up backwards: embedding and tied head
#
# The embedding copies rows of a table: out[b, t] = wte[token] + wpe[t]. The output head uses the
# same table the other way round: logits = x · wteᵀ, the product of the final state with every
# token's embedding.
#
# **Predict.** In the sentence "a b a", which rows of dwte are not 0 coming from the embedding, and
# which coming from the head?

# %%
import numpy as np

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.study import cases, check_gradients
from gpt_numpy.study.bugs import BUGS, plant

wte = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
wpe = np.zeros((3, 2))
tokens = np.array([[0, 1, 0]])
out, cache = layers.embedding_forward(tokens, np.arange(3), wte, wpe)

# %% [markdown]
# ## By hand, on three tokens
#
# With dout = (1, 2), (10, 20), (100, 200) at the three places: row 0 was copied to places 0 and 2,
# so dwte₀ = (1, 2) + (100, 200) = (101, 202); row 1 to place 1: (10, 20); row 2 to none: (0, 0).
# Each position was used once: dwpe = dout.

# %%
dout = np.array([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]])
dwte, dwpe = layers.embedding_backward(dout, cache)
print(dwte)
assert np.array_equal(dwte, [[101, 202], [10, 20], [0, 0]]) and np.array_equal(dwpe, dout[0])

# %% [markdown]
# ## Derive
#
# A look-up is a product with a one-hot matrix: out = O · wte with O[(b,t), v] = 1 where token (b,t)
# is v. So dwte = Oᵀ · dout, which adds up the rows of dout by token. Nobody builds O: `np.add.at`
# adds in place.

# %%
one_hot = np.eye(3)[tokens[0]]
assert np.array_equal(one_hot @ wte, out[0]) and np.array_equal(one_hot.T @ dout[0], dwte)

# %% [markdown]
# ## Break it
#
# `dwte[tokens] += dout` looks the same. NumPy reads, adds and writes, so of several places with the
# same token only the last one's sum is kept.

# %%
buffered = np.zeros_like(wte)
buffered[tokens] += dout
print(buffered)
assert np.array_equal(buffered[0], [100, 200])  # and not [101, 202]

# %% [markdown]
# ## The table has two jobs, and two gradients
#
# The head reaches every row, since every logit takes part in the softmax: p_v · x for each token v
# that did not come. The embedding reaches only rows that occur. The model adds both into the same
# array.

# %%
model = GPT(GPTConfig(11, 7, n_layer=1, n_head=3, n_embd=12), dtype=np.float64, ops=layers)
tokens, targets = np.array([[1, 2, 1, 3]]), np.array([[2, 1, 3, 4]])
model.loss(tokens, targets)
dembedding = model.backward()
from_embedding = np.zeros_like(model.grads["wte.weight"])
np.add.at(from_embedding, tokens, dembedding)
from_head = model.grads["wte.weight"] - from_embedding
print("rows from the embedding", np.flatnonzero(from_embedding.any(axis=-1)))
print("rows from the head     ", np.flatnonzero(from_head.any(axis=-1)))
assert np.flatnonzero(from_embedding.any(axis=-1)).tolist() == [1, 2, 3] and from_head.any(axis=-1).all()

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
# say what a test's inputs must have. (Answer: a repeated token. Tests should be built around what
# the code could get wrong.)

# %%
broken, _ = plant(BUGS["embedding-overwrites-repeated-tokens"])
table = np.random.default_rng(0).normal(size=(4, 2))
inputs = dict(tokens=np.array([[0, 1, 2, 3]]), positions=np.arange(4), wte=table, wpe=table.copy())
assert check_gradients(broken.embedding_forward, broken.embedding_backward, inputs).passed
inputs["tokens"] = np.array([[0, 1, 0, 3]])
assert not check_gradients(broken.embedding_forward, broken.embedding_backward, inputs).passed
assert check_gradients(layers.embedding_forward, layers.embedding_backward, inputs).passed
print("lesson 9 holds")
