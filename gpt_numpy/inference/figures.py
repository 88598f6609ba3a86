"""What a generation cost, and what the machine could have done: prefill is compute, decode is memory.

A prompt's tokens share each weight that is read: many operations a byte, so the CPU's arithmetic is the limit. A
new token by itself needs every weight for two operations: the memory is the limit. The same model on the same
machine therefore has two speeds that differ by an order of magnitude, and each is best seen as a share of its own
limit, measured here on the spot.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np


def flops_per_token(config, context, logits=True):
    """Operations for one token with ``context`` tokens before it: two for each weight, and attention."""
    L, C = config.n_layer, config.n_embd
    head = 2 * config.vocab_size * C if logits else 0
    return 2 * 12 * L * C * C + 4 * L * C * context + head


def bytes_per_token(decoder, context):
    """Bytes read to decode one token: every weight once, and the cached keys and values."""
    config = decoder.config
    return decoder.weights.bytes_per_token + 2 * config.n_layer * config.n_embd * context * 4


class Phase(NamedTuple):
    """One kind of work, added up."""

    tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def plus(self, tokens, seconds, flops, bytes):
        return Phase(self.tokens + tokens, self.seconds + seconds, self.flops + flops, self.bytes + bytes)


class Meter:
    """A ``PanelDecoder`` that keeps account: more than one token a sequence is ``prefill``, one is ``decode``."""

    def __init__(self, decoder):
        self.inner, self.identity = decoder, decoder.identity
        self.config, self.dtype = decoder.config, decoder.dtype
        self.prefill, self.decode = Phase(), Phase()

    def extend(self, tokens, cache, sequences=None, every=False):
        n, T = np.shape(tokens)
        chosen = slice(None) if sequences is None else sequences
        before = float(cache.lengths[chosen].mean())
        start = time.perf_counter()
        logits = self.inner.extend(tokens, cache, sequences, every)
        seconds = time.perf_counter() - start
        weights = self.inner.weights.bytes_per_token
        if T == 1:
            flops = n * flops_per_token(self.config, before)
            read = weights + n * (bytes_per_token(self.inner, before) - weights)
            self.decode = self.decode.plus(n, seconds, flops, read)
        else:
            flops = n * T * flops_per_token(self.config, before + T / 2, logits=every)
            self.prefill = self.prefill.plus(n * T, seconds, flops, weights)
        return logits

    def report(self):
        """Lines that say how fast each phase was, and what share of the machine's measured peak that is."""
        peak, bandwidth = peak_flops(), read_bandwidth()
        lines = []
        for name, phase in (("prefill", self.prefill), ("decode", self.decode)):
            if phase.tokens:
                rate, flops, read = (x / phase.seconds for x in (phase.tokens, phase.flops, phase.bytes))
                lines.append(
                    f"{name:7s} {phase.tokens} tokens, {rate:,.1f} a second; a token takes"
                    f" {phase.flops / phase.tokens / 1e6:,.0f} MFLOP and {phase.bytes / phase.tokens / 1e6:,.1f} MB:"
                    f" {flops / 1e9:,.1f} GFLOP/s ({flops / peak:.0%} of peak),"
                    f" {read / 1e9:,.1f} GB/s ({read / bandwidth:.0%} of the memory's)"
                )
        lines.append(f"this machine, measured now: {peak / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.1f} GB/s")
        return lines


def read_bandwidth(megabytes=256, repeats=5):
    """Bytes a second that all threads together read from memory: the best of a few passes over a large array."""
    from ..kernels import peak, threads

    data, count = np.ones(megabytes << 18, np.float32), threads.count()
    sums = np.empty(count * 16, np.float32)
    return data.nbytes / _best(lambda: peak.read_all(count, data, sums), repeats)


def peak_flops(repeats=5):
    """float32 operations a second of all threads together, on operands that never leave the nearest cache."""
    from ..kernels import peak, threads

    count = threads.count()
    rows, depth, rounds = peak.TILE_ROWS, 256, 400
    x = np.ones((count, rows, depth), np.float32)
    weights, out = np.zeros((count, depth * peak.PANEL), np.float32), np.zeros((count, rows, peak.PANEL), np.float32)
    flops = 2 * count * rows * depth * peak.PANEL * rounds
    return flops / _best(lambda: peak.multiply_cached(count, weights, x, out, rounds), repeats)


def _best(run, repeats):
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
