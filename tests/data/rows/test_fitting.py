"""Best-fit packing: nothing lost or repeated, few cuts, little padding."""

import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.data import builtin_corpus
from gpt_numpy.data.rows.fitting import MAX_PADDING, concat_cuts, count_cuts, fit_rows, lay_out
from gpt_numpy.errors import DataError


def check_plan(lengths, rows, row_length):
    """Every token in exactly one row, and no row too long; returns the padding's share of all places."""
    covered = [np.zeros(length, int) for length in lengths]
    for row in rows:
        assert 0 < sum(span.size for span in row) <= row_length
        for span in row:
            assert 0 <= span.start < span.stop <= lengths[span.document]
            covered[span.document][span.start : span.stop] += 1
    assert all((places == 1).all() for places in covered)
    return 1 - sum(lengths) / (len(rows) * row_length)


def fewest_rows(lengths, row_length):
    return -(-sum(lengths) // row_length)


@pytest.mark.parametrize("seed", range(60))
def test_plans_lose_and_repeat_nothing(seed):
    rng = random.Random(seed)
    row_length = rng.randrange(2, 40)
    lengths = [rng.randrange(1, 3 * row_length) for _ in range(rng.randrange(1, 60))]
    rows = fit_rows(lengths, row_length)
    padding = check_plan(lengths, rows, row_length)
    assert padding <= MAX_PADDING or len(rows) == fewest_rows(lengths, row_length)
    assert rows == fit_rows(list(lengths), row_length)


def test_documents_that_fit_are_not_cut_while_padding_is_small():
    rng = random.Random(1)
    lengths = [min(int(rng.lognormvariate(4, 1)) + 1, 256) for _ in range(3000)]
    rows = fit_rows(lengths, 256)
    assert check_plan(lengths, rows, 256) <= MAX_PADDING
    assert count_cuts(rows) == (0, 0)
    assert concat_cuts(lengths, 255)[0] > 500


def test_best_fit_takes_the_least_room():
    # 5 leaves room for 5, 7 for 3: the 3 belongs to the 7, and the 5 to the 5
    assert fit_rows([7, 5, 5, 3], 10) == [[(0, 0, 7), (3, 0, 3)], [(1, 0, 5), (2, 0, 5)]]


def test_awkward_lengths_are_cut_only_as_far_as_padding_demands():
    lengths = [600] * 500
    uncut = fit_rows(lengths, 1000, max_padding=1)
    assert count_cuts(uncut) == (0, 0)
    assert check_plan(lengths, uncut, 1000) == pytest.approx(0.4)
    rows = fit_rows(lengths, 1000)
    padding = check_plan(lengths, rows, 1000)
    assert MAX_PADDING - 0.005 < padding <= MAX_PADDING
    assert count_cuts(rows)[0] < concat_cuts(lengths, 1000)[0]


def test_long_documents_fill_rows():
    rows = fit_rows([25, 4], 10)
    assert rows == [[(0, 0, 10)], [(0, 10, 20)], [(0, 20, 25), (1, 0, 4)]]
    assert count_cuts(rows) == (1, 2)
    assert concat_cuts([25, 4], 10) == (1, 2)
    assert fit_rows([], 10) == []


def test_cuts_of_concat_are_counted():
    rng = random.Random(2)
    lengths = [rng.randrange(1, 30) for _ in range(50)]
    owner = np.repeat(np.arange(50), lengths)
    ends = range(10, len(owner), 10)
    inside = [owner[end] for end in ends if owner[end - 1] == owner[end]]
    assert concat_cuts(lengths, 10) == (len(set(inside)), len(inside))


def test_rows_are_laid_out_and_filled_up():
    documents = [np.array([1, 2, 3, 9]), np.array([4, 9]), np.arange(10, 22)]
    rows = fit_rows([4, 2, 12], 7, max_padding=1)
    tokens = lay_out(rows, documents, 7, 9, np.uint16)
    assert tokens.dtype == np.uint16
    # the rest of the long document, 5 tokens, leaves the least room that takes 2; a row keeps the documents' order
    assert tokens.reshape(-1, 7).tolist() == [
        [1, 2, 3, 9, 9, 9, 9],
        [4, 9, 17, 18, 19, 20, 21],
        [10, 11, 12, 13, 14, 15, 16],
    ]


@pytest.mark.parametrize("row_length", [65, 257, 1025])
@pytest.mark.parametrize("corpus", ["python-docs", "standard library"])
def test_real_corpora_are_kept_whole_with_little_padding(corpus, row_length):
    if corpus == "python-docs":
        lengths = [len(text) // 4 + 1 for text in builtin_corpus(corpus)]
    else:
        files = Path(sysconfig.get_paths()["stdlib"]).glob("*.py")
        lengths = [path.stat().st_size // 4 + 1 for path in files]
    rows = fit_rows(lengths, row_length)
    assert check_plan(lengths, rows, row_length) <= MAX_PADDING
    assert count_cuts(rows)[0] < concat_cuts(lengths, row_length - 1)[0]


def test_a_row_of_one_token_is_refused():
    with pytest.raises(DataError, match="row_length"):
        fit_rows([3], 1)
