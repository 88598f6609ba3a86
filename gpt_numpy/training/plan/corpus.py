"""From the settings to the tokens of a run: a tokenizer, training tokens, validation tokens."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...data import DEFAULT_STEPS, normalize, open_dataset, pack, read_documents, split_documents, token_dtype
from ...data.shards.manifest import MANIFEST, sha256_of
from ...data.text.special_text import DEFAULT_SPECIALS, document_end, encode_documents
from ...tokenizer import load_tokenizer
from ...wording import counted
from ..settings import Settings
from .tokenizers import TRAINED, make_tokenizer


class Corpus(NamedTuple):
    """tokenizer; tokens (N,), in memory or mapped from files; and for every id the number of its bytes of text."""

    tokenizer: Any
    training: Any
    validation: Any
    token_bytes: np.ndarray  # (V,), 0 for special tokens
    row_length: int = 0  # tokens of the rows that documents were fitted into; 0: no such rows
    sha256: str | None = None  # of a prepared folder's manifest
    normalize: tuple[str, ...] = DEFAULT_STEPS  # the steps that normalised the text
    shards_sha256: str | None = None  # of a prepared folder's tokens and tokenizer

    def fingerprint(self):
        """SHA-256 over all tokens, by which a resumed run recognises its data."""
        if self.shards_sha256 or self.sha256:
            return self.shards_sha256 or self.sha256
        digest = hashlib.sha256()
        for tokens in (self.training, self.validation):
            digest.update(f"{tokens.dtype.str} {len(tokens)} ".encode())
            digest.update(np.ascontiguousarray(tokens))
        return digest.hexdigest()


def load_corpus(settings: Settings, tokenizer=None, say=lambda text: None) -> Corpus:
    """The ``Corpus`` of ``settings``. A given ``tokenizer`` is used unchanged; ``say`` receives a line for every stage."""
    if len(settings.data) == 1 and os.path.lexists(Path(settings.data[0]) / MANIFEST):
        return open_prepared(settings.data[0], say, settings.validation_fraction)
    if tokenizer is None and settings.tokenizer not in TRAINED:
        tokenizer = make_tokenizer(settings, (), ())
    documents = read_texts(settings, tokenizer)
    sizes = f"{counted(len(documents), 'document')}, {counted(sum(map(len, documents)), 'character')}"
    say(f"{sizes} from {', '.join(settings.data)}")
    training, validation = split_documents(documents, settings.validation_fraction, settings.split_seed)
    twice = len(set(training).intersection(validation))
    if twice:
        say(f"warning: {counted(twice, 'document')} of the validation text also in the training text, word for word")
    if tokenizer is None:
        tokenizer = make_tokenizer(settings, training, validation)
    arrays = [encode(texts, tokenizer, settings.specials) for texts in (training, validation)]
    sizes = f"{counted(len(arrays[0]), 'token')} to train on, {len(arrays[1]):,} to validate"
    say(f"a vocabulary of {tokenizer.n_vocab:,}; {sizes}")
    return Corpus(tokenizer, arrays[0], arrays[1], token_bytes(tokenizer), normalize=settings.normalize)


def open_prepared(folder, say, validation_fraction):
    """The ``Corpus`` in a folder that ``gpt-numpy data prepare`` wrote, with the tokenizer that wrote it.

    A folder without a validation split gives its last ``validation_fraction`` of tokens (see ``TokenDataset.divided``).
    """
    dataset = open_dataset(folder)
    training, validation = dataset.divided(validation_fraction)
    tokenizer = load_tokenizer(dataset.tokenizer)
    note = "" if dataset.validation is not None else ", held out from the end as there is no validation split,"
    say(f"{counted(len(training), 'token')} to train on, {len(validation):,} to validate{note} in {folder}")
    rows, sha256 = dataset.row_length, dataset.sha256
    steps = tuple(dataset.manifest["settings"]["normalize"])
    tokens = shards_sha256(dataset.manifest)
    return Corpus(tokenizer, training, validation, token_bytes(tokenizer), rows, sha256, steps, tokens)


def shards_sha256(manifest):
    """A hash of all tokens of prepared shards and of their tokenizer, independent of the path of their text."""
    splits = {name: [shard["sha256"] for shard in split["shards"]] for name, split in manifest["splits"].items()}
    return sha256_of({"splits": splits, "tokenizer": manifest["tokenizer"], "row_length": manifest["row_length"]})


def read_texts(settings, tokenizer=None):
    """The normalised documents that ``settings.data`` names, as a list of str.

    tokenizer: the tokenizer that will encode the documents; None: one will be trained on them.
    """
    documents = read_documents(
        settings.data,
        split=settings.split,
        separator=settings.separator or None,
        text_field=settings.text_field,
        encoding=settings.encoding,
        errors=settings.errors,
        end_of_text=document_end(settings.specials, tokenizer),
    )
    return [normalize(document, settings.normalize) for document in documents]


def encode(texts, tokenizer, specials=DEFAULT_SPECIALS):
    """One array (N,) of all texts' tokens, end-of-text after each if the tokenizer has such a token.

    specials: what a special token spelled out in a text is, see ``data.text.special_text``.
    """
    dtype = token_dtype(tokenizer.n_vocab)
    ids = encode_documents(texts, tokenizer, specials)
    if tokenizer.eot_id is not None:
        return pack(ids, tokenizer.eot_id, dtype)
    return np.concatenate([np.empty(0, dtype), *(np.array(document, dtype) for document in ids)])


def token_bytes(tokenizer):
    """The number of bytes of text of each id, (V,); 0 for a special token."""
    return tokenizer.bytes_of_text()
