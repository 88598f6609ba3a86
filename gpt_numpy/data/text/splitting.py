"""Dividing documents between training and validation, by a rule that depends on the seed and nothing else."""

import numpy as np

from ...errors import DataError
from ..rows.counters import counter_hash


def split_documents(documents, validation_fraction, seed=0):
    """Divide a list of str into ``(training, validation)`` lists; both keep the documents' order.

    Documents are drawn for validation in a seeded order until the next would exceed ``validation_fraction`` of all
    characters. If they come to less than half of that (one long file, say), the next document is cut at a line's
    end and only its tail is validated on. A fraction of 0 leaves validation empty. Raises DataError where the
    fraction is not in [0, 1) and where either side would be empty.
    """
    documents = list(documents)
    if not 0 <= validation_fraction < 1:
        raise DataError("out of range", field="validation_fraction", found=validation_fraction, expected="[0, 1)")
    if validation_fraction == 0:
        return documents, []
    target = round(validation_fraction * sum(map(len, documents)))
    drawn, cut, taken = set(), None, 0
    for index in np.argsort(counter_hash(seed, np.arange(len(documents))), kind="stable"):
        if taken + len(documents[index]) > target:
            if taken < target / 2:
                cut = index
            break
        drawn.add(index)
        taken += len(documents[index])
    training, validation = [], []
    for index, document in enumerate(documents):
        if index == cut:
            place = _line_end(document, len(document) - (target - taken))
            training.append(document[:place])
            validation.append(document[place:])
        else:
            (validation if index in drawn else training).append(document)
    if not any(training) or not any(validation):
        raise DataError(
            f"{len(documents)} documents of {sum(map(len, documents))} characters are too few to split",
            expected=f"text enough for validation_fraction {validation_fraction} on both sides",
        )
    return training, validation


def _line_end(text, place):
    """The end of the last line that ends at or before ``place``; ``place`` itself where none does."""
    return text.rfind("\n", 0, place) + 1 or place
