"""From ``Settings``, or from a run's folder, to a ``Plan``: all decisions before the first step.

This module, or a module that it calls, makes every check of one setting against another and against the data and the
model. A plan is made before anything is written, so a refused start leaves no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...config import GPTConfig
from ...data import Reading
from ...errors import ConfigError, DataError
from ...locating import describe
from ...machine import memory
from ...machine.cost import training_memory
from ...parameters import table
from ...tokenizer.identity import tokenizer_sha256
from ...wording import counted
from ..optimizer import unmatched_groups
from ..settings import RESUMABLE, Settings
from .batches import Batches
from .corpus import Corpus, load_corpus
from .initial import initial_config
from .inputs import circumstances, located, places_to_look, prepared_folder
from .relevance import Circumstances, check_relevant, unused
from .tokenizers import Choice, agreeing, choose_tokenizer

DTYPE = np.float32  # of parameters, gradients and moments


class Share(NamedTuple):
    """One rank's share of a step, and the memory for that share."""

    ranks: int
    rows: int  # of the global batch, for the rank with the largest share
    rows_at_a_time: int
    memory: int  # bytes, of this rank
    machine_memory: int  # bytes, of all ranks on this rank's machine


class Plan(NamedTuple):
    """The resolved plan of a run. Every one of ``settings`` has an effect, or its default value."""

    settings: Settings
    circumstances: Circumstances
    tokenizer: Choice
    corpus: Corpus
    sources: list[str]  # absolute paths of the data
    reading: Reading
    batches: Batches
    config: GPTConfig
    weights: str  # the source of the first parameters, in words
    share: Share
    fingerprint: str  # SHA-256 of the tokens

    @property
    def unused(self) -> dict[str, str]:
        """Name → the condition that is not met, for the settings without effect."""
        return unused(self.settings, self.circumstances)


def plan_run(settings: Settings, group, say: Callable[[str], Any] = lambda text: None, given: Iterable[str] = ()):
    """The ``Plan`` of a new run. Raises the project's errors; see ``check_relevant`` for ``given``."""
    if settings.init_from and (taken := describe(settings.init_from)):
        say(taken)
    facts = circumstances(settings, _mpi(group))
    folder = prepared_folder(settings.data)
    choice = choose_tokenizer(settings, folder)
    _check_numbers(settings)
    accepted = agreeing(settings, choice) if settings.init_from else []
    check_relevant(settings, facts, given, accepted)
    if not settings.init_from:
        settings.model_config()  # a shape that no model can have is refused before any text is read
    corpus = load_corpus(settings, choice.tokenizer, say)
    choice = choice._replace(tokenizer=corpus.tokenizer)
    config = initial_config(settings, corpus.tokenizer.n_vocab)
    weights = f"the model in {settings.init_from}" if settings.init_from else f"drawn with seed {settings.seed}"
    return _planned(settings, facts, choice, corpus, config, weights, group)


def plan_resumed(saved, changes, run, group, say: Callable[[str], Any] = lambda text: None):
    """The ``Plan`` of the run in the folder ``run`` from the ``Checkpoint`` ``saved`` on.

    ``changes`` are settings to change. Raises ``DataError`` unless the data's hash is that of the run's start.
    """
    settings = resumed_settings(saved, changes, run, group)
    recorded = saved.state.get("sources", [])
    places = [settings.data] if "data" in changes else places_to_look(settings.data, recorded, Path(run))
    refusals: list[DataError] = []
    for data in places:
        try:
            there = settings.replace(data=data)
            facts = circumstances(there, _mpi(group))
            prepared_folder(data)
            corpus = load_corpus(there, saved.tokenizer, say)
            _check_same_text(corpus, saved, run)
            break
        except DataError as error:
            refusals.append(error)
    else:
        raise refusals[0]
    check_relevant(there, facts, changes, accepted=("vocab_size", "preset", "tokenizer", "data"), only=changes)
    choice = Choice(saved.tokenizer, f"of the checkpoint of step {saved.step}")
    return _planned(there, facts, choice, corpus, saved.config, f"the checkpoint of step {saved.step}", group)


def resumed_settings(saved, changes, run, group) -> Settings:
    """The settings of the ``Checkpoint`` ``saved`` with ``changes``; ``ConfigError`` for a setting that cannot change."""
    fields = dict(saved.state["settings"])
    fields.setdefault("split_seed", fields["seed"])  # older runs had one seed for both
    settings = Settings.from_mapping(fields)
    for name, value in changes.items():
        if name not in RESUMABLE and name != "data" and getattr(settings, name) != value:
            raise ConfigError(
                "cannot change in a run that has begun",
                path=run,
                field=name,
                found=value,
                expected=repr(getattr(settings, name)),
            )
    if not _mpi(group):  # a run of several ranks may go on as one
        changes = {"zero": False, "gradient_sums": "float32", **changes}
    return settings.replace(**changes)


