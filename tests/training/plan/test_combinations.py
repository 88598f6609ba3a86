"""Settings that change a run, in combination: every pair of their values occurs in a run that is held to five promises.

Killed and resumed equals uninterrupted, bit for bit. Layers equal kernels, micro-batches equal one batch and ranks equal one
process, within rounding. The reported validation loss is that of the saved folder, computed document by document without
masks. An epoch sees every block once, and no token attends to another document where documents are kept apart.
"""

import contextlib
import math
import threading

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.training import checkpoint, resume, start
from gpt_numpy.training.metrics import read_metrics
from gpt_numpy.training.plan.batches import Batches
from gpt_numpy.training.plan.resolving import plan_run
from gpt_numpy.training.ranks.distributed import Alone
from gpt_numpy.training.watcher import Watcher
from tests.training.plan.covering import covering

FACTORS = {
    "data": ("files", "json", "concat", "fit"),
    "tokenizer": ("bpe", "char", "folder"),
    "init_from": (False, True),
    "parts": ((), ("rmsnorm", "rotary", "swiglu", "shared"), ("shared", "window", "qk_norm", "untied")),
    "documents": ("joined", "apart"),
    "order": ("random", "epochs"),
    "micro_batch_size": (None, 2),
    "dropout": (0.0, 0.2),
    "recompute": (False, True),
    "products": ("float32", "bfloat16"),
    "ops": ("layers", "kernels"),
    "schedule": ("cosine", "wsd", "linear", "constant"),
    "clip": (1.0, 0.0),
    "decay_groups": ((), ("wpe.*=0", "h.*.bias=0.2")),
    "ranks": (1, 2),
    "zero": (False, True),
}
BLOCK = 16
STEPS = 8
PARTS = {
    "rmsnorm": {"norm": "rmsnorm", "bias": "none"},
    "rotary": {"positions": "rotary"},
    "swiglu": {"mlp": "swiglu", "n_inner": 20},
    "shared": {"n_kv_head": 1},
    "window": {"sliding_window": 5, "window_from": 1},
    "qk_norm": {"qk_norm": True},
    "untied": {"tied": False},
}
IN_SUITE = 3  # combinations outside the campaign


def repair(combination, fixed):
    """The combination made valid without a change of the factors in ``fixed``; None where that cannot be."""
    c = dict(combination)

    def need(name, value):
        if c[name] != value and name in fixed:
            return False
        c[name] = value
        return True

    valid = True
    if c["data"] in ("concat", "fit") or c["init_from"]:
        valid &= need("tokenizer", "bpe") if c["tokenizer"] != "bpe" else True
    if c["data"] == "fit":
        valid &= need("order", "epochs")
    if c["zero"]:
        valid &= need("ranks", 2)
    if c["init_from"]:
        valid &= need("parts", ())
    if "rotary" in c["parts"]:
        valid &= need("decay_groups", ())
    return c if valid else None


COMBINATIONS, PAIRS = covering(FACTORS, repair)


@pytest.fixture
def settings_of(tiny, tmp_path, texts, tokenizers, prepared, model_folder):
    """Make the ``Settings`` of a combination, and whether its ranks share the optimizer."""

    def make(combination):
        c = dict(combination)
        lines = [line for line in texts["own"].split(".\n") if line]
        documents = [". ".join(lines[i : i + 3]) for i in range(0, 180, 3)]
        data, block = c.pop("data"), {}
        if data == "files":
            folder = tmp_path / "files"
            folder.mkdir()
            for i, text in enumerate(documents):
                (folder / f"{i:02}.txt").write_text(text, encoding="utf-8")
        elif data == "json":
            folder = tmp_path / "documents.jsonl"
            folder.write_text("".join(f'{{"text": "{text}"}}\n' for text in documents).replace("\n ", " "))
        else:
            folder = prepared(block_size=BLOCK) if data == "fit" else prepared()
        tokenizer = c.pop("tokenizer")
        if tokenizer == "folder":
            tokenizers["own"].save(tmp_path / "tokenizer")
            tokenizer = str(tmp_path / "tokenizer")
        if c.pop("init_from"):
            block = {"init_from": str(model_folder), "positions": "crop"}
        elif tokenizer == "bpe" and data in ("files", "json"):
            block = {"vocab_size": 300}
        for part in c.pop("parts"):
            block |= PARTS[part]
        del c["ranks"], c["zero"]
        decay = {"decay_steps": 3} if c["schedule"] == "wsd" else {}
        return tiny(
            data=(str(folder),),
            tokenizer=tokenizer,
            block_size=BLOCK,
            batch_size=4,
            max_steps=STEPS,
            eval_every=4,
            save_every=3,
            **c,
            **block,
            **decay,
        )

    return make


