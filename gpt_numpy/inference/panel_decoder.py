"""The fast decoder: packed weights, and kernels that read them at the speed of memory.

A few new tokens, of one or several sequences, are rows of one launch for the whole model
(``kernels.decoding.one_token``), ``PASS_ROWS`` of them at a time. A prompt is read layer by layer
(``kernels.decoding.prompt``), with attention in tiles. The memory of a launch is kept in the cache that it extends.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ..architecture.rotation import frequencies, rotation_of
from ..config import GATED_ACTIVATIONS
from ..errors import ConfigError
from ..products import check_products
from ..workspace import aligned_empty
from .cache import KVCache
from .decoder import begin_extension, check_logits, largest_of_each
from .packed import BLOCK, INTEGERS, PANEL, PackedWeights
from .turns import turns

KEPT_BUFFERS = 4  # shapes of calls whose memory a cache keeps
PASS_ROWS = 256  # rows of one launch: their activations stay in the cache
PROMPT_TOKENS = 32  # from here on, a sequence's new tokens are read as a prompt
SMALL = 8 << 20  # bytes of weights, times rows: a launch that takes no longer than what Python does for a token
_NO_LOGITS = np.empty((0, 0), np.float32)


class PanelDecoder:
    """A ``Decoder`` with packed weights in float32, bfloat16, int8 or int4; activations are float32.

    ``OpsDecoder`` is the specification of the results. With ``products="bfloat16"``, what is read as a prompt (at least
    PROMPT_TOKENS new tokens of a sequence) has the products of ``layers.rounded``; float32 weights are then kept a second
    time, rounded. Fewer tokens are read as without it: memory limits them, not arithmetic.
    """

    def __init__(self, weights: PackedWeights, products: str = "float32", rounded: PackedWeights | None = None):
        """rounded: the same weights in bfloat16, if there are any already."""
        self.weights, self.products = weights, check_products(products)
        self.config, self.dtype = weights.config, np.dtype(np.float32)
        self._prompt_weights, self._omega = weights, None
        if self.config.positions == "rotary":
            self._omega = frequencies(self.config.head_size, self.config.rope_theta, self.config.rope_scaling)
        if products == "bfloat16" and weights.format in INTEGERS:
            raise ConfigError(
                f"weights in {weights.format} are multiplied as integers",
                field="products",
                found=products,
                expected="float32",
            )
        if products == "bfloat16" and weights.format == "float32":
            self._prompt_weights = rounded or PackedWeights.pack(weights.config, weights.unpacked(), "bfloat16")

    @property
    def identity(self) -> object:
        """The weights: two decoders of the same weights may use one cache."""
        return self.weights

    def __repr__(self):
        return f"<PanelDecoder of {self.weights!r}>"

    @classmethod
    def pack(cls, model, format="float32", products="float32"):
        """From a float32 ``GPT``, whose parameters are copied."""
        if model.dtype != np.float32:
            raise ConfigError("packed weights are made from float32", field="dtype", found=str(model.dtype))
        return cls.pack_parameters(model.config, model.params, format, products)

    @classmethod
    def pack_parameters(cls, config, params, format="float32", products="float32"):
        """From a mapping name → contiguous float32 array, each read without a copy."""
        twice = products == "bfloat16" and format == "float32"
        rounded = PackedWeights.pack(config, params, "bfloat16") if twice else None
        return cls(PackedWeights.pack(config, params, format), products, rounded)

    def extend(self, tokens, cache: KVCache, sequences=None, every: bool = False) -> np.ndarray:
        """See ``Decoder.extend``."""
        tokens, sequences, positions = begin_extension(self, tokens, cache, sequences)
        n, T = tokens.shape
        if T >= PROMPT_TOKENS:
            read = [self._read(cache, *row, every) for row in zip(tokens, sequences, positions)]
            cache.lengths[sequences] += T
            return np.stack(read) if every else np.concatenate(read)
        logits = np.empty((n * T if every else n, self.config.vocab_size), np.float32)
        # A row attends to rows of earlier passes and of its own pass, so the first token of each sequence comes first.
        rows = tokens.T.reshape(-1), np.concatenate([sequences] * T), positions.T.reshape(-1)
        unwanted = n * T - len(logits)
        for first in range(0, n * T, PASS_ROWS):
            last = first + PASS_ROWS
            part = logits[max(0, first - unwanted) : max(0, last - unwanted)]
            self._run(cache, *(a[first:last] for a in rows), wanted=len(part), logits=part)
        cache.lengths[sequences] += T
        return logits.reshape(T, n, -1).swapaxes(0, 1) if every else logits

    def step_to_largest(self, tokens, cache: KVCache, count: int, sequences=None) -> tuple[np.ndarray, np.ndarray]:
        """See ``Decoder.step_to_largest``; up to ``MOST_LARGEST`` are found without writing the logits."""
        from ..kernels.decoding.launch import MOST_LARGEST

        count = min(count, self.config.vocab_size)
        if count > MOST_LARGEST:
            return largest_of_each(self.extend(np.asarray(tokens)[:, None], cache, sequences), count)
        tokens, sequences, positions = begin_extension(self, np.asarray(tokens)[:, None], cache, sequences)
        found, rows = [], (tokens[:, 0], sequences, positions[:, 0])
        for first in range(0, len(tokens), PASS_ROWS):
            part = [a[first : first + PASS_ROWS] for a in rows]
            best = self._run(cache, *part, wanted=len(part[0]), logits=_NO_LOGITS, largest=count).best
            check_logits(best[:, :, 0, 0].sum())
            found.append(_merge(best[:, :, 1 : count + 1], count))
        cache.lengths[sequences] += 1
        ids, logits = zip(*found)
        return np.concatenate(ids), np.concatenate(logits)

    def _run(self, cache, tokens, sequences, positions, wanted, logits, largest=0):
        """One pass; returns its ``Buffers``: ``logits`` of the last ``wanted`` rows, or each thread's largest in ``best``."""
        from ..kernels.decoding import launch, one_token
        from ..kernels.runtime import threads

        small = self.weights.data.nbytes * len(tokens) <= SMALL
        count = 1 if small and turns.take() else threads.count()
        buffers = self._buffers_for(cache, len(tokens), count)
        self._begin(buffers, tokens, sequences, positions)
        buffers = buffers._replace(logits=logits)
        weights, shape = self._arguments(self.weights, launch.CHUNK, cache, len(tokens), wanted, largest)
        one_token.decode_rows(count, weights, shape, buffers, cache.keys.reshape(-1), cache.values.reshape(-1))
        return buffers

    def _read(self, cache, tokens, sequence, positions, every):
        """Logits after the last new token (or ``every`` one) of one sequence, for ``PROMPT_TOKENS`` new tokens or more."""
        from ..kernels import attention
        from ..kernels.decoding import launch, prompt
        from ..kernels.gemm import with_operands
        from ..kernels.runtime import threads

        config, count, rows = self.config, threads.count(), len(tokens)
        words = self.products == "bfloat16"
        buffers = make_buffers(
            self.weights, rows, count, cache.capacity, prompt.ROWS, prompt.ROWS * prompt.RANGE, words
        )
        rotation = self._begin(buffers, tokens, sequence, positions)
        wanted = rows if every else 1
        buffers = buffers._replace(logits=np.empty((wanted, config.vocab_size), np.float32))
        weights, shape = self._arguments(self._prompt_weights, prompt.DEPTH, cache, rows, wanted, 0)
        keys, values = cache.keys.reshape(-1), cache.values.reshape(-1)

        def multiply(layer, kind, rows=rows):
            n_tasks, *cut = prompt.plan(rows, self.weights.shapes[kind][1], count)
            prompt.multiply(n_tasks, layer, kind, *cut, weights, shape, buffers, keys, values)

        heads, stop = (1, rows, config.n_head, config.head_size), int(positions[-1]) + 1
        q = buffers.q.reshape(heads)
        for layer in range(config.n_layer):
            multiply(layer, launch.QKV)
            k, v = (a[layer, sequence, None, :, :stop].swapaxes(1, 2) for a in (cache.keys, cache.values))
            self._prepare_heads(layer, q, 0, rotation)
            self._prepare_heads(layer, k[:, stop - rows :], 1, rotation)
            scale, window = config.attention_scale(layer), config.window(layer)
            first_key = None if window is None else np.maximum(positions + 1 - window, 0)[None]
            with with_operands(self.products):
                attention.attention_forward(
                    q, k, v, first_key, alloc=lambda *_: buffers.heads.reshape(heads), scale=scale
                )
            for kind in (launch.PROJ, launch.FC, launch.MLP_PROJ):
                multiply(layer, kind)
        multiply(config.n_layer, launch.HEAD, wanted)
        return buffers.logits

    def _prepare_heads(self, layer, x, which, rotation):
        """Queries (which: 0) or keys (1) of a prompt (1, rows, heads, head_size), normalised and turned in place."""
        from ..kernels.rmsnorm import rmsnorm_forward
        from ..kernels.rotary import turn

        if self.config.qk_norm:
            start = self.weights.head_norms[layer, which]
            weight = self.weights.vectors[start : start + self.config.head_size]
            x[...] = rmsnorm_forward(x, weight, self.config.norm_epsilon)[0]
        if rotation is not None:
            turn(x, x, rotation)

    def _begin(self, buffers, tokens, sequences, positions):
        """Write what a launch starts from into ``buffers``; returns the ``Rotation`` of the rows, or None."""
        buffers.sequences[:], buffers.positions[:] = sequences, positions
        if self._omega is None:
            np.add(self.weights.embed(tokens), self.weights.positions[positions], out=buffers.x)
            return None
        buffers.x[...] = self.weights.embed(tokens)
        rotation = rotation_of(positions, self._omega, np.float32, self.config.rope_pairing)
        buffers.cos[...], buffers.sin[...] = rotation.cos, rotation.sin
        return rotation

    def _arguments(self, w, chunk, cache, rows, wanted, largest):
        """The ``Weights`` (for kernels that take ``chunk`` rows of a panel at a time) and ``Shape`` of the kernels."""
        from ..kernels.decoding import launch

        config = self.config
        sizes = w.panel_sizes, w.sizes_of_rows([chunk] * len(w.shapes))
        weights = launch.Weights(w.data, w.head_data, w.offsets, *sizes, w.vectors, w.places, w.head_norms)
        return weights, launch.Shape(
            rows,
            wanted,
            largest,
            config.n_layer,
            config.n_head,
            config.key_heads,
            config.head_size,
            config.n_embd,
            config.hidden_columns,
            config.mlp_width,
            config.vocab_size,
            cache.batch,
            cache.capacity,
            cache.capacity if config.sliding_window is None else config.sliding_window,
            config.window_from,
            np.float32(1 / math.sqrt(config.head_size) if config.scale_attn_weights else 1),
            config.scale_attn_by_inverse_layer_idx,
            *forms(config),
        )

    def _buffers_for(self, cache, rows, n_threads):
        kept, key = cache.scratch, (rows, n_threads, self.weights.format)
        if key not in kept:
            if len(kept) >= KEPT_BUFFERS:
                kept.pop(next(iter(kept)))
            kept[key] = make_buffers(self.weights, rows, n_threads, cache.capacity)
        return kept[key]


