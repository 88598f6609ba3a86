"""The problem that every training contender gets: the same batch and the same optimizer settings."""

import numpy as np

LEARNING_RATE, BETA1, BETA2, EPSILON, WEIGHT_DECAY, CLIP = 1e-4, 0.9, 0.95, 1e-8, 0.1, 1.0


def batch(spec):
    """Tokens and targets (B, T), int64, seeded."""
    shape = (spec["batch_size"], spec["block_size"] + 1)
    ids = np.random.default_rng(1).integers(0, spec["vocab_size"], shape)
    return ids[:, :-1].copy(), ids[:, 1:].copy()
