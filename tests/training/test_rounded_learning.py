"""A model learns with products in bfloat16 what it learns in float32: they differ by less than the seeds do."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.training.optimizer import AdamW
from gpt_numpy.training.schedule import learning_rate
from gpt_numpy.training.settings import Settings
from gpt_numpy.workspace import Workspace


def final_loss(ids, vocab_size, shape, settings, seed, products, ops=kernels):
    """The mean loss over the last tenth of ``ids`` after a run from ``seed`` on."""
    T = shape["block_size"]
    model = GPT(GPTConfig(vocab_size, **shape), seed, ops=ops, workspace=Workspace(), products=products)
    optimizer = AdamW(model.params, settings, model.ops)
    cut, rng = len(ids) * 9 // 10, np.random.default_rng(seed)
    losses = []
    for step in range(settings.max_steps):
        starts = rng.integers(0, cut - T, settings.batch_size)
        rows = ids[starts[:, None] + np.arange(T + 1)]
        model.zero_gradients()
        losses.append(model.loss_and_gradients(rows[:, :-1], rows[:, 1:]))
        optimizer.update(model.params, model.grads, learning_rate(step, settings), step, 1.0)
    held_out = ids[cut:]
    rows = held_out[: (len(held_out) - 1) // T * T + 1]
    inputs, targets = rows[:-1].reshape(-1, T), rows[1:].reshape(-1, T)
    parts = [slice(i, i + 64) for i in range(0, len(inputs), 64)]
    whole = [model.loss(inputs[part], targets[part]) * len(inputs[part]) for part in parts]
    return sum(whole) / len(inputs), losses


def compare(ids, vocab_size, shape, settings, seeds):
    """(losses in float32, losses in bfloat16), one for each seed."""
    return np.array(
        [
            [final_loss(ids, vocab_size, shape, settings, seed, products)[0] for seed in seeds]
            for products in ("float32", "bfloat16")
        ]
    )


def assert_alike(exact, rounded):
    """The means differ by less than the seeds' standard deviation, and so does every seed from itself."""
    spread = exact.std(ddof=1)
    assert (exact != rounded).all(), "nothing was rounded"
    assert abs(exact.mean() - rounded.mean()) < spread
    assert np.abs(exact - rounded).max() < 2 * spread


def characters(text):
    alphabet, ids = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    return ids.astype(np.int64), len(alphabet)


def test_a_small_model_learns_alike(text_file):
    ids, vocab_size = characters(text_file.read_bytes())
    shape = dict(block_size=32, n_layer=2, n_head=2, n_embd=32)
    settings = Settings(max_steps=60, batch_size=8, learning_rate=3e-3, warmup_steps=10)
    exact, rounded = compare(ids, vocab_size, shape, settings, seeds=range(3))
    assert exact.mean() < 0.75 * np.log(vocab_size), "it has learnt something"
    assert_alike(exact, rounded)


def test_a_trajectory_of_twenty_steps_is_the_oracles(text_file):
    ids, vocab_size = characters(text_file.read_bytes())
    shape = dict(block_size=24, n_layer=2, n_head=2, n_embd=24)
    settings = Settings(max_steps=20, batch_size=4, learning_rate=3e-3, warmup_steps=2)
    losses = {
        name: np.array(final_loss(ids, vocab_size, shape, settings, 1, products, ops)[1])
        for name, ops, products in (
            ("kernels", kernels, "bfloat16"),
            ("oracle", layers, "bfloat16"),
            ("float32", layers, "float32"),
        )
    }
    # Bound: one rounding on the other side of a tie moves a sum by 2⁻⁸ of one product; twenty steps of Adam amplify it.
    assert np.abs(losses["kernels"] - losses["oracle"]).max() < 4e-3
    assert losses["oracle"][-1] < losses["oracle"][0] - 0.2 and (losses["float32"] != losses["oracle"]).any()


@pytest.mark.campaign
def test_the_recipe_learns_alike_over_five_seeds(shakespeare):
    ids, vocab_size = characters(shakespeare.encode())
    shape = dict(block_size=64, n_layer=4, n_head=4, n_embd=128)
    settings = Settings(
        max_steps=250, batch_size=12, learning_rate=1e-3, warmup_steps=100, beta2=0.99, final_fraction=0.1
    )
    exact, rounded = compare(ids, vocab_size, shape, settings, seeds=range(5))
    print(f"\nfloat32  {exact.round(4)} mean {exact.mean():.4f} deviation {exact.std(ddof=1):.4f}")
    print(f"bfloat16 {rounded.round(4)} mean {rounded.mean():.4f}")
    assert_alike(exact, rounded)