@functools.cache
def forms(config):
    """The ``norm``, ``heads`` and ``mlp`` of ``kernels.decoding.launch.Shape``."""
    from ..kernels.activation import KINDS
    from ..kernels.decoding import block_forms

    epsilon, rotary = np.float32(config.norm_epsilon), config.positions == "rotary"
    norm = (block_forms.Rmsnorm if config.norm == "rmsnorm" else block_forms.Layernorm)(epsilon)
    heads = block_forms.AsMade(0)
    if rotary or config.qk_norm:
        pairs = config.head_size // 2 if rotary else 0
        heads = block_forms.Prepared(pairs, config.rope_pairing == "halves", config.qk_norm, epsilon)
    if config.is_gated:
        return norm, heads, block_forms.Gated(KINDS[GATED_ACTIVATIONS[config.mlp]])
    return norm, heads, block_forms.Plain(KINDS[config.mlp])


def _merge(best, count):
    """(ids, logits), both (rows, count), of the largest among all threads' (threads, rows, count, 2), ids ascending."""
    logits, ids = (np.concatenate(best[..., i], axis=-1) for i in range(2))  # (rows, threads · count)
    chosen = np.lexsort((ids, -logits))[:, :count]  # the lowest of equals first
    chosen = np.take_along_axis(chosen, np.take_along_axis(ids, chosen, 1).argsort(1), 1)
    return (
        np.take_along_axis(ids, chosen, 1).astype(np.int64),
        np.take_along_axis(logits, chosen, 1).astype(np.float32),
    )


