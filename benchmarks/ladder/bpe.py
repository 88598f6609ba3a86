"""Byte-level BPE encoding: from the definition, word by word, to a scanner with a table of known words."""

import numpy as np

from gpt_numpy import Tokenizer
from gpt_numpy.data import builtin_corpus
from gpt_numpy.tokenizer import pretokenize, reference

from ..problems import Problem
from . import Case, Rung


def make(rng, n_characters, vocab_size):
    text = "\n\n".join(builtin_corpus("python-docs"))[:n_characters]
    return {"text": text, "tokenizer": Tokenizer.train([text], vocab_size)}


def by_definition(inputs):
    """Every word merged by the reference, again each time it occurs."""
    return (np.array(reference.encode_text(inputs["text"], inputs["tokenizer"].vocabulary)),)


def with_known_words(inputs):
    vocabulary = inputs["tokenizer"].vocabulary
    merges = reference.merge_table(vocabulary.merges, vocabulary.merged_ids)
    ids, known = [], {}
    for word in pretokenize.split(inputs["text"], vocabulary.pattern):
        if word not in known:
            known[word] = reference.encode_word(word.encode(), vocabulary.byte_ids, merges)
        ids += known[word]
    return (np.array(ids),)


_PROBLEM = Problem(
    "byte-level BPE encoding (no arithmetic: GB/s are of text)",
    make,
    through=None,
    flops=lambda n_characters, vocab_size: 0,
    bytes=lambda n_characters, vocab_size: n_characters,
    tolerance=0.0,
    right=by_definition,
)
CASE = Case(
    name="bpe",
    problem=_PROBLEM,
    size=dict(n_characters=400_000, vocab_size=2048),
    small_size=dict(n_characters=20_000, vocab_size=512),
    rungs=[
        Rung("python, every word anew", by_definition, small=True),
        Rung("python, words known", with_known_words),
        Rung("kernels, list of ids", lambda i: (np.array(i["tokenizer"].encode_ordinary(i["text"])),)),
        Rung("kernels, array of ids", lambda i: (i["tokenizer"].encode_to_array(i["text"]),)),
    ],
)
