"""The angles of rotary position embeddings: frequencies from the configuration, cosines and sines for the positions.

    ω_i = θ^(−2i / head_size),  i = 0 … head_size/2 − 1        (Su et al. 2021, section 3.2.2)

The first pair turns by one radian a position, the last by about 1/θ. A model that is to read longer texts than it was
trained on gets slower angles: ``linear`` divides all frequencies by a factor (Chen et al. 2023); ``llama3`` divides those
whose wavelength is long, leaves those whose wavelength is short, and blends in between (Llama 3.1's configuration).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

PAIRINGS = ("halves", "neighbours")
SCALINGS = ("linear", "llama3")


class Rotation(NamedTuple):
    """The angles of a pass: of each position and pair, the cosine and the sine."""

    cos: np.ndarray  # (T, head_size / 2) or (B, T, head_size / 2)
    sin: np.ndarray
    pairing: str = "halves"

    def of_sequences(self, part: slice) -> Rotation:
        """The angles of these sequences of the batch."""
        return self if self.cos.ndim == 2 else self._replace(cos=self.cos[part], sin=self.sin[part])


class RopeScaling(NamedTuple):
    """How the frequencies of a trained model are slowed down for longer texts."""

    kind: str  # one of SCALINGS
    factor: float
    low_freq_factor: float = 1.0  # llama3: wavelengths above original / low are divided by factor
    high_freq_factor: float = 4.0  # llama3: wavelengths below original / high stay
    original: int = 8192  # llama3: positions of the training before


def frequencies(head_size: int, theta: float, scaling: RopeScaling | None = None) -> np.ndarray:
    """(head_size / 2,) float64, radians a position."""
    omega = theta ** (-np.arange(0, head_size, 2) / head_size)
    if scaling is None:
        return omega
    if scaling.kind == "linear":
        return omega / scaling.factor
    periods = scaling.original * omega / (2 * math.pi)  # turns within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((periods - low) / (high - low), 0, 1)  # 0: slowed down, 1: as it was
    return omega * (kept + (1 - kept) / scaling.factor)


def rotation_of(positions: np.ndarray, omega: np.ndarray, dtype, pairing: str = "halves") -> Rotation:
    """The ``Rotation`` of positions (T,) or (B, T); angles are computed in float64, whatever ``dtype``."""
    angles = np.asarray(positions, np.float64)[..., None] * omega
    return Rotation(np.cos(angles).astype(dtype), np.sin(angles).astype(dtype), pairing)
