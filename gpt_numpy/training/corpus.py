"""From the settings to what a run trains on: a tokenizer, training tokens, validation tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import (
    BUILTIN_CORPORA,
    builtin_corpus,
    normalize,
    open_dataset,
    pack,
    read_documents,
    split_documents,
    token_dtype,
)
from ..data.shards.manifest import MANIFEST
from ..errors import ConfigError, DataError
from ..tokenizer import END_OF_TEXT, CharTokenizer, Tokenizer, load_tokenizer
from ..wording import counted


class Corpus(NamedTuple):
    """tokenizer; tokens (N,), in memory or mapped from files; for every id the bytes of text that it stands for."""

    tokenizer: Any
    training: Any
    validation: Any
    token_bytes: np.ndarray  # (V,), 0 for special tokens
    row_length: int = 0  # tokens of the rows that documents were fitted into; 0: they were not
    sha256: str | None = None  # of a prepared folder

    def fingerprint(self):
        """SHA-256 over all tokens: whether a resumed run sees the data it was started with."""
        if self.sha256 is not None:
            return self.sha256
        digest = hashlib.sha256()
        for tokens in (self.training, self.validation):
            digest.update(f"{tokens.dtype.str} {len(tokens)} ".encode())
            digest.update(np.ascontiguousarray(tokens))
        return digest.hexdigest()


def load_corpus(settings, tokenizer=None, say=lambda text: None):
    """The ``Corpus`` of ``settings``. A ``tokenizer`` given is used as it is; ``say`` is told of every stage."""
    if len(settings.data) == 1 and (Path(settings.data[0]) / MANIFEST).exists():
        return open_prepared(settings.data[0], say)
    documents = read_texts(settings)
    sizes = f"{counted(len(documents), 'document')}, {counted(sum(map(len, documents)), 'character')}"
    say(f"{sizes} from {', '.join(settings.data)}")
    training, validation = split_documents(documents, settings.validation_fraction, settings.seed)
    if tokenizer is None:
        tokenizer = make_tokenizer(settings, training, validation)
    arrays = [encode(texts, tokenizer) for texts in (training, validation)]
    sizes = f"{counted(len(arrays[0]), 'token')} to train on, {len(arrays[1]):,} to validate"
    say(f"a vocabulary of {tokenizer.n_vocab:,}; {sizes}")
    return Corpus(tokenizer, *arrays, token_bytes(tokenizer))


def open_prepared(folder, say):
    """The ``Corpus`` in a folder that ``gpt-numpy data prepare`` wrote, with the tokenizer that wrote it."""
    dataset = open_dataset(folder)
    if dataset.validation is None:
        raise DataError("it has no validation text", path=folder, expected="prepared with --validation-every")
    tokenizer = load_tokenizer(dataset.tokenizer)
    say(f"{len(dataset.train):,} tokens to train on, {len(dataset.validation):,} to validate in {folder}")
    rows, sha256 = dataset.manifest["row_length"], dataset.sha256
    return Corpus(tokenizer, dataset.train, dataset.validation, token_bytes(tokenizer), rows, sha256)


def read_texts(settings):
    """The normalised documents that ``settings.data`` names, as a list of str."""
    documents = []
    for source in settings.data:
        if source in BUILTIN_CORPORA and not Path(source).exists():
            documents += builtin_corpus(source)
        else:
            separator = settings.separator or None
            documents += read_documents([source], separator=separator, errors=settings.errors)
    return [normalize(document) for document in documents]


def make_tokenizer(settings, training, validation):
    """The tokenizer that ``settings.tokenizer`` names: trained on the texts, or loaded."""
    if settings.tokenizer == "bpe":
        return Tokenizer.train(training, settings.wanted_vocab_size)
    if settings.tokenizer == "char":
        # Characters cannot be made of others, so the vocabulary has to have those of the validation text too.
        specials = (END_OF_TEXT,) if len(training) + len(validation) > 2 else ()
        return CharTokenizer.train([*training, *validation], special_tokens=specials)
    if not Path(settings.tokenizer).is_dir():
        raise ConfigError(
            "no such tokenizer", field="tokenizer", found=settings.tokenizer, expected="bpe, char or a folder"
        )
    return load_tokenizer(settings.tokenizer)


def encode(texts, tokenizer):
    """One array (N,) of all texts' tokens, end-of-text after each if the tokenizer has such a token."""
    dtype = token_dtype(tokenizer.n_vocab)
    ids = (tokenizer.encode_ordinary(text) for text in texts)
    if tokenizer.eot_id is not None:
        return pack(ids, tokenizer.eot_id, dtype)
    return np.concatenate([np.empty(0, dtype), *(np.array(document, dtype) for document in ids)])


def token_bytes(tokenizer):
    """How many bytes of text each id stands for, (V,); a special token stands for none."""
    sizes = np.array([len(tokenizer.decode_bytes([i])) for i in range(tokenizer.n_vocab)], np.int64)
    sizes[list(tokenizer.special_tokens.values())] = 0
    return sizes
