"""The speed of a generation as a share of the machine's limits: arithmetic for prefill, memory for decode.

All tokens of a prompt use each weight that is read: many operations a byte, so the CPU's arithmetic is the limit. A
single new token reads every weight for two operations, so the memory is the limit. The same model on the same
machine therefore has two speeds that differ by an order of magnitude. Each is reported as a share of its own
limit (``machine``), which is measured for the report.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from .. import machine
from ..machine.cost import generation_bytes_per_token, generation_flops_per_token
from ..wording import counted
from .cache import KVCache


class Phase(NamedTuple):
    """Totals of one kind of work, prefill or decode."""

    tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def plus(self, tokens, seconds, flops, bytes):
        return Phase(self.tokens + tokens, self.seconds + seconds, self.flops + flops, self.bytes + bytes)


class Meter:
    """A ``PanelDecoder`` that counts its work: a call with one token a sequence is ``decode``, with more ``prefill``."""

    def __init__(self, decoder):
        self.inner, self.identity = decoder, decoder.identity
        self.config, self.dtype = decoder.config, decoder.dtype
        self.prefill, self.decode = Phase(), Phase()

    def extend(self, tokens, cache, sequences=None, every=False):
        return self._count(
            np.shape(tokens), every, cache, sequences, lambda: self.inner.extend(tokens, cache, sequences, every)
        )

    def step_to_largest(self, tokens, cache, count, sequences=None):
        return self._count(
            (len(tokens), 1),
            False,
            cache,
            sequences,
            lambda: self.inner.step_to_largest(tokens, cache, count, sequences),
        )

    def _count(self, shape, every, cache, sequences, run):
        n, T = shape
        chosen = slice(None) if sequences is None else sequences
        before = float(cache.lengths[chosen].mean())
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        weights = self.inner.weights.bytes_per_token
        if T == 1:
            flops = n * generation_flops_per_token(self.config, before)
            read = weights + n * generation_bytes_per_token(self.config, 0, before)
            self.decode = self.decode.plus(n, seconds, flops, read)
        else:
            flops = n * T * generation_flops_per_token(self.config, before + T / 2, logits=every)
            self.prefill = self.prefill.plus(n * T, seconds, flops, weights)
        return result

    @property
    def _rounded(self):
        """ "bfloat16 " where prompts are read with such products, else nothing."""
        return "bfloat16 " if getattr(self.inner, "products", "float32") == "bfloat16" else ""

    def _peak(self):
        """The limit of a prompt's products."""
        return machine.peak_flops(products="bfloat16") if self._rounded else machine.peak_flops()

    def report(self):
        """Lines with the speed of each phase, its share of the machine's measured limits, and the reason they differ.

        Measuring takes a fifth of a second. The call resets the totals.
        """
        peak, bandwidth = self._peak(), machine.read_bandwidth()
        lines = []
        for name, phase in (("prefill", self.prefill), ("decode", self.decode)):
            if phase.tokens:
                rate, flops, read = (x / phase.seconds for x in (phase.tokens, phase.flops, phase.bytes))
                lines.append(
                    f"{name:7s} {phase.tokens} tokens, {rate:,.1f} a second; a token takes"
                    f" {phase.flops / phase.tokens / 1e6:,.0f} MFLOP and {phase.bytes / phase.tokens / 1e6:,.1f} MB:"
                    f" {flops / 1e9:,.1f} GFLOP/s ({flops / peak:.0%} of {self._rounded}peak),"
                    f" {read / 1e9:,.1f} GB/s ({read / bandwidth:.0%} of the memory's)"
                )
        lines.append(
            f"this machine, measured now: {peak / 1e9:,.0f} {self._rounded}GFLOP/s, {bandwidth / 1e9:,.1f} GB/s"
        )
        lines.append(
            "(a prompt's tokens share every weight that is read, so arithmetic limits prefill; a new token"
            " reads every weight for two operations, so memory limits decode)"
        )
        self.forget()
        return lines

    def figures(self) -> dict:
        """The totals of each phase and this machine's measured limits, in units of one: tokens, seconds, operations, bytes."""
        phases = {"prefill": self.prefill, "decode": self.decode}
        found = {
            name: {**phase._asdict(), "tokens_per_second": phase.tokens / phase.seconds}
            for name, phase in phases.items()
            if phase.tokens
        }
        return {**found, "peak_flops": self._peak(), "read_bandwidth": machine.read_bandwidth()}

    def summary(self):
        """The report in one line: tokens a second of each phase, as a share of the limit that holds for that phase.

        Measuring takes a fifth of a second. The call resets the totals.
        """
        peak, bandwidth = self._peak(), machine.read_bandwidth()
        parts = []
        if self.prefill.tokens:
            share = self.prefill.flops / self.prefill.seconds / peak
            parts.append(f"prompt {_rate(self.prefill)}, {share:.0%} of this machine's {self._rounded}arithmetic")
        if self.decode.tokens:
            share = self.decode.bytes / self.decode.seconds / bandwidth
            parts.append(f"new {_rate(self.decode)}, {share:.0%} of its memory's speed")
        self.forget()
        return "; ".join(parts)

    def forget(self):
        """Set the totals to zero."""
        self.prefill, self.decode = Phase(), Phase()


def _rate(phase):
    return f"{counted(phase.tokens, 'token')} at {phase.tokens / phase.seconds:,.0f}/s"


def measure(decoder, prompt_tokens: int = 512, new_tokens: int = 32) -> list[str]:
    """The report of one generation of about a second: a prompt and new tokens, together within the context."""
    return measured(decoder, prompt_tokens, new_tokens).report()


def measured(decoder, prompt_tokens: int = 512, new_tokens: int = 32) -> Meter:
    """The ``Meter`` of such a generation."""
    config, meter = decoder.config, Meter(decoder)
    total = min(config.block_size, prompt_tokens + new_tokens)
    new = min(new_tokens, total // 2)
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, (1, total - new))
    for _ in range(2):  # the first call loads code and weights, and is not counted
        cache = KVCache(config)
        meter.prefill, meter.decode = Phase(), Phase()
        meter.extend(prompt, cache)
        for token in range(new):
            meter.extend(np.array([[token % config.vocab_size]]), cache)
    return meter
