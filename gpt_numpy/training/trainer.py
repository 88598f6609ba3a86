"""The training loop: batches, gradients, updates and, from time to time, a validation.

The loop keeps no random state: a step's batch and dropout are functions of (seed, step), so a run is continued by
setting ``step``. Only ``train_step`` changes the parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time

import numpy as np

from ..data import count_validation_windows, prefetch
from ..errors import NonFinite
from ..machine.cost import training_flops_per_token
from ..model import IGNORE_INDEX, DropoutAt
from .checkpoint import Checkpoint
from .evaluation import evaluate
from .optimizer import clip_scale
from .plan.batches import Batches
from .plan.record import final_windows
from .schedule import learning_rate

SIGNALLED = "stopped by a signal"  # why a run ended


@dataclasses.dataclass
class TrainState:
    """Progress of a run, beside its parameters and moments; kept in ``trainer_state.json``."""

    step: int = 0  # updates done
    best_loss: float = math.inf
    best_step: int | None = None
    evaluations_since_best: int = 0
    seconds: float = 0.0  # spent training, over all resumptions

    @classmethod
    def from_dict(cls, step, fields):
        """The state at ``step`` from the rest of a checkpoint's; keys written by the watcher are ignored here."""
        best_loss = math.inf if fields["best_loss"] is None else fields["best_loss"]
        return cls(step, best_loss, fields["best_step"], fields["evaluations_since_best"], fields["seconds"])

    def to_dict(self):
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        return {**dataclasses.asdict(self), "best_loss": best_loss}


