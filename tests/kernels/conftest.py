"""Fixtures of the kernels' tests: what a kernel is held to, and how close; texts and vocabularies for the tokenizer's."""

import os
import random

# Two threads even where there is one processor: races and thread counts are tested on any machine.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

import numpy as np
import pytest
import regex

from gpt_numpy import layers
from gpt_numpy.kernels import threads
from gpt_numpy.kernels.bpe import BPEEncoder
from gpt_numpy.tokenizer import Tokenizer


def _arrays(result):
    """The arrays and numbers in a result, caches left out."""
    if isinstance(result, (np.ndarray, float)):
        return [np.asarray(result)]
    if isinstance(result, tuple) and not hasattr(result, "_fields"):
        return [array for part in result for array in _arrays(part)]
    return []


@pytest.fixture
def rng():
    return np.random.default_rng(20170612)


@pytest.fixture
def assert_parity():
    """Hold an op of kernels to its twin in layers.

    ``call(ops, array)`` runs the op, forward and backward, with ``array`` turning float64 arrays into the type under
    test. float64 must agree within 1e-12 of the largest element of each result; float32 is compared with the
    float64 reference and must agree within ``float32_bound``. One thread and two must give the same bits.
    """

    def check(kernels, call, float32_bound, float64_bound=1e-12):
        expected = _arrays(call(layers, lambda x: np.array(x, np.float64)))
        for dtype, bound in ((np.float64, float64_bound), (np.float32, float32_bound)):
            before = threads.set_count(1)
            try:
                found = _arrays(call(kernels, lambda x: np.array(x, dtype)))
                threads.set_count(2)
                again = _arrays(call(kernels, lambda x: np.array(x, dtype)))
            finally:
                threads.set_count(before)
            assert len(found) == len(expected) > 0
            for a, b, e in zip(found, again, expected):
                assert a.shape == e.shape and (a.ndim == 0 or a.dtype == dtype)
                np.testing.assert_array_equal(a, b, err_msg="one thread and two differ")
                error = np.abs(a - e).max(initial=0) / max(np.abs(e).max(initial=0), np.finfo(np.float32).tiny)
                assert error <= bound, f"{dtype.__name__} {e.shape}: error {error:.2e}, bound {bound:.0e}"

    return check


_PIECES = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'l", "'r", "'v", "'", " ", "  ", "\n", "\n\n",
    "\r\n", "\t", "\x00", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff", "\ufffd", "\u200d", "a", "Z",
    "the", " of", "naïve", "e\u0301", "中文", " ½", "²", "٣", "Ⅷ", "0", "12", " 3", "_", "--", "...",
    " <|endoftext|>", "🙂", "👩\u200d👧",
]  # fmt: skip


def _hard_string(rng, characters):
    kind, length = rng.randrange(4), rng.randrange(1, 20)
    if kind == 0:
        return "".join(rng.choices(characters, k=length))
    if kind == 1:
        return "".join(rng.choices(_PIECES, k=length))
    if kind == 2:
        return "".join(rng.choice(_PIECES) * rng.randrange(1, 25) for _ in range(rng.randrange(1, 5)))
    return "".join(chr(rng.randrange(32, 127)) if rng.random() < 0.7 else rng.choice(characters) for _ in range(length))


@pytest.fixture(scope="session")
def characters():
    """All characters of all planes, without the surrogates."""
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


@pytest.fixture(scope="session")
def hard_strings(characters):
    """A function of (n, seed, alphabet): n strings of any characters, runs, contractions and white space."""

    def generate(n, seed, alphabet=characters):
        rng = random.Random(seed)
        return [_hard_string(rng, alphabet) for _ in range(n)]

    return generate


@pytest.fixture(scope="session")
def gpt2(test_data):
    return Tokenizer.load(test_data / "gpt2").vocabulary


@pytest.fixture(scope="session")
def encoder(gpt2):
    return BPEEncoder(gpt2.byte_ids, gpt2.merges, gpt2.merged_ids)


@pytest.fixture(scope="session")
def tiktoken_gpt2(gpt2):
    """tiktoken's encoder of the same ranks, built without a download."""
    tiktoken = pytest.importorskip("tiktoken")
    special_ids = set(gpt2.special_tokens.values())
    ranks = {token: i for i, token in enumerate(gpt2.tokens) if i not in special_ids}
    return tiktoken.Encoding("same", pat_str=gpt2.pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="session")
def agreed_characters(characters):
    """The characters that ``regex`` and tiktoken class alike: they follow different versions of Unicode."""
    tiktoken = pytest.importorskip("tiktoken")
    every_byte = {bytes([byte]): byte for byte in range(256)}
    everything, disputed = "".join(characters), set()
    for name in (r"\p{L}", r"\p{N}", r"\s"):
        of_class = tiktoken.Encoding("class", pat_str=name, mergeable_ranks=every_byte, special_tokens={})
        theirs = set(of_class.decode(of_class.encode_ordinary(everything)))
        disputed |= theirs ^ set(regex.findall(name, everything))
    assert len(disputed) < 50_000
    return [character for character in characters if character not in disputed]