def make_buffers(weights, rows, threads, capacity, block=None, sums=None, words=False):
    """``kernels.decoding.launch.Buffers`` for the given numbers of rows, threads and cached tokens.

    A thread has memory for the activations of ``block`` rows and for ``sums`` rows of sums; default: all rows. words:
    activations are words of two bfloat16.
    """
    from ..kernels.decoding.cached_attention import scratch_size
    from ..kernels.decoding.launch import MOST_LARGEST, STAGES, Buffers
    from ..kernels.decoding.panel_tile import SCALES, STREAMS
    from ..kernels.decoding.stages import LINE

    config, C = weights.config, weights.config.n_embd
    # One block more than needed: rows a power of two apart would compete for the same sets of the CPU's cache.
    step = (-(-max(C, config.heads_width, config.mlp_width) // BLOCK) + 1) * BLOCK
    pairs = config.head_size // 2 if config.positions == "rotary" else 0
    group = config.n_head // config.key_heads
    quantised = weights.format in INTEGERS
    shapes = {
        "counters": (STAGES * config.n_layer + 1, 1 + threads, LINE),
        "sequences": (rows,),
        "positions": (rows,),
        "cos": (rows, pairs),
        "sin": (rows, pairs),
        "x": (rows, C),
        "q": (rows, config.heads_width),
        "heads": (rows, config.heads_width),
        "hidden": (rows, config.hidden_columns),
        "logits": (0, 0),  # given with each call
        "best": (threads, block or rows, 1 + MOST_LARGEST, 2),
        "activations": (threads, block or rows, step),
        "scales": (threads, block or rows, step // BLOCK * SCALES),
        "sums": (threads, sums or rows, PANEL if sums else STREAMS * PANEL),
        "scratch": (threads, max(scratch_size(group, config.head_size, capacity), C, config.mlp_width)),
    }
    others = dict.fromkeys(("counters", "sequences", "positions"), np.int64) | {"best": np.float64}
    if quantised or words:
        others["activations"] = np.int16 if quantised else np.uint32
    return Buffers(**{name: aligned_empty(shape, others.get(name, np.float32)) for name, shape in shapes.items()})
