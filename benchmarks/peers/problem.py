"""The problem that every contender gets: the same model, and for training the same batch and optimizer settings."""

import dataclasses

import numpy as np

from gpt_numpy.config import GPTConfig

LEARNING_RATE, BETA1, BETA2, EPSILON, WEIGHT_DECAY, CLIP = 1e-4, 0.9, 0.95, 1e-8, 0.1, 1.0


def spec_of(config, batch_size, block_size):
    """What every contender is given: sizes and parts of the model, by field of ``GPTConfig``, and the batch."""
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    return {**sizes, **config.differing(), "batch_size": batch_size, "block_size": block_size}


def config(spec):
    """The ``GPTConfig`` of a spec; the spec's other entries are no fields of the model."""
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    return GPTConfig(**{name: value for name, value in spec.items() if name in fields})


def batch(spec):
    """Tokens and targets (B, T), int64, seeded."""
    shape = (spec["batch_size"], spec["block_size"] + 1)
    ids = np.random.default_rng(1).integers(0, spec["vocab_size"], shape)
    return ids[:, :-1].copy(), ids[:, 1:].copy()
