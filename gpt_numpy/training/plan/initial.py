"""The model that a run starts from: fresh, or a checkpoint whose learned positions may be cropped or extended."""

from __future__ import annotations

import importlib

from ...config import GPTConfig
from ...errors import CheckpointMismatch, ConfigError
from ...interop import huggingface
from ...locating import find_model
from ...model import GPT
from ...parameters import Parameters, initialise
from ..settings import Settings


def initial_config(settings: Settings, vocab_size: int) -> GPTConfig:
    """The ``GPTConfig`` of ``initial_model``, without reading any weights."""
    if not settings.init_from:
        return settings.model_config(vocab_size)
    config, _ = huggingface.load_config(find_model(settings.init_from))
    _check_vocabulary(settings, config, vocab_size)
    block_size = settings.block_size or config.block_size
    if block_size != config.block_size:
        _check_positions(config, block_size, settings.positions)
    return config.replace(dropout=settings.dropout, block_size=block_size)


def initial_parts(settings: Settings) -> GPTConfig:
    """A ``GPTConfig`` with the parts of ``initial_model``, before its vocabulary is known."""
    if not settings.init_from:
        return settings.model_config()
    return huggingface.load_config(find_model(settings.init_from))[0]


def initial_model(settings: Settings, vocab_size: int) -> GPT:
    """A ``GPT`` as ``settings`` say, for a tokenizer of ``vocab_size`` ids."""
    ops = importlib.import_module(f"...{settings.ops}", __package__)
    if not settings.init_from:
        config = settings.model_config(vocab_size)
        params = Parameters(config)
        initialise(params, config, settings.seed, settings.init_std)
        return GPT(config, ops=ops, params=params, recompute=settings.recompute, products=settings.products)
    config, params = huggingface.load(find_model(settings.init_from))
    _check_vocabulary(settings, config, vocab_size)
    config = config.replace(dropout=settings.dropout)
    block_size = settings.block_size or config.block_size
    if block_size != config.block_size:
        config, params = with_positions(config, params, block_size, settings.positions, settings.seed)
    return GPT(config, ops=ops, params=params, recompute=settings.recompute, products=settings.products)


def _check_vocabulary(settings, config, vocab_size):
    if vocab_size > config.vocab_size:
        raise CheckpointMismatch(
            "the tokenizer has more tokens than the model",
            path=settings.init_from,
            field="vocab_size",
            found=vocab_size,
            expected=f"at most {config.vocab_size}",
        )


def _check_positions(config, block_size, how):
    # Rotary positions are computed, not learned: another block size neither loses any nor adds untrained ones.
    if config.positions == "rotary":
        wanted = "keep"
    else:
        wanted = "crop" if block_size < config.block_size else "extend"
    if how != wanted:
        raise ConfigError(
            f"the checkpoint has {config.block_size} {config.positions} positions and block_size is {block_size}",
            field="positions",
            found=how,
            expected=wanted,
        )


def with_positions(config, params, block_size, how, seed):
    """(config, params) with ``block_size`` positions: the first of the old ones, new ones as at initialisation.

    how: ``crop`` loses learned positions, ``extend`` adds untrained ones; ``keep`` is for rotary positions, which are not
    parameters. Raises ``ConfigError`` unless the right one is named.
    """
    _check_positions(config, block_size, how)
    kept = min(block_size, config.block_size)
    config = config.replace(block_size=block_size)
    resized = Parameters(config, params.flat.dtype)
    if how == "extend":
        initialise(resized, config, seed)
    for name, view in resized.items():
        if name == "wpe.weight":
            view[:kept] = params[name][:kept]
        else:
            view[...] = params[name]
    return config, resized
