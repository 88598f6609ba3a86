"""A whole run, from settings to a trained model in a folder: ``start`` a new one, ``resume`` one.

Both end in ``_train``: the trainer in a locked run folder, watched by a ``Watcher`` that keeps the
progress line, the log, the samples and the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
from pathlib import Path
from typing import NamedTuple

from .. import compiler
from ..errors import ConfigError, DataError, NonFinite
from ..locating import describe
from ..machine.memory import check_memory
from ..model import GPT
from ..workspace import Workspace
from . import checkpoint
from .corpus import load_corpus
from .distributed import Alone
from .initial import initial_model, initial_tokenizer
from .optimizer import AdamW
from .run_folder import RunFolder, free_name
from .saver import Saver
from .settings import PATHS, RESUMABLE, Settings
from .signals import SIGNALLED, StopSignal
from .trainer import Trainer, TrainState
from .watcher import Watcher


class Outcome(NamedTuple):
    """How a run ended. ``exit_code`` is 0, or 128 + the signal that stopped it."""

    folder: Path
    step: int
    validation_loss: float  # over the whole validation text; NaN where a signal came first
    bits_per_byte: float
    unigram_loss: float
    reason: str
    exit_code: int


def start(settings, out=None, group=None):
    """Train a new model as ``settings`` (a ``Settings``) say, in the folder ``out`` (default: a new one in runs)."""
    _check_compiler(settings)
    group = group or Alone()
    run = RunFolder(out or free_name(settings.data))
    if group.rank == 0:
        run.create()
    group.barrier()
    with _held(run, group):
        if settings.init_from and (checkpoint_taken := describe(settings.init_from)):
            _say(group)(checkpoint_taken)
        corpus = load_corpus(settings, initial_tokenizer(settings), _say(group))
        model = initial_model(settings, corpus.tokenizer.n_vocab)
        return _train(settings, run, model, None, corpus, TrainState(), group)


def _check_compiler(settings):
    """``KernelError`` before anything is read or written, where the kernels are asked for and cannot be compiled."""
    if settings.ops == "kernels":
        compiler.require()


def resume(folder, changes=None, group=None):
    """Go on with the run in ``folder`` from its newest whole checkpoint.

    changes: settings to change, of those that change no step already taken (``settings.RESUMABLE``). Raises
    ``DataError`` if the data is not the data that the run was started with.
    """
    group = group or Alone()
    run = RunFolder(folder)
    if not run.path.is_dir():
        raise ConfigError("no such run", path=run.path)
    with _held(run, group):
        saved = checkpoint.load_newest(run.checkpoints)
        settings = _resumed_settings(saved, changes or {}, run)
        _check_compiler(settings)
        _say(group)(f"resuming {run.path} at step {saved.step:,}")
        corpus = load_corpus(settings, saved.tokenizer, _say(group))
        if corpus.fingerprint() != saved.state["data_sha256"]:
            raise DataError(
                "not the data that this run was started with",
                path=run.path,
                field="data",
                found=corpus.fingerprint()[:16],
                expected=saved.state["data_sha256"][:16],
            )
        ops = importlib.import_module(f"..{settings.ops}", __package__)
        model = GPT(saved.config, ops=ops, params=saved.params, recompute=settings.recompute)
        return _train(settings, run, model, saved, corpus, TrainState.from_dict(saved.step, saved.state), group)


def _resumed_settings(saved, changes, run):
    settings = Settings.from_mapping(saved.state["settings"])
    for name, value in changes.items():
        if name not in RESUMABLE and getattr(settings, name) != value:
            raise ConfigError(
                "cannot change in a run that has begun",
                path=run.path,
                field=name,
                found=value,
                expected=repr(getattr(settings, name)),
            )
    return settings.replace(**changes)


def _held(run, group):
    # The first rank alone writes, so it alone needs the lock.
    return run if group.rank == 0 else contextlib.nullcontext()


def _say(group):
    return print if group.rank == 0 else lambda text: None


def _check_agreement(settings, model, fingerprint, state, group):
    """Refuse to begin unless all ranks have the same task; paths may differ, what is read from them may not."""
    if settings.batch_size < group.size:
        raise ConfigError(
            "every rank needs a sequence",
            field="batch_size",
            found=settings.batch_size,
            expected=f"at least {group.size}",
        )
    values = [f"{name} = {value}" for name, value in settings.to_dict().items() if name not in PATHS]
    group.check_same("settings", "\n".join(values))
    group.check_same("data", fingerprint)
    group.check_same("checkpoint", f"step {state.step}")
    group.check_same("parameters", hashlib.sha256(model.params.flat).hexdigest())


def _compile_kernels(dtype, group):
    """Compile them now, where there is a progress line to see, and not in the middle of the first step."""
    from ..kernels.runtime.warm_up import compile_kernels

    seconds = compile_kernels(dtype, show_progress=group.rank == 0)
    _say(group)(f"kernels ready after {seconds:.1f} s")


def _train(settings, run, model, saved, corpus, state, group):
    first = group.rank == 0
    fingerprint = corpus.fingerprint()
    if group.size > 1:
        _check_agreement(settings, model, fingerprint, state, group)
    check_memory(model.config, settings.micro_batch_size or settings.batch_size, settings.recompute)
    if settings.ops == "kernels":
        _compile_kernels(model.params.flat.dtype, group)
    model.workspace = Workspace()
    optimizer = AdamW(model.params, settings, model.ops, *group.optimizer_slice(len(model.params.flat), settings.zero))
    if saved is not None:
        optimizer.set_moments(saved.first, saved.second)
    if first:
        run.begin(settings, state.step)
    with StopSignal() as stop:
        watcher = Watcher(settings, run, corpus, fingerprint, state, quiet=not first)
        # After the watcher, which measures the machine: the saver keeps a core busy at first.
        saver = Saver(run.checkpoints, settings.keep, model.params) if first else None
        trainer = Trainer(settings, model, optimizer, corpus, state, group, saver, watcher, stop)
        watcher.introduce(trainer)
        try:
            reason = trainer.run()
            if reason != SIGNALLED:
                trainer.evaluate("final", 0)
        except NonFinite:
            # All ranks come here together; none may end the others while the first still saves.
            if saver is not None:
                saver.finish()
            group.barrier()
            raise
        finally:
            watcher.close()
            if saver is not None:
                saver.finish()
        watcher.conclude(trainer, reason)
    final = watcher.final
    loss, bits = (final.loss, final.bits_per_byte) if final else (math.nan, math.nan)
    return Outcome(run.path, state.step, loss, bits, watcher.unigram, reason, stop.exit_code)
