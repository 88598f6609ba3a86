"""The output of a run while a model trains: progress line, log, samples, picture, and the last summary."""

from __future__ import annotations

import contextlib
import sys
import time

from .. import machine
from ..data import normalize
from ..host import compiler, terminal
from ..inference import generate
from ..parameters import count
from ..tokenizer.specials import before_document
from ..wording import counted, fault_of, in_time
from . import advice, plots
from .evaluation import unigram_loss
from .metrics import MetricsLog, read_metrics
from .progress import Progress
from .settings import MODEL_SIZES
from .trainer import warn

_RECENT = 10  # records whose mean is the training loss at the end
_WORTH_A_WORD = 3.0  # seconds of the last validation from which it is announced
PICTURE_SECONDS = 300  # drawing stops the training for about a second


class Voice:
    """Lines on standard output about a run. A closed output does not end the run.

    quiet: say nothing (all ranks but the first)
    """

    def __init__(self, quiet=False):
        self.quiet = quiet

    def __call__(self, text, write=None):
        """Write the line ``text``, by default with ``print``; ``write`` (text) may keep a progress bar below the line."""
        if self.quiet:
            return
        write = write or (lambda line: print(line, flush=True))
        try:
            try:
                write(text)
            except UnicodeEncodeError:  # a terminal in another encoding
                encoding = getattr(sys.stdout, "encoding", None) or "ascii"
                write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # a full disk, a reader that went away, a closed file
            self.quiet = True
            warn(f"standard output cannot be written to ({error}); the run goes on in silence")
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no file of the system: a notebook, a test
                terminal.discard(sys.stdout)


