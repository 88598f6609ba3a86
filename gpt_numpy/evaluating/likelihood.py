"""Log-probabilities of given tokens: of a text, window by window, and of continuations of a context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, GenerationError
from ..inference.cache import KVCache
from ..inference.decoder import decoder_for
from ..inference.score import CHUNK, log_softmax_at
from ..wording import counted

BATCH = 16  # continuations that the model reads at the same time
_LOGIT_BYTES = 256 << 20  # memory for the logits of one batch


class Continuation(NamedTuple):
    """How probable one continuation is.

    logprobs  (T,) float64: the log-probability of each of its tokens, in nats
    greedy    whether each token is the most probable one at its position
    """

    logprobs: np.ndarray
    greedy: bool

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation, in nats."""
        return float(self.logprobs.sum())


def text_logprobs(model, tokens: Sequence[int] | np.ndarray, stride: int | None = None) -> np.ndarray:
    """log P(tokens[i] | the tokens before it in its window), float64, in nats, for every token but those without context.

    Windows are as long as the model's context and begin ``stride`` tokens apart (default: half the context). Each token
    is scored in the first window that holds it, as in "Perplexity of fixed-length models" of the ``transformers``
    documentation: a smaller stride gives tokens more context and takes more time. The text's first token has no
    context and is not scored. With a stride of the whole context, no window's first token is scored.

    model: a ``GPT`` or a decoder. Raises ``GenerationError`` for fewer than two tokens.
    """
    decoder = decoder_for(model)
    block_size = decoder.config.block_size
    stride = max(1, block_size // 2) if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ConfigError("not a stride", field="stride", found=stride, expected=f"1 to {block_size}")
    tokens = np.asarray(tokens)
    if len(tokens) < 2:
        raise GenerationError(
            "nothing to score", field="tokens", found=counted(len(tokens), "token"), expected="at least 2"
        )
    cache = KVCache(decoder.config, 1, dtype=decoder.dtype)
    results, scored = [], 1  # scored: tokens that are scored already, or have no context
    for begin in range(0, len(tokens), stride):
        end = min(begin + block_size, len(tokens))
        first = max(scored, begin + 1)  # a window's first token has no context
        if first < end:
            results.append(_window(decoder, cache, tokens, begin, first, end))
        scored = end
        if end == len(tokens):
            break
    return np.concatenate(results)


def _window(decoder, cache, tokens, begin, first, end):
    """Log-probabilities of tokens[first:end], given tokens[begin:…]."""
    cache.truncate(0, 0)
    if first - 1 > begin:
        decoder.extend(tokens[None, begin : first - 1], cache)
    found = []
    for start in range(first - 1, end - 1, CHUNK):
        stop = min(start + CHUNK, end - 1)
        logits = decoder.extend(tokens[None, start:stop], cache, every=True)[0]
        found.append(log_softmax_at(logits, tokens[start + 1 : stop + 1]))
    return np.concatenate(found)


def continuations(
    model, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], batch: int = BATCH
) -> Iterator[Continuation]:
    """A ``Continuation`` for each (context, continuation) of token ids, in order; ``batch`` of them at a time.

    A pair longer than the model's context loses the beginning of its context. Equal contexts in a row are read once.
    Raises ``GenerationError`` where either part is empty, or a continuation fills the context.
    """
    decoder = decoder_for(model)
    waiting: list = []
    for pair in pairs:
        waiting.append(_cut(*pair, decoder.config.block_size))
        if len(waiting) == batch:
            yield from _together(decoder, waiting)
            waiting = []
    if waiting:
        yield from _together(decoder, waiting)


def _cut(context, continuation, block_size):
    context, continuation = list(context), list(continuation)
    if not context or not continuation:
        raise GenerationError("nothing to score", field="context" if continuation else "continuation")
    if len(continuation) > block_size:
        raise GenerationError(
            "longer than the model's context",
            field="continuation",
            found=counted(len(continuation), "token"),
            expected=f"at most {block_size}",
        )
    return context[max(0, len(context) + len(continuation) - block_size - 1) :], continuation


def _together(decoder, pairs):
    """The ``Continuation``s of some pairs: contexts one by one, then all continuations as rows of one batch."""
    V = decoder.config.vocab_size
    longest = max(len(continuation) for _, continuation in pairs)
    rows = max(1, _LOGIT_BYTES // (longest * V * 4))
    if len(pairs) > rows:
        return [one for start in range(0, len(pairs), rows) for one in _together(decoder, pairs[start : start + rows])]
    # The rows are padded to one length; padding changes nothing for the tokens before it.
    capacity = min(decoder.config.block_size, max(len(context) for context, _ in pairs) + longest)
    cache = KVCache(decoder.config, len(pairs), capacity, decoder.dtype)
    for row, (context, _) in enumerate(pairs):
        if row and context == pairs[row - 1][0]:
            cache.copy_sequence(row - 1, row)
        elif len(context) > 1:
            decoder.extend(np.array([context[:-1]]), cache, np.array([row]))
    results = {}
    for rows in _of_fitting_length(pairs, capacity):
        width = max(len(pairs[row][1]) for row in rows)
        tokens = np.zeros((len(rows), width), np.int64)
        for line, row in zip(tokens, rows):
            context, continuation = pairs[row]
            line[: len(continuation)] = [context[-1], *continuation[:-1]]
        logits = decoder.extend(tokens, cache, np.array(rows), every=True)
        for row, found in zip(rows, logits):
            wanted = np.array(pairs[row][1])
            found = found[: len(wanted)]
            greedy = bool((found.argmax(axis=1) == wanted).all())
            results[row] = Continuation(log_softmax_at(found, wanted), greedy)
    return [results[row] for row in range(len(pairs))]


def _of_fitting_length(pairs, capacity):
    """Lists of rows that can be padded to the longest of them without outgrowing the cache."""
    groups: list = []
    for row in sorted(range(len(pairs)), key=lambda row: len(pairs[row][1])):
        held = [len(pairs[other][0]) - 1 for other in (*(groups[-1] if groups else ()), row)]
        if groups and max(held) + len(pairs[row][1]) <= capacity:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
