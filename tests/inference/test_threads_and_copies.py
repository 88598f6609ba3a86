"""One decoder, many callers: what a call needs belongs to the call or to its cache."""

import copy
import pickle
import threading

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, KVCache, generate, kernels
from gpt_numpy.errors import GenerationError
from gpt_numpy.inference.decoder import Decoder, OpsDecoder
from gpt_numpy.inference.figures import Meter
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.inference.turns import turns

CONFIG = GPTConfig(vocab_size=61, block_size=48, n_layer=2, n_head=2, n_embd=32)
COPIES = [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
ALL_COPIES = pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])


@pytest.fixture(scope="module")
def model():
    model = GPT(CONFIG, seed=0, ops=kernels)
    model.params.flat *= 8
    return model


@pytest.fixture(scope="module", params=["ops", "float32", "bfloat16", "int8"])
def decoder(request, model):
    return OpsDecoder(model) if request.param == "ops" else PanelDecoder.pack(model, request.param)


def wrong_texts(decoder, n_threads, rounds, options):
    """How many of the texts that ``n_threads`` threads write with one decoder differ from those written alone."""
    prompts = [[1 + 3 * i, 2, 3 * i] * (1 + i % 3 * 6) for i in range(n_threads)]
    expected = [generate(decoder, prompt, 12, seed=i, **options).tolist() for i, prompt in enumerate(prompts)]
    wrong, together = [], threading.Barrier(n_threads)

    def write(i):
        together.wait()
        for _ in range(rounds):
            found = generate(decoder, prompts[i], 12, seed=i, **options).tolist()
            if found != expected[i]:
                wrong.append((i, found))

    callers = [threading.Thread(target=write, args=(i,)) for i in range(n_threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return wrong


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"temperature": 0}, {"top_k": 5}], ids=str)
def test_threads_that_share_a_decoder_write_what_each_would_write_alone(decoder, options):
    assert wrong_texts(decoder, 4, 8, options) == []


@pytest.mark.campaign
@pytest.mark.parametrize("n_threads", [2, 3, 5, 8])
def test_ten_thousand_texts(model, n_threads):
    assert wrong_texts(PanelDecoder.pack(model), n_threads, 10_000 // n_threads, {"temperature": 1.0}) == []


@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("n_rows", [1, 3, 31])
def test_one_worker_computes_the_bits_of_all_workers(model, format, n_rows, monkeypatch):
    decoder, tokens = PanelDecoder.pack(model, format), np.random.default_rng(n_rows).integers(0, 61, (2, n_rows))
    found = []
    for crowded in (False, True):
        monkeypatch.setattr(turns, "take", lambda crowded=crowded: crowded)
        cache = KVCache(CONFIG, batch=2)
        logits = decoder.extend(tokens, cache, every=True)
        largest = decoder.step_to_largest(tokens[:, 0], cache, 7)
        found.append([logits, *largest, *(a[:, :, :, : n_rows + 1] for a in (cache.keys, cache.values))])
    assert {shape[1] for shape in cache.scratch} == {1}  # the second cache has seen one worker alone
    for one, all_ in zip(*found):
        np.testing.assert_array_equal(one, all_)


def test_calls_of_two_caches_in_turn_do_not_disturb_each_other(decoder):
    tokens = np.random.default_rng(0).integers(0, 61, (2, 40))
    alone = []
    for row in tokens:
        cache = KVCache(CONFIG, dtype=decoder.dtype)
        alone.append([decoder.extend(row[None, i : i + 4], cache) for i in range(0, 40, 4)])
    caches = [KVCache(CONFIG, dtype=decoder.dtype) for _ in tokens]
    for step in range(10):
        for which in (0, 1):
            found = decoder.extend(tokens[which, None, 4 * step : 4 * step + 4], caches[which])
            np.testing.assert_array_equal(found, alone[which][step])


# ---- the protocol --------------------------------------------------------------------------------------------


def test_there_are_two_decoders_of_one_protocol_and_neither_is_the_other(model):
    exact, fast = OpsDecoder(model), PanelDecoder.pack(model)
    assert isinstance(exact, Decoder) and isinstance(fast, Decoder) and isinstance(Meter(fast), Decoder)
    assert not isinstance(fast, OpsDecoder) and not isinstance(exact, PanelDecoder)


# ---- copies --------------------------------------------------------------------------------------------------


@ALL_COPIES
def test_a_copied_decoder_writes_the_same(decoder, copied):
    expected = generate(decoder, [5, 6], 8, seed=3)
    generate(decoder, [5, 6], 2)  # used before it is copied
    np.testing.assert_array_equal(generate(copied(decoder), [5, 6], 8, seed=3), expected)


@ALL_COPIES
def test_a_copied_cache_goes_on_by_itself(model, copied):
    decoder, cache = PanelDecoder.pack(model), KVCache(CONFIG, batch=2)
    decoder.extend([[1, 2, 3], [4, 5, 6]], cache)
    twin = copied(cache)
    expected = decoder.extend([[7], [8]], cache)
    np.testing.assert_array_equal(decoder.extend([[7], [8]], twin), expected)
    decoder.extend([[9], [9]], cache)
    assert twin.lengths.tolist() == [4, 4] and cache.lengths.tolist() == [5, 5]


def test_a_copied_cache_belongs_to_the_same_model(model):
    decoder, cache = PanelDecoder.pack(model), KVCache(CONFIG)
    decoder.extend([[1, 2]], cache)
    for twin in (copy.copy(cache), copy.deepcopy(cache)):
        with pytest.raises(GenerationError, match="another model"):
            PanelDecoder.pack(model).extend([[3]], twin)


def test_lengths_that_somebody_wrote_to_are_refused(decoder):
    cache = KVCache(CONFIG, dtype=decoder.dtype)
    decoder.extend([[1, 2]], cache)
    for wrong in (-1, -(10**9), 48, 10**9):
        cache.lengths[0] = wrong
        with pytest.raises(GenerationError):
            decoder.extend([[3]], cache)
