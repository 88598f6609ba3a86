# %% [markdown]
# # 1. Text becomes tokens
#
# A model computes with numbers, so text has to become a sequence of ids first. Characters make
# sequences long; whole words leave no id for a word never seen. *Byte pair encoding* stands
# between: it begins with the 256 bytes, which can spell anything, and repeatedly makes a new token
# of the pair that stands next to each other most often.
#
# **Predict.** In the text `aaabdaaabac`, which pair is merged first? How long is the text after
# three merges?

# %%
from collections import Counter

from gpt_numpy import Tokenizer
from gpt_numpy.tokenizer import reference

text = b"aaabdaaabac"
print(Counter(zip(text, text[1:])).most_common(3))

# %% [markdown]
# ## By hand
#
# The pair (97, 97), `aa`, occurs four times, but read from left to right only two of these can be
# merged: in `aaa` the second `a` cannot belong to both. New tokens are numbered from 256.
#
#     aaabdaaabac          aa → 256
#     256 a b d 256 a b a c     now (256, a) and (a, b) both occur twice: a tie. Ties go to the lower pair of ids,
#                               and (97, 98) < (256, 97), so ab → 257
#     256 257 d 256 257 a c     (256, 257) → 258
#     258 d 258 a c
#
# Eleven bytes have become five tokens.

# %%
merges = reference.train_merges({text: 1}, 3)
print(merges)
assert merges == [(97, 97), (97, 98), (256, 257)]

ids = list(text)
for new_id, pair in enumerate(merges, start=256):
    ids = reference.merge_pair(ids, pair, new_id)
assert ids == [258, ord("d"), 258, ord("a"), ord("c")]

# %% [markdown]
# ## Compare with the package
#
# `Tokenizer.train` does the same, over words instead of whole texts: the text is first cut by
# GPT-2's pattern, so that no token reaches over a word's beginning, and a space belongs to the word
# that follows it.

# %%
texts = ["the cat sat on the mat", "the rat sat on the cat", "then the hat"] * 4
tokenizer = Tokenizer.train(texts, vocab_size=256 + 1 + 8)
ids = tokenizer.encode("the cat sat on that hat")
print([tokenizer.decode([i]) for i in ids])
print(f"{len('the cat sat on that hat')} bytes are {len(ids)} tokens")

# %% [markdown]
# ## Check
#
# Two things must hold whatever was learned: decoding gives the text back, exactly, also for
# characters that the training text never had; and the fast trainer's merges are those of counting
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


counts = Counter(word.encode() for text in texts for word in (" " + text).split(" ") if word)
assert reference.train_merges(counts, 8) == slow_merges(counts, 8)

# %% [markdown]
# ## Break it
#
# Merge greedily by *length* instead of by the order in which merges were learned, and `abb` with
# merges (a b), (b b) could come out as a·bb or ab·b. The order is part of the tokenizer: two
# tokenizers with the same vocabulary but another order of merges are two tokenizers.

# %%
by_rank = {(97, 98): (0, 256), (98, 98): (1, 257)}
by_other_rank = {(97, 98): (1, 256), (98, 98): (0, 257)}
identity = list(range(256))
assert reference.encode_word(b"abb", identity, by_rank) == [256, 98]
assert reference.encode_word(b"abb", identity, by_other_rank) == [97, 257]

# %% [markdown]
# ## Exercise
#
# Why are `the` at the beginning of a text and ` the` inside it two tokens with two embeddings? What
# would a model have to learn twice? (The answer: the pattern keeps the space with the word, so the
# two are different byte strings. All that the model learns of the word it learns for ` the`; `the`
# is rarer and learned from its own occurrences. In return the model never spends a token on a
# space.)

# %%
assert tokenizer.encode("the")[0] != tokenizer.encode(" the")[0]
sample = "the cat sat on the mat, then the hat sat on the rat"
encoded = tokenizer.encode(sample)
assert tokenizer.decode(encoded) == sample and len(encoded) < len(sample)
print("lesson 1 holds")
