import itertools

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import ContextLengthError, DataError, GenerationError
from gpt_numpy.inference import KVCache, Sequences
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.inference.sequences import context_start

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 10]


def uncached(model, tokens):
    """Logits after the last of ``tokens`` by a forward pass over all that the model still sees of them."""
    start = context_start(len(tokens), model.config.block_size)
    return model.forward(np.array([tokens[start:]]))[0, -1]


def compositions(total):
    """Every way of writing ``total`` as a sum of positive integers in order."""
    for cuts in itertools.product([False, True], repeat=total - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), total]
        yield [b - a for a, b in itertools.pairwise(places)]


def test_every_split_gives_the_uncached_logits(model):
    tokens = np.array([TOKENS[:7]])
    expected = model.forward(tokens)[0]
    splits = list(compositions(7))
    assert len(splits) == 64
    for split in splits:
        cache, place = KVCache(model.config, dtype=np.float64), 0
        for count in split:
            logits = OpsDecoder(model).extend(tokens[:, place : place + count], cache, every=True)
            assert np.abs(logits[0] - expected[place : place + count]).max() <= 1e-12, split
            place += count


@pytest.mark.parametrize("prompt_length", [1, 2, 6, 7, 8, 9, 13])
def test_past_the_end_of_the_context(model, prompt_length):
    # Whatever comes as the prompt and whatever one by one, the model sees the same window.
    sequences = Sequences(model)
    logits = sequences.append(0, TOKENS[:prompt_length])
    for count in range(prompt_length, len(TOKENS)):
        assert np.abs(logits - uncached(model, TOKENS[:count])).max() <= 1e-12, count
        logits = sequences.step([TOKENS[count]], [0])[0]
    assert sequences.tokens == [TOKENS]


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 8])
def test_the_window_never_exceeds_the_context_and_keeps_at_least_half(block_size):
    for count in range(1, 50):
        start = context_start(count, block_size)
        assert start <= context_start(count + 1, block_size)
        assert count - start <= block_size
        assert start == 0 or count - start >= max(1, block_size // 2)


def test_sequences_of_different_lengths_advance_together(model):
    prompts = [TOKENS[:5], TOKENS[4:6], TOKENS[1:8]]
    together = Sequences(model, batch=3)
    for sequence, prompt in enumerate(prompts):
        logits = together.append(sequence, prompt)
        assert np.abs(logits - uncached(model, prompt)).max() <= 1e-12
    for active in ([0, 1, 2], [2, 0], [1], [1, 2]):
        new = [TOKENS[-1 - sequence] for sequence in active]
        logits = together.step(new, active)
        for row, sequence in enumerate(active):
            prompts[sequence] = prompts[sequence] + [new[row]]
            assert np.abs(logits[row] - uncached(model, prompts[sequence])).max() <= 1e-12


def test_a_copy_goes_its_own_way(model):
    sequences = Sequences(model, batch=2)
    sequences.append(0, TOKENS[:3])
    sequences.copy(0, 1)
    logits = sequences.step([7, 8], [0, 1])
    assert np.abs(logits[0] - uncached(model, TOKENS[:3] + [7])).max() <= 1e-12
    assert np.abs(logits[1] - uncached(model, TOKENS[:3] + [8])).max() <= 1e-12


def test_a_cut_cache_continues_from_the_cut(model):
    cache, decoder = KVCache(model.config, dtype=np.float64), OpsDecoder(model)
    decoder.extend(np.array([[3, 1, 4, 1, 5]]), cache)
    cache.truncate(0, 2)
    assert cache.nbytes == 2 * 2 * 2 * 12 * 8
    logits = decoder.extend(np.array([[9, 2]]), cache)
    assert np.abs(logits[0] - model.forward(np.array([[3, 1, 9, 2]]))[0, -1]).max() <= 1e-12
    with pytest.raises(GenerationError, match="length"):
        cache.truncate(0, 5)


def test_a_full_cache_is_never_overwritten(model):
    cache, decoder = KVCache(model.config, capacity=4, dtype=np.float64), OpsDecoder(model)
    decoder.extend(np.array([[3, 1, 4]]), cache)
    before = cache.keys[..., :3, :].copy()
    with pytest.raises(ContextLengthError, match="full.*3 cached and 2 new.*at most 4"):
        decoder.extend(np.array([[1, 5]]), cache)
    assert np.array_equal(cache.keys[..., :3, :], before) and cache.lengths[0] == 3


def test_a_cache_of_another_model_or_batch_is_refused(model):
    cache = KVCache(model.config, batch=2, dtype=np.float64)
    OpsDecoder(model).extend(np.array([[1], [2]]), cache)
    twin = GPT(model.config, dtype=np.float64, ops=layers)
    with pytest.raises(GenerationError, match="another model"):
        OpsDecoder(twin).extend(np.array([[1], [2]]), cache)
    with pytest.raises(GenerationError, match="another model"):
        single = GPT(model.config, ops=layers)
        OpsDecoder(single).extend(np.array([[1], [2]]), KVCache(model.config, 2, dtype=np.float64))
    with pytest.raises(ContextLengthError, match="one row"):
        OpsDecoder(model).extend(np.array([[1], [2], [3]]), cache)
    with pytest.raises(GenerationError, match="no such sequence"):
        OpsDecoder(model).extend(np.array([[1]]), cache, [2])
    with pytest.raises(GenerationError, match="twice"):
        OpsDecoder(model).extend(np.array([[1], [1]]), cache, [1, 1])
    with pytest.raises(DataError, match="no such token.*found 11"):
        OpsDecoder(model).extend(np.array([[1], [11]]), cache)
    assert cache.lengths.tolist() == [1, 1]


@pytest.mark.parametrize("capacity, batch", [(0, 1), (8, 1), (4, 0)])
def test_impossible_caches(model, capacity, batch):
    with pytest.raises(GenerationError, match="impossible cache"):
        KVCache(model.config, batch, capacity)