class TwoThreads:
    """Two ranks as threads of this process; ``run`` calls a function of the group in both, and raises what failed."""

    class Rank(Alone):
        size, mpi = 2, True

        def __init__(self, rank, shared, barrier):
            self.rank, self._shared, self._barrier = rank, shared, barrier

        def _exchange(self, value):
            self._shared[self.rank] = value
            self._barrier.wait()
            both = list(self._shared)
            self._barrier.wait()
            return both

        def sum(self, values):
            return np.sum(self._exchange(np.array(values, np.float64)), axis=0).tolist()

        sum_on_machine = sum

        def barrier(self):
            self._barrier.wait()

        @contextlib.contextmanager
        def summed_gradients(self, model, last, rounded=False):
            yield
            if last:
                total = sum(self._exchange(model.grads.flat.copy()))
                model.grads.flat[:] = total

        def optimizer_slice(self, n, zero):
            mine = self.share(n) if zero else range(n)
            return mine.start, mine.stop

        def gather_parameters(self, params, zero):
            if zero:
                mine = self.share(len(params.flat))
                for start, values in self._exchange((mine.start, params.flat[mine.start : mine.stop].copy())):
                    params.flat[start : start + len(values)] = values

        def gather_moments(self, optimizer, n, zero):
            if not zero:
                return optimizer.first, optimizer.second
            both = self._exchange((optimizer.first.copy(), optimizer.second.copy()))
            return tuple(np.concatenate(parts) for parts in zip(*both))

    def run(self, function):
        barrier, failures = threading.Barrier(2), []
        ranks = [self.Rank(rank, [None, None], barrier) for rank in range(2)]
        ranks[1]._shared = ranks[0]._shared

        def second():
            try:
                function(ranks[1])
            except BaseException as error:
                failures.append(error)
                barrier.abort()

        thread = threading.Thread(target=second)
        thread.start()
        try:
            function(ranks[0])
        except threading.BrokenBarrierError:
            pass
        except BaseException:
            barrier.abort()
            raise
        finally:
            thread.join()
        if failures:
            raise failures[0]


def everything(folder):
    """What has to be equal, bit for bit: the newest checkpoint and all that was measured."""
    saved = checkpoint.load_newest(folder / "checkpoints")
    timing = ("tokens_per_second", "seconds")
    records = [{k: v for k, v in r.items() if k not in timing} for r in read_metrics(folder / "metrics.jsonl")]
    state = {k: v for k, v in saved.state.items() if k != "seconds"}
    return saved.step, [a.tobytes() for a in (saved.params.flat, saved.first, saved.second)], state, records


def losses(folder):
    return [r["loss"] for r in read_metrics(folder / "metrics.jsonl")]


def stopped_after(monkeypatch, step, function):
    """Call ``function``, which trains; the run is stopped as a signal stops it after ``step``."""
    plain = Watcher.on_step

    def on_step(self, trainer, result):
        plain(self, trainer, result)
        if trainer.state.step == step:
            trainer.stop.number = 2

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "on_step", on_step)
        function()


def independent_loss(folder, plan):
    """Nats a token of the saved model on the validation text: one document at a time, without masks, in float64."""
    saved = checkpoint.load_newest(folder / "checkpoints")
    _, path = checkpoint.list_checkpoints(folder / "checkpoints")[-1]
    assert saved.step == STEPS
    model = GPT.load(path, np.float64, layers)
    tokens = np.asarray(plan.corpus.validation[:]).astype(np.int64)
    eot, apart, rows = plan.corpus.tokenizer.eot_id, plan.settings.documents == "apart", plan.corpus.row_length
    stride, targets_seen, nats, counted = rows or BLOCK, 0, 0.0, 0
    for first in range(0, len(tokens) if rows else len(tokens) - 1, stride):
        window = (
            tokens[first : first + BLOCK + 1]
            if rows
            else tokens[max(0, min(first, len(tokens) - BLOCK - 1)) :][: BLOCK + 1]
        )
        begins = first if rows else max(0, min(first, len(tokens) - BLOCK - 1))
        pieces = split_at(window, eot) if apart else [(0, window)]
        for offset, piece in pieces:
            if len(piece) < 2:
                continue
            logits = model.forward(piece[None, :-1])[0]
            logits = logits - logits.max(axis=-1, keepdims=True)
            logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            for i, target in enumerate(piece[1:]):
                position = begins + offset + i + 1
                padding = rows and not apart and target == eot and piece[i] == eot
                if position > targets_seen and not padding:
                    nats -= logprobs[i, target]
                    counted += 1
        targets_seen = max(targets_seen, begins + len(window) - 1)
    return nats / counted, counted


