"""Training of a vocabulary: checks of the arguments, and the merges by the kernels."""

from __future__ import annotations

import numpy as np

from ..errors import TokenizerError
from . import reference
from .automaton import automaton_of
from .byte_alphabet import GPT2_BYTE_ORDER
from .ids import check_text
from .pretokenize import GPT2_PATTERN
from .specials import split_specials


def learn_merges(texts, n_merges, special_tokens, pattern, progress=None, ties="lowest") -> np.ndarray:
    """`plain_encoder.train_merges` by the kernels."""
    from ..kernels.bpe.counting import WordCounter
    from ..kernels.bpe.training import train_merges

    automaton = None if pattern == GPT2_PATTERN else automaton_of(pattern)
    counter = WordCounter(automaton=automaton)
    if pattern == GPT2_PATTERN or automaton is not None:
        counter.add(part for text in texts for part, special in split_specials(text, special_tokens) if not special)
    else:
        counter.add_counts(reference.count_words(texts, pattern, special_tokens))
    words = counter.words()
    if not len(words[-1]):
        raise TokenizerError("there is no text to train on")
    if ties != "huggingface":
        return train_merges(words, n_merges, progress, greatest=ties == "greatest")[0]
    buffer, *others = words
    numbers = np.empty(256, np.uint8)
    numbers[list(GPT2_BYTE_ORDER)] = np.arange(256)
    merges = train_merges((numbers[buffer], *others), n_merges, progress)[0]
    return np.where(merges < 256, np.array(GPT2_BYTE_ORDER)[np.minimum(merges, 255)], merges)


def check_ties(ties) -> str:
    """``ties``, one of ``reference.TIES``."""
    if ties not in reference.TIES:
        expected = "one of " + ", ".join(reference.TIES)
        raise TokenizerError("no such rule for pairs of equal counts", field="ties", found=ties, expected=expected)
    return ties


def report_merges(progress, n_merges, done):
    """Report to ``progress`` that ``done`` of ``n_merges`` merges are done."""
    progress(done, n_merges)


def check_vocab_size(vocab_size, n_special) -> int:
    """The number of merges that ``vocab_size`` leaves room for."""
    if isinstance(vocab_size, bool) or not hasattr(vocab_size, "__index__"):
        raise TypeError(f"vocab_size is an int, not {type(vocab_size).__name__}")
    n_merges = int(vocab_size) - 256 - n_special
    if n_merges < 0:
        raise TokenizerError(
            "too small a vocabulary",
            field="vocab_size",
            found=int(vocab_size),
            expected=f"at least {256 + n_special}: the 256 bytes and {n_special} special tokens",
        )
    return n_merges


def checked_texts(texts):
    """Each of ``texts``, checked to be text; a single str is one text."""
    for n, text in enumerate([texts] if isinstance(texts, str) else texts):
        check_text(text, f"text {n}")
        yield text
