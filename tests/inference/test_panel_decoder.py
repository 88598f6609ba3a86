"""The fast decoder against its specification, ``OpsDecoder`` on the weights that it actually computes with."""

import itertools

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, generate, layers
from gpt_numpy.errors import ConfigError, ContextLengthError, GenerationError
from gpt_numpy.inference import KVCache, panel_decoder
from gpt_numpy.inference.decoder import OpsDecoder
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.inference.sampling import Sampling
from gpt_numpy.kernels.decoding import launch, prompt
from gpt_numpy.kernels.runtime import threads

CONFIG = GPTConfig(vocab_size=37, block_size=23, n_layer=2, n_head=3, n_embd=30)
FORMATS = ["float32", "bfloat16", "int8", "int4"]
# Unit-scale logits. The activations of int8 and int4 are rounded to 16 bits, the rest is float32's own rounding.
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-5, "int8": 2e-3, "int4": 2e-3}


def random_model(config=CONFIG, rng=None, scale=0.2):
    """A model whose parameters are normal numbers of this scale, with 1 added to the weights of norms."""
    model, rng = GPT(config, ops=layers), rng or np.random.default_rng(3)
    for name, view in model.params.items():
        norm = ".ln_" in f".{name}" or "_norm." in name
        view[...] = rng.standard_normal(view.shape) * scale + (1 if norm and "weight" in name else 0)
    return model


def exact_of(fast, products="float32"):
    """``OpsDecoder`` in float64 of the weights that ``fast`` computes with."""
    exact, unpacked = GPT(fast.config, dtype=np.float64, ops=layers, products=products), fast.weights.unpacked()
    assert set(unpacked) == set(exact.params)
    for name, values in unpacked.items():
        exact.params[name][...] = values
    return OpsDecoder(exact)


@pytest.fixture(scope="module", params=FORMATS)
def pair(request):
    """(a fast decoder, a float64 ``OpsDecoder`` with the very same weights, tolerance)"""
    fast = PanelDecoder.pack(random_model(), request.param)
    return fast, exact_of(fast), TOLERANCE[request.param]


def test_whatever_the_split_and_the_batch(pair):
    fast, exact, tolerance = pair
    rng = np.random.default_rng(1)
    caches = KVCache(CONFIG, 3), KVCache(CONFIG, 3, dtype=np.float64)
    for count, sequences, every in [
        (2, None, True),
        (1, [2, 0], False),
        (7, [1], False),
        (1, None, True),
        (5, [0, 1], True),
        (8, [2], True),
    ]:
        tokens = rng.integers(0, 37, (3 if sequences is None else len(sequences), count))
        found, expected = (d.extend(tokens, c, sequences, every) for d, c in zip((fast, exact), caches))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= tolerance
    for own, theirs in ((caches[0].keys, caches[1].keys), (caches[0].values, caches[1].values)):
        for sequence, length in enumerate(caches[0].lengths):
            assert np.abs(own[:, sequence, :, :length] - theirs[:, sequence, :, :length]).max() <= tolerance


def test_every_split_of_a_prompt_gives_the_same_bits(pair):
    fast, _, _ = pair
    tokens = np.random.default_rng(2).integers(0, 37, (1, 6))
    results = []
    for cuts in itertools.product([False, True], repeat=5):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), 6]
        cache = KVCache(CONFIG)
        for start, stop in itertools.pairwise(places):
            logits = fast.extend(tokens[:, start:stop], cache)
        results.append(logits)
    assert len(results) == 32 and all(np.array_equal(result, results[0]) for result in results)


def test_the_same_bits_in_any_batch_on_any_number_of_threads_in_any_number_of_passes(pair, monkeypatch):
    fast, _, _ = pair
    rng = np.random.default_rng(4)
    tokens = rng.integers(0, 37, (4, 5))

    def run(rows):
        cache = KVCache(CONFIG, len(rows))
        fast.extend(tokens[rows], cache)
        return np.concatenate([fast.extend(tokens[rows, :1], cache), fast.extend(tokens[rows, 1:3], cache)], axis=1)

    together = run([0, 1, 2, 3])
    for row in range(4):
        assert np.array_equal(run([row])[0], together[row])
    monkeypatch.setattr(panel_decoder, "PASS_ROWS", 3)
    assert np.array_equal(run([0, 1, 2, 3]), together)
    before = threads.set_count(1)
    try:
        assert np.array_equal(run([0, 1, 2, 3]), together)
    finally:
        threads.set_count(before)