def split_at(window, eot):
    """[(offset, tokens)]: the documents of a window, each with its end-of-text."""
    ends = [i + 1 for i, token in enumerate(window) if token == eot]
    bounds = [0, *ends, len(window)]
    return [(a, window[a:b]) for a, b in zip(bounds, bounds[1:]) if b > a]


def check_epoch(plan):
    """Each block once an epoch, and no attention beyond a document."""
    s, corpus = plan.settings, plan.corpus
    batches = Batches(s, corpus, BLOCK)
    eot, stride = corpus.tokenizer.eot_id, corpus.row_length or BLOCK
    tokens = np.asarray(corpus.training[:]).astype(np.int64)
    if s.order == "epochs":
        expected = sorted(tuple(tokens[i : i + BLOCK]) for i in range(0, len(tokens) - BLOCK, stride))
        seen = []
        for step in range(-(-len(expected) // s.batch_size)):
            seen += [tuple(row) for row in batches.rows(step, range(s.batch_size))[0]]
        assert sorted(seen[: len(expected)]) == expected
    inputs, targets, options = batches.rows(3, range(s.batch_size))
    if s.documents == "apart":
        for row in range(len(inputs)):
            for i in range(BLOCK):
                begin = options["first_key"][row, i]
                assert eot not in inputs[row, begin:i] and options["positions"][row, i] == i - begin
                assert (targets[row, i] == -1) == (inputs[row, i] == eot)


def hold(settings, combination, tmp_path, monkeypatch):
    start(settings, tmp_path / "whole")
    stopped_after(monkeypatch, 5, lambda: start(settings, tmp_path / "stopped"))
    assert checkpoint.load_newest(tmp_path / "stopped" / "checkpoints").step == 5
    resume(tmp_path / "stopped")
    assert everything(tmp_path / "stopped") == everything(tmp_path / "whole")

    expected = losses(tmp_path / "whole")
    other = {"layers": "kernels", "kernels": "layers"}[settings.ops]
    start(settings.replace(ops=other), tmp_path / "other")
    np.testing.assert_allclose(losses(tmp_path / "other"), expected, rtol=2e-4)
    for size in {None, 1, 3} - {settings.micro_batch_size}:
        start(settings.replace(micro_batch_size=size), tmp_path / f"micro-{size}")
        np.testing.assert_allclose(losses(tmp_path / f"micro-{size}"), expected, rtol=1e-4)
    if combination["ranks"] > 1:
        shared = settings.replace(zero=combination["zero"])
        TwoThreads().run(lambda group: start(shared, tmp_path / "ranks", group))
        np.testing.assert_allclose(losses(tmp_path / "ranks"), expected, rtol=1e-4)

    plan = plan_run(settings, Alone())
    (final,) = [r for r in read_metrics(tmp_path / "whole" / "metrics.jsonl") if r["kind"] == "final"]
    loss, counted = independent_loss(tmp_path / "whole", plan)
    assert counted == final["tokens"] and math.isclose(final["loss"], loss, rel_tol=2e-5)
    check_epoch(plan)


def test_all_pairs_are_covered():
    assert len(PAIRS) > 400 and len(COMBINATIONS) < 40
    impossible = {("data", "fit"), ("order", "random")}
    assert not any(set(pair) == impossible for pair in PAIRS)


@pytest.mark.parametrize("number", range(IN_SUITE))
def test_a_combination(settings_of, tmp_path, monkeypatch, number):
    combination = COMBINATIONS[number * len(COMBINATIONS) // IN_SUITE]
    hold(settings_of(combination), combination, tmp_path, monkeypatch)


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_every_combination(settings_of, tmp_path, monkeypatch, number):
    hold(settings_of(COMBINATIONS[number]), COMBINATIONS[number], tmp_path, monkeypatch)
