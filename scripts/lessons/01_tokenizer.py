# %% [markdown]
# # 1. Text becomes tokens
#
# A model computes with numbers, so text has to become a sequence of ids first. Characters make
# sequences long; whole words leave no id for a word never seen. *Byte pair encoding* (BPE) stands
# between: it begins with the 256 bytes, which can spell anything, and repeatedly makes a new token
# of the pair that stands next to each other most often.
#
# **Symbols.** a, b, c, d: bytes, written as letters; aa → 256: the pair a a becomes the token 256.
#
# **Predict.** In the text `aaabdaaabac`, which pair is merged first? How long is the text after
# three merges?

# %%
from collections import Counter

from gpt_numpy import Tokenizer
from gpt_numpy.study.drawing import grid, show
from gpt_numpy.tokenizer import GPT2_PATTERN, reference
from gpt_numpy.tokenizer.pretokenize import split

text = b"aaabdaaabac"
print("pairs and how often they occur:", Counter(zip(text, text[1:])).most_common(3))

# %% [markdown]
# ## By hand
#
# The pair (97, 97), `aa`, occurs four times, but read from left to right only two of these can be
# merged: in `aaa` the second `a` cannot belong to both. New tokens are numbered from 256.
#
#     aaabdaaabac               aa → 256
#     256 a b d 256 a b a c     ab → 257
#     256 257 d 256 257 a c     (256, 257) → 258
#     258 d 258 a c
#
# In the second line (256, a) and (a, b) both occur twice: a tie. Ties go to the lower pair of ids, and
# (97, 98) < (256, 97).

# %% [answer]
# **Answer:** `aa` is merged first. Eleven bytes have become five tokens.

# %%
merges = reference.train_merges({text: 1}, 3)
print("merges:", merges)
assert merges == [(97, 97), (97, 98), (256, 257)]

ids = list(text)
spelt = {i: chr(i) for i in range(256)}
rows = {"bytes": [(spelt[i], -1) for i in ids]}
for new_id, pair in enumerate(merges, start=256):
    ids = reference.merge_pair(ids, pair, new_id)
    spelt[new_id] = spelt[pair[0]] + spelt[pair[1]]
    rows[f"{spelt[new_id]} → {new_id}"] = [(spelt[i], i - 256 if i > 255 else -1) for i in ids]
assert ids == [258, ord("d"), 258, ord("a"), ord("c")]
show(grid(rows, "Three merges: coloured cells are new tokens"))

# %% [markdown]
# ## Words first: GPT-2's pattern
#
# `Tokenizer.train` counts pairs inside words, not over whole texts. A regular expression, GPT-2's
# *pattern*, cuts the text before any merge, and no token reaches over a cut. Its alternatives, from
# left to right:
#
#     's|'t|'re|'ve|'m|'ll|'d      English contractions, cut off the word before
#      ?\p{L}+                     letters, with at most one space before them
#      ?\p{N}+                     digits, likewise
#      ?[^\s\p{L}\p{N}]+           other characters that are no white space, likewise
#     \s+(?!\S)|\s+                white space, except the space before a word
#
# So a space belongs to the word that follows it.

# %%
words = split("I'll say 3 things...  twice", GPT2_PATTERN)
print(words)
assert words == ["I", "'ll", " say", " 3", " things", "...", " ", " twice"]
assert "".join(words) == "I'll say 3 things...  twice"

# %% [markdown]
# ## Compare with the package

# %%
texts = ["the cat sat on the mat", "the rat sat on the cat", "then the hat"] * 4
tokenizer = Tokenizer.train(texts, vocab_size=256 + 1 + 8)
ids = tokenizer.encode("the cat sat on that hat")
print([tokenizer.decode([i]) for i in ids])
print(f"{len('the cat sat on that hat')} bytes are {len(ids)} tokens")

# %% [markdown]
# ## Special tokens
#
# The 257th token here is no merge: `<|endoftext|>` marks where a document ends. A *special token*
# has an id of its own and is found before the pattern cuts the text. Text from outside could contain
# its letters and end a document by accident, or on purpose; so `encode` refuses them unless they are
# allowed.

# %%
eot = "<|endoftext|>"
print(tokenizer.encode(f"the cat{eot}", allowed_special={eot}))
assert tokenizer.encode(eot, allowed_special={eot}) == [tokenizer.eot_id]
try:
    tokenizer.encode(eot)
    raise SystemExit("special text was let in")
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# ## Check
#
# Two things must hold whatever was learned. Decoding gives the text back exactly, also for
# characters that the training text never had. And the fast trainer's merges are those of counting
# everything anew each time.

# %%
for strange in ("", "naïve café", "日本語", "🙂🙃", "tabs\tand\r\nnewlines", "\x00\x7f"):
    assert tokenizer.decode(tokenizer.encode(strange)) == strange


def slow_merges(word_counts, n):
    words = [list(word) for word in word_counts]
    merges = []
    for new_id in range(256, 256 + n):
        pairs = Counter()
        for word, count in zip(words, word_counts.values()):
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [reference.merge_pair(word, best, new_id) for word in words]
    return merges


counts = Counter(word.encode() for text in texts for word in split(text, GPT2_PATTERN))
assert reference.train_merges(counts, 8) == slow_merges(counts, 8)

# %% [markdown]
# ## Encode by rank
#
# To encode a word, start from its bytes. Of all pairs that stand next to each other and have a
# merge, apply the one that was learned first: its *rank* is the lowest. Repeat until no pair has a
# merge. The word `abb` with the merges (a b) → 256 and (b b) → 257, in this order: both pairs occur,
# (a b) has rank 0, and the result is 256 b.
#
# ## Break it
#
# Exchange the ranks of the two merges. (b b) now comes first, and the same word becomes a 257. The
# vocabulary has not changed, only the order: two tokenizers with the same tokens and another order
# of merges are two tokenizers.

# %%
by_rank = {(97, 98): (0, 256), (98, 98): (1, 257)}
by_other_rank = {(97, 98): (1, 256), (98, 98): (0, 257)}
identity = list(range(256))
print(reference.encode_word(b"abb", identity, by_rank), reference.encode_word(b"abb", identity, by_other_rank))
assert reference.encode_word(b"abb", identity, by_rank) == [256, 98]
assert reference.encode_word(b"abb", identity, by_other_rank) == [97, 257]

# %% [markdown]
# ## Exercise
#
# Why are `the` at the beginning of a text and ` the` inside it two tokens with two embeddings? What
# would a model have to learn twice? (Writing the merges yourself: `gpt-numpy study exercise bpe`.)

# %% [answer]
# **Answer:** the pattern keeps the space with the word, so the two are different byte strings. Most
# of what the model learns of the word it learns for ` the`; `the` is rarer and is learned from its
# own occurrences. In return the model never spends a token on a space.

# %% [proof]
assert tokenizer.encode("the")[0] != tokenizer.encode(" the")[0]
sample = "the cat sat on the mat, then the hat sat on the rat"
encoded = tokenizer.encode(sample)
assert tokenizer.decode(encoded) == sample and len(encoded) < len(sample)
print("lesson 1 holds")
