"""The fast decoder: packed weights, and kernels that read them at the speed of memory.

A few new tokens, of however many sequences, are rows of one launch for the whole model (``kernels.decode``),
``PASS_ROWS`` of them at a time. A prompt is read layer by layer (``kernels.prefill``), with attention in tiles.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..workspace import aligned_empty
from .decoder import OpsDecoder, check_logits
from .packed import BLOCK, PANEL, PackedWeights, panel_size

KEPT_BUFFERS = 4  # shapes of calls whose memory is kept
PASS_ROWS = 256  # rows of one launch: their activations stay in the cache
PROMPT_TOKENS = 32  # from here on, a sequence's new tokens are read as a prompt


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
        if T >= PROMPT_TOKENS:
            logits = [self._read(cache, *row, every) for row in zip(tokens, sequences, positions)]
            cache.lengths[sequences] += T
            return np.stack(logits) if every else np.concatenate(logits)
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

    def step_greedily(self, tokens, cache, sequences=None):
        """As ``OpsDecoder.step_greedily``, which specifies it; logits are never written to memory."""
        tokens, sequences, positions = self._prepare(np.asarray(tokens)[:, None], cache, sequences)
        chosen, rows = [], [tokens[:, 0], sequences, positions[:, 0], np.ones(len(tokens), bool)]
        for first in range(0, len(tokens), PASS_ROWS):
            part = [a[first : first + PASS_ROWS] for a in rows]
            best = self._run(cache, *part, np.empty((0, 0), np.float32)).best
            check_logits(best[:, :, 2].sum())
            largest = best[:, :, 0].max(axis=0)
            chosen.append(np.where(best[:, :, 0] == largest, best[:, :, 1], np.inf).min(axis=0).astype(np.int64))
        cache.lengths[sequences] += 1
        return np.concatenate(chosen)

    def _run(self, cache, tokens, sequences, positions, wanted, logits):
        from ..kernels import decode, threads

        w, config = self.weights, self.config
        count = threads.count()
        buffers = self._buffers_for(len(tokens), count, cache.capacity)
        self._begin(buffers, tokens, sequences, positions)
        buffers = buffers._replace(wanted=np.flatnonzero(wanted), logits=logits)
        weights, shape = self._arguments(decode.CHUNK, len(tokens), cache)
        decode.decode_rows(count, weights, shape, buffers, cache.keys.reshape(-1), cache.values.reshape(-1))
        return buffers

    def _read(self, cache, tokens, sequence, positions, every):
        """Logits after the last (or ``every``) token of one sequence's new ones, by far more than a few."""
        from ..kernels import attention, decode, prefill, threads

        config, count, rows = self.config, threads.count(), len(tokens)
        buffers = make_buffers(self.weights, rows, count, cache.capacity, prefill.ROWS, prefill.ROWS * prefill.RANGE)
        self._begin(buffers, tokens, sequence, positions)
        wanted = np.arange(rows) if every else np.array([rows - 1])
        buffers = buffers._replace(wanted=wanted, logits=np.empty((len(wanted), config.vocab_size), np.float32))
        weights, shape = self._arguments(prefill.DEPTH, rows, cache)
        keys, values = cache.keys.reshape(-1), cache.values.reshape(-1)

        def multiply(layer, kind, rows=rows):
            n_tasks, *cut = prefill.plan(rows, self.weights.shapes[kind][1], count)
            prefill.multiply(n_tasks, layer, kind, *cut, weights, shape, buffers, keys, values)

        heads = (1, rows, config.n_head, config.head_size)
        seen = slice(int(positions[-1]) + 1)
        for layer in range(config.n_layer):
            multiply(layer, decode.QKV)
            k, v = (a[layer, sequence, None, :, seen].swapaxes(1, 2) for a in (cache.keys, cache.values))
            attention.attention_forward(buffers.q.reshape(heads), k, v, alloc=lambda *_: buffers.heads.reshape(heads))
            for kind in (decode.PROJ, decode.FC, decode.MLP_PROJ):
                multiply(layer, kind)
        multiply(config.n_layer, decode.HEAD, len(wanted))
        return buffers.logits

    def _begin(self, buffers, tokens, sequences, positions):
        buffers.sequences[:], buffers.positions[:] = sequences, positions
        np.add(self.weights.embed(tokens), self.weights.positions[positions], out=buffers.x)

    def _arguments(self, chunk, rows, cache):
        """The kernels' weights, in chunks of so many k, and shape."""
        from ..kernels import decode

        w, config = self.weights, self.config
        weights = decode.Weights(w.data, w.offsets, w.panel_sizes, panel_size(w.format, chunk), w.vectors)
        return weights, decode.Shape(rows, config.n_layer, config.n_head, config.head_size, config.n_embd,
                                     config.vocab_size, cache.batch, cache.capacity)  # fmt: skip

    def _buffers_for(self, *key):
        if key not in self._buffers:
            if len(self._buffers) >= KEPT_BUFFERS:
                self._buffers.pop(next(iter(self._buffers)))
            self._buffers[key] = make_buffers(self.weights, *key)
        return self._buffers[key]


def make_buffers(weights, rows, threads, capacity, block=None, sums=None):
    """``kernels.decode.Buffers`` for so many rows, threads and cached tokens.

    A thread has activations of ``block`` rows and ``sums`` rows of sums at a time; default: all rows.
    """
    from ..kernels.decode import STAGES, Buffers
    from ..kernels.panel_tile import STREAMS
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
        "best": (threads, rows, 3),
        "activations": (threads, block or rows, step),
        "scales": (threads, block or rows, step // BLOCK),
        "sums": (threads, sums or rows, PANEL if sums else STREAMS * PANEL),
        "scratch": (threads, max(capacity, C)),
    }
    others = dict.fromkeys(("counters", "sequences", "positions", "wanted"), np.int64) | {"best": np.float64}
    if quantised:
        others["activations"] = np.int16
    return Buffers(**{name: aligned_empty(shape, others.get(name, np.float32)) for name, shape in shapes.items()})