def _mpi(group):
    return getattr(group, "mpi", False)


def _check_same_text(corpus, saved, run):
    expected = saved.state["data_sha256"]
    if expected not in (corpus.fingerprint(), corpus.sha256):
        raise DataError(
            "not the data that this run was started with",
            path=run,
            field="data",
            found=corpus.fingerprint()[:16],
            expected=expected[:16],
        )


def _check_numbers(settings):
    """Check that the update's numbers are finite in the dtype of the parameters, and that the divisor is not 0."""
    for name in ("learning_rate", "weight_decay", "epsilon", "clip", "init_std"):
        with np.errstate(over="ignore"):
            value = DTYPE(getattr(settings, name))
        if not np.isfinite(value):
            raise ConfigError(f"too large for {DTYPE.__name__}", field=name, found=getattr(settings, name))
    if DTYPE(settings.epsilon) == 0:
        raise ConfigError(
            f"is 0 in {DTYPE.__name__}: a parameter without a gradient would become 0 / 0",
            field="epsilon",
            found=settings.epsilon,
            expected=f"at least {np.finfo(DTYPE).tiny:.1e}",
        )


def _planned(settings, facts, choice, corpus, config, weights, group):
    if settings.batch_size < group.size:
        raise ConfigError(
            "every rank needs a sequence",
            field="batch_size",
            found=settings.batch_size,
            expected=f"at least {group.size}",
        )
    lost = unmatched_groups(settings.decay_groups, table(config))
    if lost:
        raise ConfigError("no tensor of the model has this name", field="decay_groups", found=lost[0])
    _check_lengths(settings, corpus, config)
    batches = Batches(settings, corpus, config.block_size)
    batches.check_targets()
    reading = _reading(settings, corpus, batches)
    if settings.sample_every and settings.prompt:
        corpus.tokenizer.encode_ordinary(reading.normalized(settings.prompt))  # TokenizerError: it cannot be encoded
    share = _share(settings, config, group)
    fingerprint = corpus.fingerprint()
    sources = located(settings.data)
    return Plan(settings, facts, choice, corpus, sources, reading, batches, config, weights, share, fingerprint)


def _check_lengths(settings, corpus, config):
    """Check that both texts have tokens for a window. A validation text shorter than a block is one short window."""
    for split, tokens, needed in (
        ("training", corpus.training, config.block_size + 1),
        ("validation", corpus.validation, 2),
    ):
        if len(tokens) < needed:
            raise DataError(
                f"the {split} text has {counted(len(tokens), 'token')}",
                path=" ".join(settings.data),
                expected=f"at least {needed}: a block of {needed - 1} and the token after it. More text is needed"
                + (", or a smaller --block-size" if split == "training" else ", or a larger --validation-fraction"),
            )


def _reading(settings, corpus, batches):
    names = ("split", "separator", "text_field", "encoding", "errors", "specials")
    return Reading(
        normalize=corpus.normalize,
        **{name: getattr(settings, name) for name in names},
        documents=settings.documents,
        block_size=batches.block_size,
        row_length=corpus.row_length,
        tokenizer_sha256=tokenizer_sha256(corpus.tokenizer),
    )


def _share(settings, config, group):
    """The largest share of a rank, checked against the memory of a machine, which all ranks on the machine share."""
    rows = -(-settings.batch_size // group.size)
    at_a_time = min(settings.micro_batch_size or rows, rows)
    parts = training_memory(config, at_a_time, config.block_size, settings.recompute, settings.products)
    moments = parts["moments of AdamW"]
    if settings.zero:
        parts["moments of AdamW"] = -(-moments // group.size)
    needed = sum(parts.values())
    if group.rank == 0:  # rank 0 holds the copy for a checkpoint; with ZeRO it gathers the moments first
        needed += parts["parameters"] + moments + (moments if settings.zero and group.size > 1 else 0)
    together, ranks_here = group.sum_on_machine([needed, 1])
    ranks = "" if group.size == 1 else f" for the {ranks_here:.0f} ranks on this machine, {needed:,} for this one"
    memory.check_free(int(together), ranks)
    return Share(group.size, rows, at_a_time, needed, int(together))
