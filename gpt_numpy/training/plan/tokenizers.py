"""The tokenizer of a run: that of prepared shards, of the initial model, of a folder, or a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ...data import reading_of
from ...data.text.reading_record import NAME as READING
from ...errors import CheckpointMismatch, ConfigError, VocabError
from ...interop import huggingface
from ...locating import find_model, find_tokenizer
from ...tokenizer import END_OF_TEXT, CharTokenizer, Tokenizer, load_tokenizer
from ...tokenizer.formats.folders import present
from ...tokenizer.identity import tokenizer_sha256
from ..settings import is_default

TRAINED = ("bpe", "char")  # tokenizers that a run makes from its own text; never names of folders


class Choice(NamedTuple):
    """A tokenizer and its source; ``tokenizer`` is None for a tokenizer that will be trained."""

    tokenizer: Any
    why: str


def choose_tokenizer(settings, prepared=None) -> Choice:
    """The tokenizer of ``settings``; ``prepared`` is the folder of prepared data, or None.

    Raises ``ConfigError`` or ``CheckpointMismatch``, naming both, where two named tokenizers differ.
    """
    own = _of_checkpoint(find_model(settings.init_from)) if settings.init_from else None
    if prepared is not None:
        choice = Choice(load_tokenizer(Path(prepared) / "tokenizer"), f"of the prepared data in {prepared}")
    elif settings.tokenizer not in TRAINED:
        choice = Choice(_of_folder(settings.tokenizer), f"in {settings.tokenizer}")
    elif own is not None:
        _check_kind(settings, own)
        return Choice(own, f"of the model in {settings.init_from}")
    elif settings.init_from:
        raise ConfigError(
            "has no tokenizer that can be used", path=settings.init_from, field="init_from", expected="--tokenizer DIR"
        )
    else:
        return Choice(None, f"a new {settings.tokenizer} tokenizer, trained on the data")
    if own is not None and tokenizer_sha256(own) != tokenizer_sha256(choice.tokenizer):
        if choice.tokenizer.n_vocab > own.n_vocab:
            raise CheckpointMismatch(
                "the tokenizer has more tokens than the model",
                path=settings.init_from,
                field="tokenizer",
                found=f"{choice.tokenizer.n_vocab} tokens, {choice.why}",
                expected=f"the model's own, of {own.n_vocab} tokens",
            )
        raise CheckpointMismatch(
            "the tokenizer is not the model's",
            path=settings.init_from,
            field="tokenizer",
            found=f"the tokenizer {choice.why}",
            expected="the model's own: the same ids mean other text",
        )
    return choice


def agreeing(settings, choice: Choice) -> list[str]:
    """Names of the settings that the model in ``init_from`` replaces and that agree with the model."""
    config, _ = huggingface.load_config(find_model(settings.init_from))
    names = []
    if settings.vocab_size in (choice.tokenizer.n_vocab, config.vocab_size):
        names.append("vocab_size")
    preset = settings.model_config(config.vocab_size)
    same_sizes = (preset.n_layer, preset.n_head, preset.n_embd) == (config.n_layer, config.n_head, config.n_embd)
    if same_sizes and preset.differing() == config.differing():
        names.append("preset")
    return names


def _check_kind(settings, own):
    """``ConfigError`` where the kind of tokenizer named beside ``init_from`` is not the kind of the model's own."""
    kind = "char" if isinstance(own, CharTokenizer) else "bpe"
    if not is_default("tokenizer", settings.tokenizer) and settings.tokenizer != kind:
        raise ConfigError(
            "the model brings its own tokenizer",
            path=settings.init_from,
            field="tokenizer",
            found=settings.tokenizer,
            expected=f"the model's, which is {kind}, or no --tokenizer",
        )


def make_tokenizer(settings, training, validation):
    """The tokenizer that ``settings.tokenizer`` names: trained on the texts, or loaded."""
    if settings.tokenizer == "bpe":
        return Tokenizer.train(training, settings.wanted_vocab_size, ties=settings.ties)
    if settings.tokenizer == "char":
        # A character has no other spelling, so the vocabulary needs the validation text's characters too.
        specials = (END_OF_TEXT,) if len(training) + len(validation) > 2 else ()
        return CharTokenizer(CharTokenizer.train([*training, *validation]).characters, specials)
    return _of_folder(settings.tokenizer)


def _of_folder(name):
    if not Path(name).is_dir():
        raise ConfigError("no such tokenizer", field="tokenizer", found=name, expected="bpe, char or a folder")
    return load_tokenizer(find_tokenizer(name))


def _of_checkpoint(folder):
    """The tokenizer in a model's folder; None where the folder has none. A damaged tokenizer is an error."""
    if not present(Path(folder)) and not any(Path(folder).glob("*.tiktoken")):
        return None
    try:
        tokenizer = load_tokenizer(folder)
    except VocabError as error:
        raise ConfigError(f"its tokenizer cannot be used ({error})", path=folder, field="init_from") from None
    reading = reading_of(folder)
    if reading is not None and reading.tokenizer_sha256 not in ("", tokenizer_sha256(tokenizer)):
        raise CheckpointMismatch(
            "not the tokenizer that this model was trained with",
            path=folder,
            field="tokenizer",
            found=tokenizer_sha256(tokenizer)[:16],
            expected=f"{reading.tokenizer_sha256[:16]}, as its {READING} says",
        )
    return tokenizer
