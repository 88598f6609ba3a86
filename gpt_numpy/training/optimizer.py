"""AdamW's state and its step: two moments beside every parameter, decay by group, clipping.

The arithmetic is ``layers.adamw`` or ``kernels.adamw``. This module holds the state. The state may cover a slice of
the flat parameters only: with ZeRO-1 every rank keeps the moments of its own slice.
"""

from __future__ import annotations

import fnmatch

import numpy as np

from ..parameters import decays
from ..workspace import aligned_zeros
from .settings import parse_decay_group


def decay_of(name, settings):
    """The weight decay of tensor ``name``: that of its group, else the common value for matrices and 0 for the rest."""
    value = settings.weight_decay if decays(name) else 0.0
    for pattern, group_value in map(parse_decay_group, settings.decay_groups):
        if fnmatch.fnmatchcase(name, pattern):
            value = group_value
    return value


def unmatched_groups(decay_groups, names):
    """The ``decay_groups`` whose pattern matches none of the tensors' ``names``."""
    return [
        group
        for group in decay_groups
        if not any(fnmatch.fnmatchcase(name, parse_decay_group(group)[0]) for name in names)
    ]


class AdamW:
    """First and second moments of ``params.flat[start:stop]`` and the update that uses them."""

    def __init__(self, params, settings, ops, start=0, stop=None):
        stop = len(params.flat) if stop is None else stop
        self.settings, self.ops, self.start, self.stop = settings, ops, start, stop
        self.first = aligned_zeros((stop - start,), params.flat.dtype)
        self.second = aligned_zeros((stop - start,), params.flat.dtype)
        self._boundaries = np.clip(params.boundaries, start, stop) - start
        self._decays = np.array([decay_of(name, settings) for name in params], np.float64)

    def set_moments(self, first, second):
        """Copy this state's slice from moments of all parameters."""
        self.first[...] = first[self.start : self.stop]
        self.second[...] = second[self.start : self.stop]

    def update(self, params, grads, learning_rate, step, gradient_scale):
        """Update this slice of ``params`` (a ``Parameters``), in place. ``step`` counts from 0."""
        s = self.settings
        self.ops.adamw_update(
            params.flat[self.start : self.stop],
            grads.flat[self.start : self.stop],
            self.first,
            self.second,
            self._boundaries,
            self._decays,
            learning_rate,
            s.beta1,
            s.beta2,
            s.epsilon,
            step + 1,
            gradient_scale,
        )


def clip_scale(norm, clip):
    """The factor that scales a gradient of Euclidean norm ``norm`` down to ``clip`` at most (0: no limit)."""
    return clip / norm if clip and norm > clip else 1.0
