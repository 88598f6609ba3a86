"""Fixtures of the layers' tests."""

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.study import cases, table


@pytest.fixture
def rng():
    return np.random.default_rng(20190214)


@pytest.fixture
def prove_gradients():
    """Check all variants of a layer by differences; ``entries`` says, for the small ones, how many are compared.

    That a second backward gives the same bits, that nothing given is written to, and that ``into=`` adds, is checked
    with it.
    """

    def prove(layer, entries):
        found = [case for case in cases.layer_cases(layers) if case.layer == layer]
        assert [case.variant for case in found if case.variant in entries] == list(entries)
        for case in found:
            report = cases.check_case(case)
            assert report.passed, "\n".join(table.lines(case.name, report))
            assert report.checked == entries.get(case.variant, report.checked) > 0

    return prove


@pytest.fixture
def counting_alloc():
    """An ``alloc`` that remembers what it handed out, so that a test can tell whose memory a result lies in."""

    class Alloc:
        def __init__(self):
            self.arrays = []

        def __call__(self, shape, dtype):
            self.arrays.append(np.full(shape, np.nan, dtype))  # whatever an op leaves unwritten shows
            return self.arrays[-1]

        def owns(self, array):
            return any(np.shares_memory(array, own) for own in self.arrays)

    return Alloc()
