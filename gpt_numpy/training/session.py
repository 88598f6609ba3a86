"""A whole run, from settings to a trained model in a folder: ``start`` begins a run, ``resume`` continues one.

Both make a ``Plan`` first, and both end in ``_train``: the trainer in a locked run folder, watched by a ``Watcher`` that
keeps the progress line, the log, the samples and the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, NonFinite
from ..host import compiler
from ..interop.beside import beside_of
from ..locating import find_model
from ..machine import memory
from ..model import GPT
from ..workspace import Workspace
from . import checkpoint
from .optimizer import AdamW
from .plan.initial import initial_model, initial_parts
from .plan.record import plan_lines
from .plan.resolving import Plan, plan_resumed, plan_run, resumed_settings
from .plan.saved_state import check_saved_state
from .ranks.distributed import Alone
from .run_folder import RunFolder, free_name
from .saver import Saver
from .settings import PATHS, Settings
from .trainer import SIGNALLED, Trainer, TrainState
from .watcher import Voice, Watcher

_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has no such signal
_HANDLED = (signal.SIGINT, signal.SIGTERM, *(() if _HANGUP is None else (_HANGUP,)))


class Outcome(NamedTuple):
    """How a run ended. ``exit_code`` is 0, or 128 + the signal that stopped it."""

    folder: Path
    step: int
    validation_loss: float  # of the last validation (``final_tokens``); NaN where a signal came first
    bits_per_byte: float
    unigram_loss: float
    reason: str
    exit_code: int


def start(settings: Settings, out=None, group=None, given: Iterable[str] = ()) -> Outcome:
    """Train a new model as ``settings`` say, in the folder ``out`` (default: a new one in runs).

    given: names of the settings that were set, even to the default; a setting without effect is a ``ConfigError``
    """
    _check_compiler(settings)
    memory.check_start()
    group = group or Alone()
    voice = Voice(quiet=group.rank != 0)
    run = RunFolder(out or free_name(settings.data))
    if group.rank == 0:
        run.check_free()
    helpers = _begin_compiling(settings, initial_parts(settings), group, voice)
    plan = plan_run(settings, group, voice, given)
    beside = beside_of(find_model(settings.init_from) if settings.init_from else None, plan.corpus.tokenizer)
    if group.rank == 0:
        run.create()
    group.barrier()
    with _held(run, group):
        model = initial_model(plan.settings, plan.corpus.tokenizer.n_vocab)
        return _train(plan, run, model, None, beside, TrainState(), group, voice, helpers)


def _check_compiler(settings):
    """``KernelError`` before anything is read or written, where the kernels are asked for and cannot be compiled."""
    if settings.ops == "kernels":
        compiler.require()


def dry_run(settings: Settings, group=None, given: Iterable[str] = ()) -> Plan:
    """The ``Plan`` of the run that ``start`` would begin, printed; nothing is written."""
    plan = plan_run(settings, group or Alone(), given=given)
    print("\n".join(plan_lines(plan)))
    return plan


def resume(folder, changes=None, group=None) -> Outcome:
    """Go on with the run in ``folder`` from its newest whole checkpoint.

    changes: settings to change, out of ``settings.RESUMABLE``, or ``data``, where the files of the text have moved. Raises
    ``DataError`` if the text differs from the text at the run's start.
    """
    group = group or Alone()
    voice = Voice(quiet=group.rank != 0)
    memory.check_start()
    run = RunFolder(folder)
    if not run.path.is_dir():
        raise ConfigError("no such run", path=run.path)
    with _held(run, group):
        saved = checkpoint.load_newest(run.checkpoints)
        check_saved_state(saved.state, run.checkpoints / f"step-{saved.step}" / checkpoint.STATE)
        voice(f"resuming {run.path} at step {saved.step:,}")
        settings = resumed_settings(saved, changes or {}, run.path, group)
        _check_compiler(settings)
        helpers = _begin_compiling(settings, saved.config, group, voice)
        plan = plan_resumed(saved, changes or {}, run.path, group, voice)
        ops = importlib.import_module(f"..{plan.settings.ops}", __package__)
        model = GPT(
            saved.config,
            ops=ops,
            params=saved.params,
            recompute=plan.settings.recompute,
            products=plan.settings.products,
        )
        state = TrainState.from_dict(saved.step, saved.state)
        return _train(plan, run, model, saved, saved.beside, state, group, voice, helpers)


def _held(run, group):
    # Only the first rank writes, so only the first rank needs the lock.
    return run if group.rank == 0 else contextlib.nullcontext()


def _check_agreement(plan, model, state, group):
    """Refuse to begin unless all ranks have the same task: paths may differ between ranks, the content of the files may not."""
    values = [f"{name} = {value}" for name, value in plan.settings.to_dict().items() if name not in PATHS]
    group.check_same("settings", "\n".join(values))
    group.check_same("data", plan.fingerprint)
    group.check_same("checkpoint", f"step {state.step}")
    group.check_same("parameters", hashlib.sha256(model.params.flat).hexdigest())


def _begin_compiling(settings, config, group, voice):
    """Helpers that compile while the data is read; None where the kernels are compiled already or not used."""
    if settings.ops != "kernels" or group.size > 1:
        return None
    from ..kernels.runtime.warm_up import start_helpers, training_ops

    helpers = start_helpers(names=training_ops(settings.dropout > 0, config))
    if helpers is not None:
        voice("compiling the kernels for this machine, once: this takes up to half a minute")
    return helpers


def _compile_kernels(model, settings, group, voice, helpers):
    """Compile the kernels now, with a progress line, and not in the middle of the first step."""
    from ..kernels.runtime.warm_up import compile_kernels, training_ops

    names = training_ops(settings.dropout > 0, model.config)
    seconds = compile_kernels(model.dtype, group.rank == 0, settings.products, helpers, names)
    voice(f"kernels ready after {seconds:.1f} s")


def _train(plan, run, model, saved, beside, state, group, voice, helpers):
    settings, first = plan.settings, group.rank == 0
    if group.size > 1:
        _check_agreement(plan, model, state, group)
    if settings.ops == "kernels":
        _compile_kernels(model, settings, group, voice, helpers)
    model.workspace = Workspace()
    optimizer = AdamW(model.params, settings, model.ops, *group.optimizer_slice(len(model.params.flat), settings.zero))
    if saved is not None:
        optimizer.set_moments(saved.first, saved.second)
    if first:
        run.begin(settings, state.step, plan)
    with StopSignal() as stop:
        watcher = Watcher(settings, run, plan.corpus, plan.fingerprint, state, quiet=not first, voice=voice, plan=plan)
        # After the watcher, which measures the machine: the saver keeps a core busy at first.
        saver = Saver(run.checkpoints, settings.keep, model.params, beside) if first else None
        trainer = Trainer(settings, model, optimizer, plan.corpus, state, group, saver, watcher, stop)
        watcher.introduce(trainer)
        try:
            reason = trainer.run()
            if reason != SIGNALLED:
                trainer.evaluate_last()
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


class StopSignal:
    """Ctrl-C, SIGTERM and SIGHUP: after the first the run finishes its step and saves, the second ends the process at once.

    A closed terminal may send SIGHUP twice, from the shell and from the system: a SIGHUP never counts as the second. Where
    SIGHUP is ignored, as under ``nohup``, the run goes on.

    A context manager; ``number`` is the signal that came, or 0. Python lets only the main thread handle signals: in
    another thread the signals do what they did before.
    """

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in _HANDLED:
                if number == _HANGUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self):
        """The exit code that shells expect after a signal, 128 + its number; 0 without a signal."""
        return 128 + self.number if self.number else 0

    def _handle(self, number, frame):
        if self.number and number == _HANGUP:
            return
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        # os.write, because print may be what the signal interrupted
        with contextlib.suppress(OSError):
            text = f"\n{signal.Signals(number).name}: saving after this step; once more to stop at once\n"
            os.write(2, text.encode())
