"""The key-value cache: the keys and values that attention needs of tokens already seen.

A token's keys and values never change once computed, because they do not depend on later tokens.
With the cache, a new token costs a forward pass over one position instead of one over the whole sequence.
The cache is an argument, never a part of the model: one model serves any number of caches, also at the same
time, from as many Python threads. One cache is for one thread at a time.
"""

from __future__ import annotations

import numpy as np

from ..errors import ContextLengthError, GenerationError
from ..wording import counted, in_bytes
from ..workspace import aligned_empty


class KVCache:
    """Keys and values of ``batch`` independent sequences.

    keys, values  (n_layer, batch, key heads, capacity, head_size): each head's own keys lie together, in order
    lengths       (batch,) int64, tokens cached for each sequence; they may differ

    Sequence b's token t has position t in the model: positions are absolute, so a cache is never shifted.
    A cache belongs to the first model that fills the cache. A copy belongs to the same model. An unpickled cache
    belongs to the first model that fills it anew. The system provides memory only as tokens arrive. A decoder keeps its
    memory between calls in ``scratch``, which is not copied.
    """

    def __init__(self, config, batch=1, capacity=None, dtype=np.float32):
        capacity = config.block_size if capacity is None else capacity
        if not 1 <= capacity <= config.block_size:
            raise ContextLengthError(
                "impossible cache",
                field="capacity",
                found=capacity,
                expected=f"1 to the model's {config.block_size} positions",
            )
        if batch < 1:
            raise GenerationError("impossible cache", field="batch", found=batch, expected="at least 1 sequence")
        shape = (config.n_layer, batch, config.key_heads, capacity, config.head_size)
        self.keys, self.values = aligned_empty(shape, dtype), aligned_empty(shape, dtype)
        self.lengths = np.zeros(batch, np.int64)
        self.scratch: dict = {}
        self._owner: object = None

    def __getstate__(self):
        return {**self.__dict__, "scratch": {}, "_owner": None}

    def __copy__(self):
        return self.__deepcopy__({})  # two caches that share their arrays would overwrite each other's tokens

    def __deepcopy__(self, memo):
        copy = object.__new__(type(self))
        copy.keys, copy.values = (aligned_empty(self.keys.shape, self.keys.dtype) for _ in range(2))
        copy.lengths = self.lengths.copy()
        for sequence, length in enumerate(self.lengths):  # not the memory that no token has reached yet
            copy.keys[:, sequence, :, :length] = self.keys[:, sequence, :, :length]
            copy.values[:, sequence, :, :length] = self.values[:, sequence, :, :length]
        copy.scratch, copy._owner = {}, memo.get(id(self._owner), self._owner)
        return copy

    @property
    def batch(self):
        """Number of sequences."""
        return self.keys.shape[1]

    @property
    def capacity(self):
        """Tokens that fit into each sequence."""
        return self.keys.shape[3]

    @property
    def nbytes(self):
        """Bytes of keys and values in use."""
        n_layer, _, n_head, _, head_size = self.keys.shape
        return int(2 * n_layer * n_head * head_size * self.lengths.sum() * self.keys.itemsize)

    def __repr__(self):
        held = ", ".join(map(str, self.lengths[:4].tolist())) + ", …" * (self.batch > 4)
        sizes = f"{counted(self.batch, 'sequence')} of {held} of {self.capacity} tokens"
        return f"<KVCache: {sizes}, {counted(len(self.keys), 'layer')}, {in_bytes(self.nbytes)} in use>"

    def claim(self, decoder, sequences, count):
        """Check that ``decoder`` may add ``count`` tokens to each of ``sequences`` (int array)."""
        config = decoder.config
        n_layer, batch, n_head, capacity, head_size = self.keys.shape
        found = (n_layer, n_head, head_size, self.keys.dtype)
        expected = (config.n_layer, config.key_heads, config.head_size, decoder.dtype)
        if found != expected or (self._owner is not None and self._owner is not decoder.identity):
            raise GenerationError("this cache belongs to another model")
        named = sequences.tolist()  # plain numbers: this is done for every token
        if named and not 0 <= min(named) <= max(named) < batch:
            raise GenerationError("no such sequence", field="cache", found=max(named), expected=f"0 to {batch - 1}")
        if len(set(named)) < len(named):
            raise GenerationError("a sequence is named twice", field="sequences", found=named)
        lengths = self.lengths[sequences].tolist()
        if lengths and min(lengths) < 0:
            raise GenerationError("no such length", field="lengths", found=min(lengths), expected="at least 0")
        longest = max(lengths, default=0)
        if longest + count > capacity:
            raise ContextLengthError(
                "the cache is full", found=f"{longest} cached and {count} new tokens", expected=f"at most {capacity}"
            )
        self._owner = decoder.identity

    def truncate(self, sequence, length):
        """Forget all but the first ``length`` tokens of one sequence."""
        if not 0 <= length <= self.lengths[sequence]:
            raise GenerationError(
                "a cache is cut, never extended",
                field="length",
                found=length,
                expected=f"0 to {self.lengths[sequence]}",
            )
        self.lengths[sequence] = length

    def copy_sequence(self, source, target):
        """Make sequence ``target`` a copy of ``source``: one prefill serves many continuations."""
        length = self.lengths[source]
        for array in (self.keys, self.values):
            array[:, target, :, :length] = array[:, source, :, :length]
        self.lengths[target] = length