class Trainer:
    """Trains ``model`` on ``corpus`` as ``settings`` say, from ``state`` on.

    group     the processes that share the work (``distributed.Alone``, ``mpi.MPIGroup``)
    saver     writes checkpoints (``saver.Saver``); None on all ranks but the first
    observer  is told of steps, evaluations and checkpoints (``watcher.Watcher``). Its exceptions become warnings
    stop      its ``number`` becomes true when the run is to end (``session.StopSignal``)
    """

    def __init__(self, settings, model, optimizer, corpus, state, group, saver, observer, stop):
        self.settings, self.model, self.optimizer, self.corpus = settings, model, optimizer, corpus
        self.state, self.group, self.saver, self.observer, self.stop = state, group, saver, observer, stop
        self.batches = Batches(settings, corpus, model.config.block_size)
        self.tokens_per_step = settings.batch_size * self.batches.block_size
        self.flops_per_step = training_flops_per_token(model.config) * self.tokens_per_step
        self.waited = 0.0  # seconds that steps waited for their batches
        self._saved_step = state.step if state.step else None
        self._tokens_validated, self._seconds_validating = 0, 0.0  # of the newest validation
        self._complained = set()  # names of the observer's methods whose failure has been reported

    # ---- one step ----------------------------------------------------------------------------------------

    def train_step(self, parts=None):
        """Gradients of the global batch of this step, clipped, and one update. Returns loss, learning rate, norm.

        parts: ``micro_batches`` of the step, if they were made in advance.

        Raises ``NonFinite``, parameters untouched, where the loss or a gradient is not finite.
        """
        s, step = self.settings, self.state.step
        loss = self._gradients(step, self.micro_batches(step) if parts is None else parts)
        norm = self.model.ops.gradient_norm(self.model.grads.flat)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._non_finite(loss)
        rate = learning_rate(step, s)
        if self.saver is not None:
            self.saver.check()
        self.optimizer.update(self.model.params, self.model.grads, rate, step, clip_scale(norm, s.clip))
        self.group.gather_parameters(self.model.params, s.zero)
        self.state.step += 1
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm}

    def _gradients(self, step, parts):
        """Leave the global batch's gradient in ``model.grads``; returns its loss.

        Rows are taken a micro-batch at a time. Each is weighted by its share of the whole batch's counted
        targets, so that loss and gradient do not depend on the division.
        """
        s, model = self.settings, self.model
        model.replace_gradients()
        counts = [np.count_nonzero(targets != IGNORE_INDEX) for _, _, targets, _ in parts]
        (counted,) = self.group.sum([sum(counts)])
        loss = 0.0
        for (row, inputs, targets, options), count in zip(parts, counts):
            share = count / max(counted, 1)
            dropout_at = DropoutAt(s.seed, step, row)
            with self.group.summed_gradients(model, row == parts[-1][0], s.gradient_sums == "bfloat16"):
                loss += share * model.loss_and_gradients(inputs, targets, share, dropout_at=dropout_at, **options)
        return self.group.sum([loss])[0]

    def micro_batches(self, step):
        """A list of (first row, inputs, targets, options): this rank's rows of the step's batch."""
        mine = self.group.share(self.settings.batch_size)
        size = self.settings.micro_batch_size or len(mine)
        firsts = range(mine.start, mine.stop, size)
        return [(first, *self.batches.rows(step, range(first, min(first + size, mine.stop)))) for first in firsts]

    def _non_finite(self, loss):
        for name, gradient in self.model.grads.items():
            if not np.isfinite(gradient).all():
                where = f"the gradient of {name}"
                break
        else:
            where = "the loss"
        return NonFinite(
            f"{where} is not finite (loss {loss}); the parameters are those before the step; a lower learning rate "
            "or a longer warm-up may help",
            field=f"step {self.state.step}",
        )

    # ---- all steps ---------------------------------------------------------------------------------------

    def run(self):
        """Train until the last step, a signal, the time budget or the end of patience; returns why it ended."""
        with contextlib.closing(prefetch(self.micro_batches, range(self.state.step, self.settings.max_steps))) as ahead:
            return self._run(ahead)

    def _run(self, ahead):
        s, state = self.settings, self.state
        began, before = time.monotonic(), state.seconds
        if state.step == 0:
            self.evaluate("validation", s.eval_windows)
        while (reason := self._reason_to_end(time.monotonic() - began)) is None:
            asked = time.monotonic()
            parts = next(ahead)
            self.waited += time.monotonic() - asked
            try:
                result = self.train_step(parts)
            except NonFinite:
                self.checkpoint()
                raise
            state.seconds = before + time.monotonic() - began
            self._tell("on_step", result)
            improved = False
            if state.step % s.eval_every == 0 or state.step == s.max_steps:
                improved = self.evaluate("validation", s.eval_windows)
            if improved or state.step % s.save_every == 0:
                self.checkpoint()
        self.checkpoint()
        return reason

    def _reason_to_end(self, elapsed):
        s, state = self.settings, self.state
        out_of_time = bool(s.max_minutes) and elapsed >= 60 * s.max_minutes
        # Signals and clocks differ between ranks, so every rank acts on the sum over all ranks.
        signalled, late = self.group.sum([bool(self.stop.number), out_of_time])
        if state.step >= s.max_steps:
            return "finished"
        if signalled:
            return SIGNALLED
        if late:
            return f"stopped after {s.max_minutes:g} minutes"
        if s.patience and state.evaluations_since_best >= s.patience:
            return f"stopped: no better validation in {s.patience} evaluations"
        return None

    def evaluate(self, kind, limit):
        """Validate on ``limit`` windows (0: all). True if ``kind`` is ``validation`` and the loss is the best so far."""
        s, state = self.settings, self.state
        rows = s.micro_batch_size or len(self.group.share(s.batch_size))
        # A signal ends the last validation, which may be long; ranks would have to agree on where.
        may_stop = kind == "final" and self.group.size == 1
        stopped = (lambda: bool(self.stop.number)) if may_stop else (lambda: False)
        name = None if self.group.rank else "validating"
        began = time.monotonic()
        result = evaluate(self.model, self.corpus, rows, limit, self.group, self.batches.masked, stopped, name)
        if result is None:
            return False
        self._tokens_validated, self._seconds_validating = result.tokens, time.monotonic() - began
        improved = kind == "validation" and result.loss < state.best_loss
        if improved:
            state.best_loss, state.best_step, state.evaluations_since_best = result.loss, state.step, 0
        elif kind == "validation":
            state.evaluations_since_best += 1
        self._tell("on_evaluation", kind, result)
        return improved and state.step > 0

    def evaluate_last(self):
        """The validation after the last step: on about ``final_tokens`` tokens, spread over the text, or on all."""
        tokens, rows = self.corpus.validation, self.corpus.row_length
        block_size = min(self.model.config.block_size, max(len(tokens) - 1, 1))
        windows = count_validation_windows(tokens, block_size, None, rows)
        limit = final_windows(self.settings.final_tokens, block_size) or windows
        chosen = min(limit, windows) * block_size
        expected = chosen * self._seconds_validating / self._tokens_validated if self._tokens_validated else None
        self._tell("before_last_evaluation", chosen, limit < windows, expected)
        self.evaluate("final", limit if limit < windows else 0)

    def _tell(self, event, *details):
        """Call the observer's method ``event``. A failure of the observer must not end a run: it becomes one warning."""
        try:
            getattr(self.observer, event)(self, *details)
        except Exception as error:
            if event not in self._complained:
                self._complained.add(event)
                warn(f"{event} failed ({type(error).__name__}: {error}); the run goes on without it")

    def checkpoint(self):
        """Save the present step, unless it is saved already. ``NonFinite`` for parameters that are not finite."""
        if self._saved_step == self.state.step:
            return
        self._check_finite()
        first, second = self.group.gather_moments(self.optimizer, len(self.model.params.flat), self.settings.zero)
        if self.saver is not None:
            state = {**self.state.to_dict(), **self.observer.state()}
            del state["step"]
            model = self.model
            self.saver.save(
                Checkpoint(self.state.step, model.config, model.params, first, second, self.corpus.tokenizer, state)
            )
        self._saved_step = self.state.step
        if self.saver is not None:
            self._tell("on_checkpoint")

    def _check_finite(self):
        for name, values in self.model.params.items():
            if not np.isfinite(values).all():
                raise NonFinite(
                    f"{name} is not finite after the last update; the checkpoint before is the newest",
                    field=f"step {self.state.step}",
                )


def warn(text):
    """One line on standard error, which may be closed or full."""
    with contextlib.suppress(OSError, ValueError):
        print(f"warning: {text}", file=sys.stderr, flush=True)