@pytest.mark.parametrize("count", [1, 2, 5, 36, 37, 50])
def test_the_largest_logits_are_found_in_passing(pair, monkeypatch, count):
    fast, exact, _ = pair
    rng = np.random.default_rng(6)
    tokens = rng.integers(0, 37, (5, 6))
    monkeypatch.setattr(panel_decoder, "PASS_ROWS", 4)
    caches = [KVCache(CONFIG, 5) for _ in range(2)]
    for cache in caches:
        fast.extend(tokens, cache)
    for step, sequences in enumerate([None, [3, 1], None, [4]]):
        new = rng.integers(0, 37, 5 if sequences is None else len(sequences))
        before = threads.set_count(1 + step % 2)
        try:
            ids, found = fast.step_to_largest(new, caches[0], count, sequences)
        finally:
            threads.set_count(before)
        logits = fast.extend(new[:, None], caches[1], sequences)
        expected = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :count])
        assert np.array_equal(ids, expected) and ids.dtype == np.int64, step
        assert np.array_equal(found, np.take_along_axis(logits, ids, 1)) and found.dtype == np.float32
    assert np.array_equal(caches[0].lengths, caches[1].lengths)
    cache = KVCache(CONFIG, 1, dtype=np.float64)
    logits = exact.extend(tokens[:1], cache)
    cache.truncate(0, 5)
    ids, found = exact.step_to_largest(tokens[:1, 5], cache, count)
    assert np.array_equal(ids, np.sort(np.argsort(-logits, axis=1)[:, :count]))
    assert np.abs(found - np.take_along_axis(logits, ids, 1)).max() <= 1e-12


def test_more_than_are_found_in_passing(monkeypatch):
    fast = PanelDecoder.pack(random_model())
    expected = fast.step_to_largest([3], KVCache(CONFIG), 3)
    monkeypatch.setattr(launch, "MOST_LARGEST", 2)
    found = fast.step_to_largest([3], KVCache(CONFIG), 3)
    assert all(np.array_equal(f, e) for f, e in zip(found, expected))


@pytest.mark.parametrize("count", [1, 3, 7, 33])
def test_of_equal_logits_the_lowest_tokens_are_taken(count):
    model = random_model()
    wte = model.params["wte.weight"]
    wte[5:] = wte[5]  # the tokens from 5 on are the same to the head, over several panels
    fast = PanelDecoder.pack(model)
    chosen = set()
    for token in range(5):
        logits = fast.extend(np.array([[token]]), KVCache(CONFIG))
        expected = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :count])
        ids, _ = fast.step_to_largest([token], KVCache(CONFIG), count)
        assert np.array_equal(ids, expected)
        chosen |= set(ids[0].tolist())
    assert 5 in chosen and (count == 33 or 36 not in chosen)


def test_logits_that_are_not_numbers_are_refused_in_passing_too():
    model = random_model()
    model.params["ln_f.bias"][3] = np.inf
    fast = PanelDecoder.pack(model)
    for count in (1, 4):
        with pytest.raises(GenerationError, match="not numbers"):
            fast.step_to_largest([1], KVCache(CONFIG), count)


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=0),
        dict(top_k=1),
        dict(top_k=4, temperature=0.7),
        dict(top_k=37),
        dict(top_k=20, top_p=0.8, min_p=0.05),
    ],
)
def test_sampling_from_the_largest_gives_the_same_text_as_from_all(pair, options, monkeypatch):
    fast, _, _ = pair
    assert Sampling(**options).largest_needed is not None
    prompts = [[3, 1, 4], [15, 9, 2, 6, 5], [35]]
    found = generate(fast, prompts, 30, seed=5, samples=2, **options)  # past the context of 23
    monkeypatch.setattr(Sampling, "largest_needed", None)
    expected = generate(fast, prompts, 30, seed=5, samples=2, **options)
    assert [f.tolist() for f in found] == [e.tolist() for e in expected]


