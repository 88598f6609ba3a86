import math

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.data import document_masks
from gpt_numpy.data.rows.fitting import fit_rows, lay_out
from gpt_numpy.training.evaluation import evaluate, unigram_loss
from gpt_numpy.training.plan.corpus import Corpus
from gpt_numpy.training.ranks.distributed import Alone

CONFIG = GPTConfig(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=8)
TOKENS = np.random.default_rng(0).integers(0, 11, 45).astype(np.uint16)
BYTES = np.arange(11)
CORPUS = Corpus(None, None, TOKENS, BYTES)


def test_is_the_mean_over_every_next_token_once():
    model = GPT(CONFIG, 1, np.float64, layers)
    model.params.flat *= 20
    nats, seen = 0.0, 0
    starts = [0, 6, 12, 18, 24, 30, 36, 38]  # windows of 6; the last one is moved back to end with the text
    for start in starts:
        window = TOKENS[start : start + 7].astype(int)
        targets = window[1:].copy()
        targets[: max(0, seen - start)] = -1
        counted = (targets != -1).sum()
        nats += model.loss(window[None, :-1], targets[None]) * counted
        seen = start + 6
    result = evaluate(model, CORPUS, batch_size=3)
    assert result.tokens == 44
    assert result.loss == pytest.approx(nats / 44, rel=1e-12)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / BYTES[TOKENS[1:]].sum(), rel=1e-12)


def test_does_not_depend_on_how_windows_are_batched_or_shared():
    model = GPT(CONFIG, 1, np.float64, layers)
    whole = evaluate(model, CORPUS, 8, limit=5)
    assert whole.tokens == 30
    assert evaluate(model, CORPUS, 2, limit=5).loss == pytest.approx(whole.loss, rel=1e-13)

    class Part(Alone):
        size = 3

        def __init__(self, rank, parts):
            self.rank, self.parts = rank, parts

        def sum(self, values):
            self.parts.append(values)
            return values if values[1] else [0, 1, 1]

    parts = []
    for rank in range(3):
        evaluate(model, CORPUS, 2, 5, Part(rank, parts))
    nats, counted, _ = np.sum(parts, axis=0)
    assert counted == 30 and nats / counted == pytest.approx(whole.loss, rel=1e-13)


def test_a_validation_text_shorter_than_a_block_is_one_window():
    model = GPT(CONFIG, 1, np.float64, layers)
    assert evaluate(model, CORPUS._replace(validation=TOKENS[:4]), 8).tokens == 3


def test_unigram():
    training, validation = np.array([0, 0, 0, 1]), np.array([2, 0, 1, 2])
    p = np.array([4, 2, 1]) / 7
    assert unigram_loss(training, validation, 3) == pytest.approx(-np.log(p[[0, 1, 2]]).mean())


def test_documents_apart_are_measured_apart():
    model = GPT(CONFIG, 1, np.float64, layers)
    model.params.flat *= 20
    one, two = TOKENS[:5] % 10, TOKENS[10:14] % 10
    joined = np.concatenate([one, [10], two]).astype(np.uint16)

    def mask(inputs, targets):
        targets, positions, first_key = document_masks(inputs, targets, 10)
        return inputs, targets, {"positions": positions, "first_key": first_key}

    big = GPT(CONFIG.replace(block_size=9), 1, np.float64, layers)
    big.params.flat[:] = np.random.default_rng(2).standard_normal(len(big.params.flat))
    apart = evaluate(big, CORPUS._replace(validation=joined), 4, mask=mask)
    parts = [np.concatenate([one, [10]]), two]
    nats = sum(big.loss(part[None, :-1].astype(int), part[None, 1:].astype(int)) * (len(part) - 1) for part in parts)
    assert apart.tokens == 8 and apart.loss == pytest.approx(nats / 8, rel=1e-12)


def test_a_signal_ends_a_long_validation():
    model, calls = GPT(CONFIG, 1, np.float64, layers), []
    assert evaluate(model, CORPUS, 1, stopped=lambda: calls.append(1) or len(calls) > 3) is None
    assert len(calls) == 4


def test_fitted_rows_are_validated_as_they_are_trained_on():
    documents = [np.r_[np.full(8, i), 10] for i in range(8)]
    rows = lay_out(fit_rows([9] * 8, 9), documents, 9, 10, np.uint16)
    seen = []

    class Recorder:
        config = CONFIG.replace(block_size=8)

        def loss(self, inputs, targets, **options):
            seen.extend(inputs.tolist())
            return 0.0

    evaluate(Recorder(), Corpus(None, None, rows, BYTES, row_length=9), 3)
    assert seen == rows.reshape(-1, 9)[:, :8].tolist()