class Watcher:
    """The trainer's observer. ``quiet`` (all ranks but the first): measures and samples nothing, writes nothing."""

    def __init__(self, settings, run, corpus, data_sha256, state, quiet=False, voice=None, plan=None):
        self.settings, self.run, self.corpus, self.data_sha256, self.quiet = settings, run, corpus, data_sha256, quiet
        self.unigram = unigram_loss(corpus.training, corpus.validation, corpus.tokenizer.n_vocab)
        self.final, self._is_part = None, False  # the last validation; whether it read a part of the text only
        self._voice, self._plan, self._failed = voice or Voice(quiet), plan, set()
        self._progress = Progress(state.step, settings.max_steps, quiet)
        self._log = None if quiet else MetricsLog(run.path, state.step)
        measurable = not quiet and not compiler.missing()
        # operations a second, in the run's products; 0: not measured
        kind = {} if settings.products == "float32" else {"products": settings.products}
        self._peak = self._spare("speed", lambda: machine.peak_flops(**kind), otherwise=0.0) if measurable else 0.0
        self._speed = 0.0  # tokens a second
        self._last_time = self._last_picture = time.perf_counter()
        self._last_step = state.step

    def say(self, text):
        """Write a line; nothing on ranks other than the first."""
        self._voice(text, self._progress.say)

    def state(self):
        """The state of the watcher for a checkpoint, beside the trainer's own state."""
        state = {"settings": self.settings.to_dict(), "data_sha256": self.data_sha256}
        if self._plan is not None:
            state |= {"sources": self._plan.sources, "reading": self._plan.reading.fields()}
        return state

    def introduce(self, trainer):
        """The lines before the first step."""
        c = trainer.model.config
        sizes = f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, {c.block_size} tokens{c.parts_in_words()}"
        self.say(f"{counted(count(c), 'parameter')}: {sizes}; {counted(trainer.tokens_per_step, 'token')} a step")
        self.say(f"a unigram model has a validation loss of {self.unigram:.3f}; writing to {self.run.path}")
        if not self.quiet:
            for line in self._spare("advice", lambda: self._advice(trainer), []):
                self.say(line)

    def _advice(self, trainer):
        seconds = None
        if self.settings.ops == "kernels" and trainer.group.size == 1:
            seconds = advice.measure_step(
                trainer.model, self.settings, lambda count: trainer.batches.rows(trainer.state.step, range(count))
            )
        return advice.before(self.settings, trainer.model.config, self.corpus, trainer.tokens_per_step, seconds)

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
        if self._due(step) and not self._evaluated_at(step):
            self._sample(trainer)
        self._progress.update(step, lambda: self._line(trainer, result))

    def _due(self, step):
        return bool(self.settings.sample_every) and step > 0 and step % self.settings.sample_every == 0

    def _evaluated_at(self, step):
        """Whether a validation is due at ``step``; the sample then comes after the validation."""
        return step % self.settings.eval_every == 0 or step == self.settings.max_steps

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
        if self._due(step):
            self._sample(trainer)

    def before_last_evaluation(self, trainer, tokens, is_part, seconds):
        """Say how long the last validation takes, where that is long; ``is_part``: it does not read the whole text."""
        self._is_part = is_part
        if seconds is not None and seconds > _WORTH_A_WORD:
            part = f" of {len(self.corpus.validation):,}, spread over the text (--final-tokens 0: all)" * is_part
            self.say(f"the last validation, on {counted(tokens, 'token')}{part}, takes about {in_time(seconds)}")

    def on_checkpoint(self, trainer):
        if time.perf_counter() - self._last_picture > PICTURE_SECONDS:
            self._draw()

    def _sample(self, trainer):
        if self.quiet:
            return
        s = self.settings
        text = self._spare("sample", lambda: sample(trainer.model, self.corpus, s.prompt, s.sample_tokens, s.seed))
        if text is not None:
            self.say("    | " + text.strip("\n").replace("\n", "\n    | "))
            self._spare("samples.txt", lambda: self.run.append_sample(trainer.state.step, text))

    def _write(self, kind, step, **fields):
        if self._log is not None:
            self._log.write({"kind": kind, "step": step, **fields})

    def _draw(self):
        if not self.quiet and "loss.png" not in self._failed:
            self._spare("loss.png", self._draw_picture)
            self._last_picture = time.perf_counter()

    def _draw_picture(self):
        if plots.available():
            runs = {self.run.path.name: self._records()}
            plots.draw(self.run.path / "loss.png", runs, self.unigram, self._title(), self.settings.clip)

    def _title(self):
        """The title of ``loss.png``: the run, the model and its data."""
        s = self.settings
        model = f"from {s.init_from}" if s.init_from else f"preset {s.preset}"
        sizes = [name for name in MODEL_SIZES if getattr(s, name) is not None and name != "vocab_size"]
        changed = ", ".join(f"{name} {getattr(s, name)}" for name in (*sizes, *s.parts))
        return f"{self.run.path.name}: {model}{', ' * bool(changed)}{changed}; data {', '.join(s.data)}"

    def _spare(self, what, make, otherwise=None):
        """The result of ``make``, or ``otherwise`` after one warning: a failure of a picture or sample does not end a run."""
        try:
            return make()
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                reason = fault_of(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                warn(f"{self.run.path / what}: {reason}; the run goes on without it")
            return otherwise

    # ---- the end -----------------------------------------------------------------------------------------

    def close(self):
        self._spare("progress", self._progress.close)

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
            tokens = f"{self.final.tokens:,}"
            which = f"{tokens} of the {len(self.corpus.validation):,}" if self._is_part else f"all {tokens}"
            self.say(f"validation loss over {which} tokens of the validation text: {figures}")
            self.say(f"the unigram model's: {self.unigram:.4f}")
        self.say(f"{self.run.path}:")
        for name, size in self.run.listing():
            self.say(f"    {name:<24}{size:>14,} bytes")
        recent = [r["loss"] for r in self._records() if r.get("kind") == "train"][-_RECENT:]
        training = sum(recent) / len(recent) if recent else None
        s = trainer.state
        for line in advice.after(self.run.path, reason, self.final, s.best_loss, s.best_step, training, s.step):
            self.say(line)

    def _records(self):
        return read_metrics(self._log.path) if self._log is not None and self._log.path.exists() else []


def sample(model, corpus, prompt, n_tokens, seed, temperature=0.8, top_k=50):
    """The text of ``prompt`` and up to ``n_tokens`` more; an empty prompt is the start of a text.

    The same prompt and seed are used every time, so samples compare. The prompt is normalised as the run's text was. Ids
    without text in the tokenizer are never drawn.
    """
    tokenizer, vocab_size = corpus.tokenizer, model.config.vocab_size
    begin = tokenizer.begin_ids if prompt else before_document(tokenizer)
    if prompt:
        shown = tokenizer.encode_ordinary(normalize(prompt, corpus.normalize))
    else:
        shown = [] if begin else [int(corpus.training[:1][0])]
    stop_tokens = () if tokenizer.eot_id is None else (tokenizer.eot_id,)
    new = generate(
        model,
        begin + shown,
        n_tokens,
        stop_tokens=stop_tokens,
        temperature=temperature,
        top_k=min(top_k, tokenizer.n_vocab, vocab_size),
        vocabulary=tokenizer.n_vocab,
        seed=seed,
    )
    return tokenizer.decode([*shown, *new.tolist()])
