"""The fast decoder: packed weights, and kernels that read them at the speed of memory.

However the tokens come, one by one, a whole prompt or many sequences at once, they are rows of one and the same
kernel (``kernels.decode``), ``PASS_ROWS`` of them at a time.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..workspace import aligned_empty
from .decoder import OpsDecoder
from .packed import BLOCK, PANEL, PackedWeights, panel_size

KEPT_BUFFERS = 4  # shapes of calls whose memory is kept
PASS_ROWS = 256  # rows of one launch: their activations stay in the cache


class PanelDecoder(OpsDecoder):
    """Extends cached sequences with packed weights in float32, bfloat16 or int8; activations are float32."""

    def __init__(self, weights):
        self.weights = self.identity = weights
        self.config, self.dtype = weights.config, np.dtype(np.float32)
        self._buffers = {}

    @classmethod
    def pack(cls, model, format="float32"):
        """From a float32 ``GPT``, whose parameters are copied."""
        if model.dtype != np.float32:
            raise ConfigError("packed weights are made from float32", field="dtype", found=str(model.dtype))
        return cls(PackedWeights.pack(model.config, model.params, format))

    def extend(self, tokens, cache, sequences=None, every=False):
        """As ``OpsDecoder.extend``, which specifies it."""
        tokens, sequences, positions = self._prepare(tokens, cache, sequences)
        n, T = tokens.shape
        wanted = np.ones((n, T), bool)
        if not every:
            wanted[:, :-1] = False
        logits = np.empty((int(wanted.sum()), self.config.vocab_size), np.float32)
        # A row attends to rows of earlier passes and of its own; by columns, no sequence is ahead of another.
        rows = [a.T.reshape(-1) for a in (tokens, np.repeat(sequences[:, None], T, axis=1), positions, wanted)]
        done = 0
        for first in range(0, n * T, PASS_ROWS):
            part = [a[first : first + PASS_ROWS] for a in rows]
            count = int(part[-1].sum())
            self._run(cache, *part, logits[done : done + count])
            done += count
        cache.lengths[sequences] += T
        return logits.reshape(T, n, -1).swapaxes(0, 1) if every else logits

    def _run(self, cache, tokens, sequences, positions, wanted, logits):
        from ..kernels import decode, threads

        w, config = self.weights, self.config
        count = threads.count()
        buffers = self._buffers_for(len(tokens), count, cache.capacity)
        buffers.sequences[:], buffers.positions[:] = sequences, positions
        np.add(w.embed(tokens), w.positions[positions], out=buffers.x)
        buffers = buffers._replace(wanted=np.flatnonzero(wanted), logits=logits)
        shape = decode.Shape(len(tokens), config.n_layer, config.n_head, config.head_size, config.n_embd,
                             config.vocab_size, cache.batch, cache.capacity)  # fmt: skip
        chunk_size = panel_size(w.format, decode.CHUNK)
        weights = decode.Weights(w.data, w.offsets, w.panel_sizes, chunk_size, w.vectors)
        decode.decode_rows(count, weights, shape, buffers, cache.keys.reshape(-1), cache.values.reshape(-1))

    def _buffers_for(self, *key):
        if key not in self._buffers:
            if len(self._buffers) >= KEPT_BUFFERS:
                self._buffers.pop(next(iter(self._buffers)))
            self._buffers[key] = make_buffers(self.weights, *key)
        return self._buffers[key]


def make_buffers(weights, rows, threads, capacity):
    """``kernels.decode.Buffers`` for so many rows, threads and cached tokens."""
    from ..kernels.decode import STAGES, Buffers
    from ..kernels.stages import STAGE_WORDS

    config, C = weights.config, weights.config.n_embd
    # A block more than needed: rows a power of two apart would compete for the same places in the cache.
    step = (-(-4 * C // BLOCK) + 1) * BLOCK
    quantised = weights.format == "int8"
    shapes = {
        "counters": ((STAGES * config.n_layer + 1) * STAGE_WORDS,),
        "sequences": (rows,),
        "positions": (rows,),
        "x": (rows, C),
        "q": (rows, C),
        "heads": (rows, C),
        "hidden": (rows, 4 * C),
        "wanted": (0,),
        "logits": (0, 0),  # both are given with each call
        "activations": (threads, rows, step),
        "scales": (threads, rows, step // BLOCK),
        "sums": (threads, rows, PANEL),
        "scratch": (threads, max(capacity, C)),
    }
    integers = {"counters": np.int64, "sequences": np.int64, "positions": np.int64, "wanted": np.int64}
    if quantised:
        integers["activations"] = np.int16
    return Buffers(**{name: aligned_empty(shape, integers.get(name, np.float32)) for name, shape in shapes.items()})
