"""Everything that looks on while a model trains: progress line, log, samples, picture, and the last summary."""

from __future__ import annotations

import sys
import time

from .. import compiler, machine
from ..parameters import count
from . import plots
from .evaluation import unigram_loss
from .metrics import MetricsLog, read_metrics
from .progress import Progress
from .sampling import sample

PICTURE_SECONDS = 300  # drawing takes about a second, in which nothing is trained


class Watcher:
    """The trainer's observer. ``quiet`` (all ranks but the first): measures and samples nothing, writes nothing."""

    def __init__(self, settings, run, corpus, data_sha256, state, quiet=False):
        self.settings, self.run, self.corpus, self.data_sha256, self.quiet = settings, run, corpus, data_sha256, quiet
        self.unigram = unigram_loss(corpus.training, corpus.validation, corpus.tokenizer.n_vocab)
        self.final = None
        self._progress = Progress(state.step, settings.max_steps, quiet)
        self._log = None if quiet else MetricsLog(run.path, state.step)
        measurable = not quiet and not compiler.missing()
        self._peak = machine.peak_flops() if measurable else 0.0  # operations a second; 0: not measured
        self._speed = 0.0  # tokens a second
        self._last_time = self._last_picture = time.perf_counter()
        self._last_step = state.step

    def say(self, text):
        """A line for whoever watches; nothing on ranks other than the first."""
        self._progress.say(text)

    def state(self):
        """What a checkpoint holds of the run beside the trainer's own state."""
        return {"settings": self.settings.to_dict(), "data_sha256": self.data_sha256}

    def introduce(self, trainer):
        """The lines before the first step."""
        c = trainer.model.config
        sizes = f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, {c.block_size} tokens"
        self.say(f"{count(c):,} parameters: {sizes}; {trainer.tokens_per_step:,} tokens a step")
        self.say(f"a unigram model has a validation loss of {self.unigram:.3f}; writing to {self.run.path}")

    # ---- what the trainer tells ---------------------------------------------------------------------------

    def on_step(self, trainer, result):
        step = trainer.state.step
        if step % self.settings.log_every == 0 or step == self.settings.max_steps:
            now = time.perf_counter()
            self._speed = (step - self._last_step) * trainer.tokens_per_step / max(now - self._last_time, 1e-9)
            self._last_time, self._last_step = now, step
            self._write(
                "train",
                step,
                **result,
                tokens_per_second=round(self._speed, 1),
                seconds=round(trainer.state.seconds, 3),
            )
        self._progress.update(step, lambda: self._line(trainer, result))

    def _line(self, trainer, result):
        flops = self._speed / trainer.tokens_per_step * trainer.flops_per_step
        share = f"  {flops / self._peak:.0%} of peak" if self._peak else ""
        best = trainer.state.best_loss
        return (
            f"loss {result['loss']:.3f}  val {best:.3f}  lr {result['learning_rate']:.1e}  "
            f"{self._speed:,.0f} tok/s{share}"
        )

    def on_evaluation(self, trainer, kind, result):
        step = trainer.state.step
        self._write(kind, step, loss=result.loss, bits_per_byte=result.bits_per_byte, tokens=result.tokens)
        if kind == "final":
            self.final = result
            return
        self.say(f"step {step:,}: validation loss {result.loss:.4f}, {result.bits_per_byte:.3f} bits per byte")
        if step and self.settings.sample_every and step % self.settings.sample_every == 0:
            self._sample(trainer)

    def on_checkpoint(self, trainer):
        if time.perf_counter() - self._last_picture > PICTURE_SECONDS:
            self._draw()

    def _sample(self, trainer):
        if self.quiet:
            return
        s = self.settings
        text = sample(trainer.model, self.corpus, s.prompt, s.sample_tokens, s.seed)
        self.say("    | " + text.strip("\n").replace("\n", "\n    | "))
        self._spare("samples.txt", lambda: self.run.append_sample(trainer.state.step, text))

    def _write(self, kind, step, **fields):
        if self._log is not None:
            self._log.write({"kind": kind, "step": step, **fields})

    def _draw(self):
        if plots.available() and not self.quiet:
            records = read_metrics(self._log.path) if self._log.path.exists() else []
            path = self.run.path / "loss.png"
            self._spare("loss.png", lambda: plots.draw(path, {self.run.path.name: records}, self.unigram))
            self._last_picture = time.perf_counter()

    def _spare(self, what, write):
        # Pictures and samples are for looking at; a disk that is full must not end the training for them.
        try:
            write()
        except OSError as error:
            print(f"warning: {self.run.path / what}: {error.strerror}", file=sys.stderr)

    # ---- the end -----------------------------------------------------------------------------------------

    def close(self):
        self._progress.close()

    def conclude(self, trainer, reason):
        """The lines after the last step."""
        if self.quiet:
            return
        self._draw()
        self.say(
            f"{reason} at step {trainer.state.step:,} after {trainer.state.seconds:.0f} s of training "
            f"({trainer.waited:.2f} s spent waiting for batches)"
        )
        if self.final is not None:
            figures = f"{self.final.loss:.4f}, {self.final.bits_per_byte:.3f} bits per byte"
            self.say(f"validation loss over all {self.final.tokens:,} tokens of the validation text: {figures}")
            self.say(f"the unigram model's: {self.unigram:.4f}")
        self.say(f"{self.run.path}:")
        for name, size in self.run.listing():
            self.say(f"    {name:<24}{size:>14,} bytes")
