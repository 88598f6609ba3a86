"""Dividing documents between training and validation, by a rule that depends only on the seed."""

import re

import numpy as np

from ...errors import DataError
from ...wording import counted
from ..rows.counters import counter_hash

# How far a cut may move, as a share of the validation text, to the end of a line or else of a word.
_TOLERANCE = 0.1
_WORD_END = re.compile(r"(?<=\S)(?=\s)")


def split_documents(documents, validation_fraction, seed=0):
    """Divide a list of str into ``(training, validation)`` lists; both keep the documents' order.

    Documents are drawn for validation in a seeded order until the next would exceed ``validation_fraction`` of all
    characters. If the drawn documents come to less than half of that (one long file, say), the next document is cut
    and only its tail is validated on. The cut is at the end of a line where one ends near the wanted position,
    otherwise at the end of a word, otherwise at the position itself, so that validation holds between half and 1.1 times
    ``validation_fraction``. A fraction of 0 leaves validation empty.

    ``seed`` is independent of a run's seed, so that runs with different seeds are measured on the same text.

    Raises DataError where the fraction is not in [0, 1) and where either side would be empty.
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
            place = cut_near(document, len(document) - (target - taken), round(_TOLERANCE * target))
            training.append(document[:place])
            validation.append(document[place:])
        else:
            (validation if index in drawn else training).append(document)
    if not any(training) or not any(validation):
        raise DataError(
            f"{counted(len(documents), 'document')} of {sum(map(len, documents))} characters are too few to split",
            expected=f"text enough for validation_fraction {validation_fraction} on both sides",
        )
    return training, validation


def cut_near(text, place, tolerance):
    """Where to cut ``text``, at most ``tolerance`` characters before ``place``.

    The cut is at the end of a line if one ends there, else at the end of a word, else at ``place``.
    """
    start = max(place - tolerance, 1)
    line_end = text.rfind("\n", start - 1, place) + 1
    if line_end:
        return line_end
    word_ends = [match.start() for match in _WORD_END.finditer(text, start, min(place + 1, len(text)))]
    return word_ends[-1] if word_ends else place
