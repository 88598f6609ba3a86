"""Encoders of other libraries with the vocabulary of one of our tokenizers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gpt_numpy.tokenizer import GPT2_PATTERN


def tiktoken_of(tokenizer):
    """tiktoken's encoder of the same ranks, built without a download."""
    import tiktoken

    special_ids = set(tokenizer.special_tokens.values())
    ranks = {token: i for i, token in enumerate(tokenizer.vocabulary.tokens) if i not in special_ids}
    return tiktoken.Encoding("same", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})


def tokenizers_of(tokenizer):
    """Hugging Face's encoder, read from the file that our tokenizer writes."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return tokenizers.Tokenizer.from_file(str(Path(folder, "tokenizer.json")))


def peers_of(tokenizer):
    """name → (function of one text, function of many texts or None) of the installed fast libraries; both return ids."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        path = str(Path(folder, "tokenizer.json"))
        peers = {}
        for name, load in (("gigatoken", gigatoken_of), ("fastokens", _fastokens), ("tokie", _tokie)):
            try:
                peers[name] = load(path)
            except ImportError:
                print(f"  {name} is not installed: left out")
    return peers


def gigatoken_of(path):
    """(function of one text, function of many) of a new gigatoken tokenizer."""
    import gigatoken

    theirs = gigatoken.Tokenizer(path)
    return theirs.encode, lambda texts: theirs.encode_batch(texts, parallel=False)


def _fastokens(path):
    import fastokens

    theirs = fastokens.Tokenizer.from_file(path)
    return lambda text: theirs.encode(text, add_special_tokens=False).ids, None


def _tokie(path):
    import tokie

    theirs = tokie.Tokenizer.from_json(path)
    return lambda text: theirs.encode(text, add_special_tokens=False).ids, None
