"""Documents in one block kept apart: the arrays, and that gradients are those of the documents one by one."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.data.rows.segments import document_masks, mask_padding, segment_starts
from gpt_numpy.data.rows.windows import IGNORED

EOT = 9


def test_segments_start_after_end_of_text():
    inputs = np.array([[1, 2, 9, 3, 9, 9, 4], [9, 1, 2, 3, 4, 5, 9]])
    targets = np.array([[2, 9, 3, 9, 9, 4, 5], [1, 2, 3, 4, 5, 9, 1]])
    masked, positions, first_key = document_masks(inputs, targets, EOT)
    assert first_key.tolist() == [[0, 0, 0, 3, 3, 5, 6], [0, 1, 1, 1, 1, 1, 1]]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 0, 1, 2, 3, 4, 5]]
    assert masked.tolist() == [[2, 9, -1, 9, -1, -1, 5], [-1, 2, 3, 4, 5, 9, -1]]
    assert mask_padding(inputs, targets, EOT).tolist() == [[2, 9, 3, 9, -1, 4, 5], [1, 2, 3, 4, 5, 9, 1]]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_ignored_stays_ignored_in_the_types_of_stored_tokens(dtype):
    inputs, targets = np.array([[1, 9, 9]], dtype), np.array([[9, 9, 3]], dtype)
    assert document_masks(inputs, targets, EOT)[0].tolist() == [[9, IGNORED, IGNORED]]
    assert mask_padding(inputs, targets, EOT).tolist() == [[9, IGNORED, 3]]


def test_arguments_are_left_alone():
    inputs, targets = np.array([[1, 9, 2]]), np.array([[9, 2, 3]])
    document_masks(inputs, targets, EOT)
    mask_padding(inputs, targets, EOT)
    assert inputs.tolist() == [[1, 9, 2]]
    assert targets.tolist() == [[9, 2, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_segment_starts_equal_a_loop(seed):
    inputs = np.random.default_rng(seed).integers(6, 10, (3, 17))
    expected = np.zeros_like(inputs)
    for row, tokens in enumerate(inputs):
        for place in range(1, len(tokens)):
            expected[row, place] = place if tokens[place - 1] == EOT else expected[row, place - 1]
    np.testing.assert_array_equal(segment_starts(inputs, EOT), expected)


def gradients_of_packed_and_of_separate_documents(ops, dtype):
    rng = np.random.default_rng(0)
    model = GPT(GPTConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=8), seed=1, dtype=dtype, ops=ops)
    model.params.flat[:] += rng.normal(0, 0.3, model.params.flat.shape).astype(dtype)
    documents = [[*rng.integers(0, 9, size), EOT] for size in (4, 1, 6, 3, 8, 2, 5)]
    row_length = 17
    rows = np.full((3, row_length), EOT)
    for row, members in enumerate(([0, 1, 2], [3, 4], [5, 6])):
        joined = sum((documents[member] for member in members), [])
        rows[row, : len(joined)] = joined
    inputs, targets = rows[:, :-1], rows[:, 1:]
    masked, positions, first_key = document_masks(inputs, targets, EOT)
    counted = int((masked != IGNORED).sum())
    assert counted == sum(len(document) - 1 for document in documents)
    packed_loss = model.loss(inputs, masked, positions=positions, first_key=first_key)
    model.backward()
    packed = model.grads.flat.copy()
    model.zero_gradients()
    separate_loss = 0.0
    for document in documents:
        tokens = np.array([document])
        share = (len(document) - 1) / counted
        separate_loss += share * model.loss(tokens[:, :-1], tokens[:, 1:])
        model.backward(share)
    return packed_loss, separate_loss, packed, model.grads.flat


# In float64 what is left is the order of sums. In float32 a gradient of some thousand products carries a relative
# error of a few times 1e-7 · √(terms); ten times that is allowed.
@pytest.mark.parametrize(
    "ops, dtype, bound",
    [
        (layers, np.float64, 1e-12),
        (kernels, np.float64, 1e-12),
        (layers, np.float32, 2e-5),
        (kernels, np.float32, 2e-5),
    ],
)
def test_a_packed_batch_has_the_gradients_of_its_documents(ops, dtype, bound):
    packed_loss, separate_loss, packed, separate = gradients_of_packed_and_of_separate_documents(ops, dtype)
    assert packed_loss == pytest.approx(separate_loss, rel=bound)
    assert np.linalg.norm(packed - separate) <= bound * np.linalg.norm(separate)
    assert np.linalg.norm(separate) > 0.1


def test_without_masks_the_gradients_would_differ():
    """What the test above compares is not the same whatever the masks are."""
    inputs = np.array([[1, 2, EOT, 3, 4]])
    targets = np.array([[2, EOT, 3, 4, EOT]])
    model = GPT(GPTConfig(vocab_size=11, block_size=5, n_layer=1, n_head=2, n_embd=8), dtype=np.float64, ops=layers)
    masked, positions, first_key = document_masks(inputs, targets, EOT)
    losses = {
        model.loss(inputs, masked),
        model.loss(inputs, masked, positions=positions),
        model.loss(inputs, masked, first_key=first_key),
        model.loss(inputs, masked, positions=positions, first_key=first_key),
        model.loss(inputs, targets, positions=positions, first_key=first_key),
    }
    assert len({round(loss, 9) for loss in losses}) == 5
