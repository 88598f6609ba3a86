"""GPT-2 in NumPy, with every gradient written by hand.

The public names are loaded when first used, so that ``import gpt_numpy`` stays cheap: numba, the
kernels and even the layers come in only with the first model.

Thread pools read their environment once, when they start. The lines below therefore run before
anything that might start one. ``PASSIVE`` makes idle OpenMP workers sleep; otherwise BLAS's pool and
numba's would spin against each other. The spin count lets idle workers wait a few hundred microseconds
before they sleep, because waking a sleeper costs 100 µs and the next kernel usually comes sooner.
Values set by the user win.
"""

import os

from . import lazy
from ._version import __version__
from .host import forks as forks
from .moved import follow_moves

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

follow_moves()

_HOMES = {
    "GPTConfig": "config",
    "GPT": "model",
    "Tokenizer": "tokenizer",
    "CharTokenizer": "tokenizer",
    "KVCache": "inference",
    "generate": "inference",
    "load": "inference.language_model",
    "check_gradients": "study",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name):
    return lazy.load(__name__, _HOMES, name)


def __dir__():
    return sorted(__all__)
