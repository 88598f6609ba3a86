"""A run small enough for a second: a few hundred lines of made-up text, one id a character, two layers."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers, machine
from gpt_numpy.tokenizer import CharTokenizer
from gpt_numpy.training import Settings, plots
from gpt_numpy.training.checkpoint import Checkpoint

WORDS = "the cat sat on a mat and the dog ran to the cat while it rained all day".split()


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch):
    """Drawing, and measuring the machine, take longer than a tiny run does; who wants the picture undoes this."""
    monkeypatch.setattr(plots, "available", lambda: False)
    monkeypatch.setattr(machine, "peak_flops", lambda: 1e11)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    rng = np.random.default_rng(5)
    lines = [" ".join(rng.choice(WORDS, 9)) + "." for _ in range(300)]
    path = tmp_path_factory.mktemp("corpus") / "cats.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def tiny(text_file):
    """Make the ``Settings`` of a tiny run, with changes by keyword."""

    def make(**changes):
        defaults = dict(
            data=(str(text_file),),
            tokenizer="char",
            preset="tiny",
            max_steps=12,
            batch_size=5,
            learning_rate=3e-3,
            warmup_steps=2,
            eval_every=5,
            eval_windows=7,
            sample_every=0,
            save_every=4,
            log_every=1,
            ops="layers",
            seed=3,
        )
        return Settings(**{**defaults, **changes})

    return make


@pytest.fixture
def make_checkpoint():
    """Make a ``Checkpoint`` of a small random model at a step, no two of whose numbers are alike."""

    def make(step=7, dtype=np.float32, **state):
        tokenizer = CharTokenizer.train(["abcdefghij"], special_tokens=("<|endoftext|>",))
        config = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=7, n_layer=2, n_head=3, n_embd=12)
        model = GPT(config, seed=step, dtype=dtype, ops=layers)
        rng = np.random.default_rng(step)
        first, second = (rng.standard_normal(len(model.params.flat)).astype(dtype) for _ in range(2))
        state = {"best_step": None, "best_loss": None, **state}
        return Checkpoint(step, config, model.params, first, second, tokenizer, state)

    return make
