"""Random batches and fixed validation windows."""

import numpy as np
import pytest

from gpt_numpy.data.rows.windows import (
    IGNORED,
    batch,
    count_blocks,
    count_validation_windows,
    epoch_batch,
    rows_of_rank,
    validation_windows,
)
from gpt_numpy.errors import DataError

TOKENS = np.arange(1000, dtype=np.uint16) * 7 % 997


def test_targets_are_inputs_one_further():
    numbered = np.arange(500, dtype=np.uint16)
    inputs, targets = batch(numbered, 6, 9, seed=3, step=4)
    assert inputs.shape == targets.shape == (6, 9)
    assert inputs.dtype == targets.dtype == np.int64
    assert (targets == inputs + 1).all()
    assert (np.diff(inputs, axis=1) == 1).all()


def test_a_batch_is_a_function_of_seed_and_step():
    again = [batch(TOKENS, 4, 5, seed=1, step=2)[0].tolist() for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != batch(TOKENS, 4, 5, seed=1, step=3)[0].tolist()
    assert again[0] != batch(TOKENS, 4, 5, seed=2, step=2)[0].tolist()


def test_the_order_of_batches_never_changes():
    # recorded when this was written: a different answer means that nobody's run can be resumed or repeated
    starts = batch(np.arange(60000, dtype=np.uint16), 4, 8, seed=1337, step=100)[0][:, 0]
    assert starts.tolist() == [14647, 2019, 53007, 39019]
    starts = epoch_batch(np.arange(60001), 4, 8, seed=1337, step=100)[0][:, 0]
    assert starts.tolist() == [25224, 52160, 53824, 43816]


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 12])
def test_a_batch_divided_among_ranks_is_the_same_batch(parts):
    whole = batch(TOKENS, 12, 5, seed=0, step=9)
    rows = [range(part * 12 // parts, (part + 1) * 12 // parts) for part in range(parts)]
    for side in (0, 1):
        divided = np.concatenate([batch(TOKENS, 12, 5, seed=0, step=9, rows=part)[side] for part in rows])
        np.testing.assert_array_equal(divided, whole[side])


def test_every_place_is_drawn_and_evenly():
    starts = np.concatenate([batch(np.arange(17), 16, 3, seed=5, step=step)[0][:, 0] for step in range(500)])
    counts = np.bincount(starts, minlength=14)
    assert len(counts) == 14
    assert abs(counts - 8000 / 14).max() < 5 * np.sqrt(8000 / 14)


@pytest.mark.parametrize("length", [5, 6, 8, 9, 10, 11, 997])
def test_validation_windows_predict_every_token_once(length):
    tokens = np.arange(length) + 100
    inputs, targets = validation_windows(tokens, 4)
    counted = targets != IGNORED
    assert targets[counted].tolist() == tokens[1:].tolist()
    assert (inputs[counted] + 1 == targets[counted]).all()
    assert len(inputs) == -(-(length - 1) // 4)
    assert inputs.shape == targets.shape == (len(inputs), 4)


def test_limited_validation_windows_are_some_of_all():
    inputs, targets = validation_windows(TOKENS, 9)
    few_inputs, few_targets = validation_windows(TOKENS, 9, limit=7)
    assert few_inputs.shape == (7, 9)
    chosen = [row.tolist() for row in inputs]
    places = [chosen.index(row.tolist()) for row in few_inputs]
    assert places == sorted(set(places))
    np.testing.assert_array_equal(few_targets, targets[places])
    np.testing.assert_array_equal(validation_windows(TOKENS, 9, limit=10**6)[1], targets)


@pytest.mark.parametrize("draw", [lambda tokens, T: batch(tokens, 2, T, 0, 0), validation_windows])
def test_a_text_shorter_than_a_block_states_both_lengths(draw):
    with pytest.raises(DataError, match="8 tokens.*block of 8.*at least 9"):
        draw(np.arange(8), 8)
    draw(np.arange(9), 8)
    with pytest.raises(DataError, match="at least 1 tokens"):
        draw(np.arange(9), 0)


@pytest.mark.parametrize("rows", [[], [4], [-1], range(3, 5)])
def test_rows_outside_the_batch_are_refused(rows):
    with pytest.raises(DataError, match="rows"):
        batch(TOKENS, 4, 5, seed=0, step=0, rows=rows)


def starts_of_epoch(blocks, batch_size, steps, **options):
    tokens = np.arange(blocks * 3 + 1)
    return np.concatenate([epoch_batch(tokens, batch_size, 3, seed=8, step=step, **options)[0][:, 0] for step in steps])


@pytest.mark.parametrize("blocks, batch_size", [(1, 1), (1, 5), (7, 1), (12, 4), (13, 4), (5, 12), (100, 7), (64, 64)])
def test_every_block_comes_exactly_once_an_epoch(blocks, batch_size):
    epochs = 4
    steps = -(-epochs * blocks // batch_size)
    starts = starts_of_epoch(blocks, batch_size, range(steps))[: epochs * blocks].reshape(epochs, blocks)
    for epoch in starts:
        assert sorted(epoch) == list(range(0, 3 * blocks, 3))
    if blocks > 6:
        assert len({tuple(epoch) for epoch in starts}) == epochs


@pytest.mark.parametrize("tail", [0, 1, 2])
def test_blocks_predict_every_token_once_and_a_tail_less_than_a_block_is_left(tail):
    tokens = np.arange(4 * 3 + 1 + tail)
    assert count_blocks(tokens, 3) == 4
    targets = epoch_batch(tokens, 4, 3, seed=0, step=0)[1]
    assert sorted(targets.ravel()) == list(range(1, 13))


def test_packed_rows_are_taken_whole():
    tokens = np.arange(5 * 4)
    assert count_blocks(tokens, 3, stride=4) == 5
    inputs, targets = epoch_batch(tokens, 5, 3, seed=0, step=0, stride=4)
    assert sorted(inputs[:, 0]) == [0, 4, 8, 12, 16]
    assert (targets == inputs + 1).all()


@pytest.mark.parametrize("draw", [batch, epoch_batch])
@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("first_step", [0, 1, 5, 1000])
def test_batches_of_any_world_size_resumed_at_any_step_are_the_same(draw, world_size, first_step):
    for step in range(first_step, first_step + 3):
        whole = draw(TOKENS, 8, 6, seed=4, step=step)
        shares = [
            draw(TOKENS, 8, 6, seed=4, step=step, rows=rows_of_rank(8, rank, world_size)) for rank in range(world_size)
        ]
        for side in (0, 1):
            np.testing.assert_array_equal(np.concatenate([share[side] for share in shares]), whole[side])


def test_ranks_share_all_rows_evenly():
    assert [list(rows_of_rank(7, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    for rank, world_size in ((3, 3), (-1, 3), (0, 8), (0, 0)):
        with pytest.raises(DataError, match="share"):
            rows_of_rank(7, rank, world_size)


def test_validation_takes_the_rows_that_documents_were_fitted_into():
    tokens = np.arange(7 * 5)
    inputs, targets = validation_windows(tokens, 4, row_length=5)
    assert inputs.tolist() == tokens.reshape(7, 5)[:, :-1].tolist()
    assert targets.tolist() == tokens.reshape(7, 5)[:, 1:].tolist()
    few, _ = validation_windows(tokens, 4, limit=3, row_length=5)
    assert few[:, 0].tolist() == [0, 10, 20]
    for block_size, length in ((3, 35), (4, 33)):
        with pytest.raises(DataError, match="row_length.*whole rows of 5"):
            validation_windows(np.arange(length), block_size, row_length=5)


@pytest.mark.parametrize("row_length", [0, 5])
@pytest.mark.parametrize("limit", [None, 3, 100])
def test_some_windows_at_a_time_are_all_windows(row_length, limit):
    tokens = np.arange(7 * 5)
    whole = validation_windows(tokens, 4, limit, row_length)
    count = count_validation_windows(tokens, 4, limit, row_length)
    assert count == len(whole[0])
    parts = [validation_windows(tokens, 4, limit, row_length, range(i, min(i + 2, count))) for i in range(0, count, 2)]
    for side in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[side] for part in parts]), whole[side])