def test_generation_with_it(pair):
    fast, exact, _ = pair
    prompts = [[3, 1, 4], [15, 9, 2, 6, 5], [35]]
    found = generate(fast, prompts, 40, temperature=0)  # past the context of 23
    expected = generate(exact, prompts, 40, temperature=0)
    assert [f.tolist() for f in found] == [e.tolist() for e in expected]
    assert np.array_equal(generate(fast, prompts[1], 40, seed=3), generate(fast, prompts, 40, seed=3)[1])


def test_faults():
    with pytest.raises(ConfigError, match="float32.*found 'float64'"):
        PanelDecoder.pack(GPT(CONFIG, dtype=np.float64, ops=layers))
    with pytest.raises(ConfigError, match="format.*int3.*bfloat16.*int4"):
        PanelDecoder.pack(random_model(), "int3")
    fast, cache = PanelDecoder.pack(random_model()), KVCache(CONFIG, capacity=3)
    with pytest.raises(ContextLengthError, match="full"):
        fast.extend(np.zeros((1, 4), int), cache)


@pytest.mark.parametrize("format", FORMATS)
def test_a_prompt_that_is_read_in_one_piece(format):
    # Wide enough that a column of mlp.c_proj is added up in two parts, long enough for several blocks of rows.
    config = GPTConfig(vocab_size=53, block_size=140, n_layer=2, n_head=3, n_embd=204)
    assert 4 * config.n_embd > prompt.DEPTH
    rng = np.random.default_rng(5)
    fast = PanelDecoder.pack(random_model(config, rng, 0.1), format)
    exact = exact_of(fast)
    tokens = rng.integers(0, 53, (2, 131))
    caches = KVCache(config, 3), KVCache(config, 3, dtype=np.float64)
    for start, stop, every in [(0, 3, False), (3, 80, True), (80, 81, True), (81, 131, False)]:
        found, expected = (d.extend(tokens[:, start:stop], c, [2, 0], every) for d, c in zip((fast, exact), caches))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 10 * TOLERANCE[format] * expected.std()
    together = fast.extend(tokens, KVCache(config, 2))
    assert np.abs(together - found[[0, 1]]).max() <= 10 * TOLERANCE[format] * expected.std()
    before = threads.set_count(1)
    try:
        for row in range(2):  # the same bits by itself, and on one thread
            assert np.array_equal(fast.extend(tokens[row : row + 1], KVCache(config))[0], together[row])
    finally:
        threads.set_count(before)


@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_a_prompt_with_products_in_bfloat16(format):
    """Read as ``layers.rounded`` reads it, on one thread as on two; a few tokens are read as ever."""
    config = GPTConfig(vocab_size=53, block_size=140, n_layer=2, n_head=3, n_embd=45)  # an odd width, and hidden layer
    rng = np.random.default_rng(5)
    model = random_model(config, rng)
    fast, plain = (PanelDecoder.pack(model, format, products) for products in ("bfloat16", "float32"))
    tokens = rng.integers(0, 53, (2, 131))
    found = fast.extend(tokens, KVCache(config, 2), every=True)
    expected, other = (
        exact_of(fast, products).extend(tokens, KVCache(config, 2, dtype=np.float64), every=True)
        for products in ("bfloat16", "float32")
    )
    # A rounding that falls to the other side of a tie changes what follows by a unit in 2⁻⁸ of one number.
    error = np.abs(found - expected)
    assert np.median(error) < 0.1 * np.median(np.abs(found - other)) and error.max() < 0.03 * expected.std()
    before = threads.set_count(1)
    try:
        assert np.array_equal(fast.extend(tokens, KVCache(config, 2), every=True), found)
    finally:
        threads.set_count(before)
    caches = KVCache(config, 2), KVCache(config, 2)
    few = [decoder.extend(tokens[:, :20], cache) for decoder, cache in zip((fast, plain), caches)]
    np.testing.assert_array_equal(*few)


def test_products_that_there_are_not():
    with pytest.raises(ConfigError, match="products: found 'float16'"):
        PanelDecoder.pack(random_model(), "float32", "float16")
    for format in ("int8", "int4"):
        with pytest.raises(ConfigError, match=f"{format} are multiplied as integers"):
            PanelDecoder.pack(random_model(), format, "bfloat16")
