"""Advice beside a run's figures: before step 1 the cost and likely mistakes, after the run the next commands."""

from __future__ import annotations

import math
import time

from .. import machine
from ..host.processors import others_busy
from ..machine.cost import step_flops, training_memory
from ..parameters import count
from ..wording import counted, in_bytes, in_time, large

FEW_TOKENS = 1.0  # tokens for each parameter; with fewer, a model of usual size learns the text by heart
MANY_PASSES = 20  # passes over the text
FAR = 3.0  # times the preset's learning rate
_MEASURED_SECONDS = 0.5  # of a forward pass that is measured, about
APART = 0.1  # nats by which validation may exceed training without a remark


def before(settings, config, corpus, tokens_per_step, seconds=None):
    """The lines before step 1. seconds: of a step, measured on this machine; None where it was not measured."""
    N, training = count(config), len(corpus.training)
    passes = settings.max_steps * tokens_per_step / max(training, 1)
    rows = settings.micro_batch_size or settings.batch_size
    flops = sum(step_flops(config, 1, config.block_size).values()) / config.block_size * tokens_per_step
    memory = training_memory(config, rows, config.block_size, settings.recompute, settings.products)
    text = (
        f"{counted(N, 'parameter')} learn from {counted(training, 'token')}, {training / N:.2g} for each; "
        f"{counted(settings.max_steps, 'step')} of {counted(tokens_per_step, 'token')} read the text {passes:,.2g} times. "
        f"A step is {large(flops)}FLOP in about {in_bytes(sum(memory.values()))} of memory"
    )
    if seconds is not None:
        text += f" and takes about {in_time(seconds)} here: {in_time(seconds * settings.max_steps)} in all"
    return [f"{text}.", *(f"note: {line}" for line in doubts(settings, N, training, passes))]


def doubts(settings, parameters, training, passes):
    """Likely mistakes in a run's settings, a sentence each."""
    if training / parameters < FEW_TOKENS and passes > MANY_PASSES and not settings.init_from:
        yield (
            f"little text for so large a model: after {passes:,.0f} passes it will know the text by heart; more text, a "
            "smaller --preset, --dropout 0.2 or --patience 5 would help"
        )
    usual = settings.usual_learning_rate
    if not usual / FAR <= settings.learning_rate <= usual * FAR:
        which = "going on from a model" if settings.init_from else f"the preset {settings.preset}"
        yield f"--learning-rate {settings.learning_rate:g} is far from what is usual for {which}, {usual:g}"
    if (busy := others_busy()) > 0.5:
        yield f"other programs keep {busy:.1f} processors busy: this run will be slower than it could be"


def measure_step(model, settings, rows):
    """Seconds of a training step, from measured forward passes: of one row, and of more rows where one is quick.

    rows: a function of a number that makes (inputs, targets, options) of so many rows. A backward is two forwards; the
    update moves eleven arrays of the model's size. Nothing that training uses is changed.
    """
    together = settings.micro_batch_size or settings.batch_size
    _forward(model, rows(1))  # brings in code and memory
    seconds, count = _forward(model, rows(1)), 1
    if seconds * together < 2 * _MEASURED_SECONDS:
        batch = rows(together)
        _forward(model, batch)
        seconds, count = min(_forward(model, batch) for _ in range(2)), together
    moved = 11 * model.params.flat.nbytes / machine.read_bandwidth(0.02)
    return 3 * seconds * settings.batch_size / count + moved


def _forward(model, batch):
    inputs, targets, options = batch
    started = time.perf_counter()
    model.loss(inputs, targets, **options)
    return time.perf_counter() - started


def after(run, reason, final, best_loss, best_step, training_loss, step):
    """The lines after a successful run: the meaning of the figures and the next commands.

    final: the ``Evaluation`` after the last step, or None. training_loss: the mean of the last steps, or None.
    """
    if final is not None and best_step is not None and best_loss < final.loss - APART and best_step < step:
        yield (
            f"validation was best at step {best_step:,} ({best_loss:.4f}) and rose after it: commands take that checkpoint"
        )
    elif best_step is not None and math.isfinite(best_loss):
        yield f"the best checkpoint is step {best_step:,}; commands take it"
    if final is not None and training_loss is not None and final.loss > training_loss + APART:
        yield (
            f"training loss {training_loss:.2f} is below validation {final.loss:.2f}: the model knows the training text "
            "better than text of its kind; more text, --dropout or fewer steps would bring them together"
        )
    if reason != "finished":
        yield f"to go on:    gpt-numpy train --resume {run}"
    yield f"to write:    gpt-numpy generate --model {run}"


def diverged(run):
    """The advice for a loss or gradient that is not finite."""
    return f"try a lower --learning-rate, or a longer --warmup-steps; the run is in {run}"
