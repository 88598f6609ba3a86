"""Documents that share a block kept apart: what each place of a packed batch may see, be and predict.

An end-of-text token closes a document, so the batch itself says where documents start. With the three arrays
made here a packed batch has the loss and the gradients of its documents one by one
(tests/data/test_segments.py): attention reaches back to the document's first token (``first_key``),
positions count from there, and the end-of-text token, whose successor belongs to another document, predicts
nothing. A document that a block cuts goes on in the next block as a document of its own.
"""

import numpy as np

from .windows import IGNORED


def document_masks(inputs: np.ndarray, targets: np.ndarray, eot_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(targets, positions, first_key), each (B,T) int64, for ``inputs`` and ``targets`` (B,T).

    To be given to the model together: ``model.loss(inputs, targets, positions=positions, first_key=first_key)``.
    """
    first_key = segment_starts(inputs, eot_id)
    return mask_targets(inputs, targets, eot_id), np.arange(inputs.shape[1]) - first_key, first_key


def segment_starts(inputs: np.ndarray, eot_id: int) -> np.ndarray:
    """first_key (B,T): the place in its row where the document of each place starts.

    That is 0 or one after the nearest end-of-text token before the place.
    """
    starts = np.zeros(inputs.shape, dtype=np.int64)
    starts[:, 1:] = np.where(inputs[:, :-1] == eot_id, np.arange(1, inputs.shape[1]), 0)
    return np.maximum.accumulate(starts, axis=1)


def mask_targets(inputs: np.ndarray, targets: np.ndarray, eot_id: int) -> np.ndarray:
    """A copy of ``targets``, int64, that ignores what follows an end-of-text token: another document, or padding."""
    return np.where(inputs == eot_id, IGNORED, _signed(targets))


def mask_padding(inputs: np.ndarray, targets: np.ndarray, eot_id: int) -> np.ndarray:
    """A copy of ``targets``, int64, that ignores padding alone: an end-of-text token after an end-of-text token.

    For training without document masks on blocks of the policy ``fit``, which fills up with end-of-text tokens.
    """
    return np.where((inputs == eot_id) & (targets == eot_id), IGNORED, _signed(targets))


def _signed(targets):
    """``targets`` as int64: in the unsigned types of stored tokens ``IGNORED`` would wrap to an id."""
    return np.asarray(targets, dtype=np.int64)
