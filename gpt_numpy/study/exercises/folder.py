"""The reader's folder: one file an exercise, the state of each, and a training run with the reader's functions."""

from __future__ import annotations

import math
import types
from pathlib import Path

import numpy as np

from ... import layers
from ...config import GPTConfig
from ...data import batch
from ...errors import ConfigError
from ...model import GPT
from ...tokenizer import CharTokenizer
from ..bugs.at_the_interface import with_into
from . import stubs
from .catalogue import EXERCISES, Exercise
from .checking import NOT_WRITTEN, RIGHT, Verdict, check_text

TEXT = "the cat sat on the mat. the rat sat on the cat. the cat sat on the hat. " * 20


def write(exercise: Exercise, folder: Path, level: str = "function", again: bool = False) -> Path:
    """Write the exercise's stub into ``folder``; a file that the reader has changed is replaced only with ``again``."""
    path = folder / exercise.file_name
    text = stubs.stub(exercise, level)
    known = {stubs.stub(exercise, level) for level in stubs.LEVELS}
    if path.exists() and not again and path.read_text(encoding="utf-8") not in known:
        raise ConfigError("this file has been worked on", path=path, expected="--check, or --again to start anew")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def check_file(exercise: Exercise, folder: Path) -> Verdict:
    """The verdict on the reader's file; a file that is not there is not written."""
    path = folder / exercise.file_name
    if not path.exists():
        command = f"'gpt-numpy study exercise {exercise.name}' writes {path}"
        return Verdict(exercise.name, NOT_WRITTEN, (command,))
    return check_text(exercise, path.read_text(encoding="utf-8"), str(path))


def states(folder: Path) -> dict[str, str]:
    """Exercise → "untouched", "wrong" or "right", in the order of the lessons."""
    found = {}
    for name, exercise in EXERCISES.items():
        state = check_file(exercise, folder).state if (folder / exercise.file_name).exists() else NOT_WRITTEN
        found[name] = "untouched" if state == NOT_WRITTEN else state
    return found


class Written(types.SimpleNamespace):
    """The functions that the reader has written so far: ``ops``, ``gpt``, ``adamw_update``; the exercises' ``names``."""


def written(folder: Path) -> Written:
    """The package's functions, replaced by the right ones in ``folder``. Refuses a folder that holds a wrong file."""
    ops = {name: getattr(layers, name) for name in layers.__all__}
    found = Written(gpt=GPT, names=[])
    for name, state in states(folder).items():
        if state == "wrong":
            raise ConfigError("a wrong exercise cannot train", field=name, expected=f"{name} --check to be right")
        exercise = EXERCISES[name]
        if state != RIGHT:
            continue
        namespace = {"__name__": f"exercise_{name}"}
        path = folder / exercise.file_name
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
        own = {n: namespace[n] for n in (*exercise.written, *exercise.forwards) if n in namespace and n in ops}
        ops.update({n: _fresh(f) if "backward" in n or "gradients" in n else f for n, f in own.items()})
        if exercise.of_class and exercise.of_class in namespace:
            found.gpt = namespace[exercise.of_class]
        elif not own:
            continue  # a program that training does not use
        found.names.append(name)
    if not found.names:
        raise ConfigError("nothing to train with", path=folder, expected="at least one exercise that is right")
    found.ops = types.SimpleNamespace(**ops, __all__=layers.__all__)
    return found


def train(found: Written, n_steps: int = 60, report=print) -> list[float]:
    """Train a small model on a nursery rhyme with the reader's functions; returns the losses."""
    tokenizer = CharTokenizer.train([TEXT])
    tokens = np.array(tokenizer.encode(TEXT))
    config = GPTConfig(tokenizer.n_vocab, block_size=24, n_layer=2, n_head=2, n_embd=32)
    model = found.gpt(config, ops=found.ops)
    flat, edges = model.params.flat, np.array([0, model.params.flat.size])
    first_moments, second_moments = np.zeros_like(flat), np.zeros_like(flat)
    losses = []
    for step in range(1, n_steps + 1):
        inputs, targets = batch(tokens, batch_size=8, block_size=24, seed=0, step=step)
        model.zero_gradients()
        losses.append(model.loss(inputs, targets))
        model.backward()
        scale = min(1.0, 1.0 / layers.gradient_norm(model.grads.flat))
        moments = first_moments, second_moments
        found.ops.adamw_update(
            flat, model.grads.flat, *moments, edges, np.zeros(1), 5e-3, 0.9, 0.99, 1e-8, step, gradient_scale=scale
        )
        if step == 1 or step % 10 == 0:
            report(f"step {step:3}  loss {losses[-1]:.3f}")
    return losses


def loss_of_nothing() -> float:
    """Loss of a model that gives every character of the rhyme the same probability: log V."""
    return math.log(len(set(TEXT)))


def _fresh(backward):
    """``backward`` with the keyword ``into``, returning new arrays, since the model adds to the returned arrays."""

    def own_arrays(*args, alloc=None, **kwargs):
        gradients = backward(*args, **kwargs)
        if isinstance(gradients, tuple):
            return tuple(np.array(g) for g in gradients)
        return np.array(gradients)

    return with_into(own_arrays)
