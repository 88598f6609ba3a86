"""Three measures of a model on local files: perplexity, the next word as in LAMBADA, multiple choice as in HellaSwag."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..files.regular import read_regular
from ..tokenizer.specials import begun
from .likelihood import BATCH, continuations, text_logprobs


class Perplexity(NamedTuple):
    """Figures of several texts together. Each text is scored by itself; its first token is context only."""

    tokens: int  # number of scored tokens
    nats: float  # their negative log-probability
    n_bytes: int  # of the tokens scored

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of text. Unlike the loss, this figure can be compared between tokenizers."""
        return self.nats / math.log(2) / max(self.n_bytes, 1)

    def figures(self) -> dict[str, Any]:
        """Name → number, as ``gpt-numpy eval --json`` writes them."""
        measured = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return {"tokens": self.tokens, **measured}


class LastWord(NamedTuple):
    """Figures of passages whose last word the model predicts (Paperno et al. 2016)."""

    passages: int
    right: int  # passages where every token of the last word was the most probable one
    nats: float  # negative log-probability of all last words

    @property
    def accuracy(self) -> float:
        return self.right / self.passages

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a word (not of a token)."""
        return math.exp(self.nats / self.passages)

    def figures(self) -> dict[str, Any]:
        return {"passages": self.passages, "accuracy": self.accuracy, "perplexity": self.perplexity}


class Choices(NamedTuple):
    """Figures of questions with several endings, of which one is right (Zellers et al. 2019)."""

    questions: int
    right: int  # questions where the right ending was the most probable
    right_normalised: int  # … where it had the highest log-probability a character

    @property
    def accuracy(self) -> float:
        return self.right / self.questions

    @property
    def accuracy_normalised(self) -> float:
        return self.right_normalised / self.questions

    def figures(self) -> dict[str, Any]:
        measured = {"accuracy": self.accuracy, "accuracy_normalised": self.accuracy_normalised}
        return {"questions": self.questions, **measured}


def perplexity(model, tokenizer, texts: Iterable[str], stride: int | None = None) -> Perplexity:
    """The ``Perplexity`` of ``texts``: windows of the model's context, ``stride`` tokens apart (default: half of it)."""
    tokens, nats, n_bytes = 0, 0.0, 0
    for text in texts:
        ids, begin = tokenizer.encode_ordinary(text), tokenizer.begin_ids
        logprobs = text_logprobs(model, begin + ids, stride)[max(len(begin), 1) - 1 :]  # of the text's own tokens
        tokens, nats = tokens + len(logprobs), nats - float(logprobs.sum())
        n_bytes += len(text.encode("utf-8")) - (0 if begin else len(tokenizer.decode_bytes(ids[:1])))
    if not tokens:
        raise DataError("no text to evaluate on")
    return Perplexity(tokens, nats, n_bytes)


def next_word(
    model, tokenizer, passages: Iterable[str], batch: int = BATCH, progress: Callable[[int], None] | None = None
) -> LastWord:
    """The ``LastWord`` of passages: how often greedy decoding gives the last word. Words end at white space."""
    pairs = []
    for passage in passages:
        context, _, word = passage.rstrip().rpartition(" ")
        if not context.strip() or not word:
            raise DataError("a passage of at least two words is needed", found=passage[:60])
        pairs.append(encode_pair(tokenizer, context, f" {word}"))
    found = []
    for one in continuations(model, pairs, batch):
        found.append(one)
        if progress is not None:
            progress(1)
    if not found:
        raise DataError("no passage to evaluate on")
    return LastWord(len(found), sum(one.greedy for one in found), -sum(one.total for one in found))


def multiple_choice(
    model,
    tokenizer,
    questions: Iterable[tuple[str, list[str], int]],
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Choices:
    """The ``Choices`` of questions: how often the right one of several endings is the most probable after its context.

    questions: (context, endings, index of the right one); an ending follows the context after one space.
    """
    questions = list(questions)
    if not questions:
        raise DataError("no question to evaluate on")
    pairs = [encode_pair(tokenizer, c, f" {ending}") for c, endings, _ in questions for ending in endings]
    found = iter(continuations(model, pairs, batch))
    right = right_normalised = 0
    for _, endings, answer in questions:
        totals = np.array([next(found).total for _ in endings])
        right += int(totals.argmax()) == answer
        right_normalised += int((totals / [max(1, len(ending)) for ending in endings]).argmax()) == answer
        if progress is not None:
            progress(1)
    return Choices(len(questions), right, right_normalised)


def encode_pair(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of its continuation, divided at the token boundary nearest to the context's end.

    Both are encoded as one text, as the model saw text in training, after the tokenizer's ``begin_ids``. White space at the
    end of the context belongs to the continuation, because GPT-2's tokens begin with white space.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation if kept else continuation
    first = tokenizer.encode_ordinary(kept or context)
    whole = tokenizer.encode_ordinary((kept or context) + continuation)
    return begun(tokenizer, first), whole[len(first) :]


# ---- files ---------------------------------------------------------------------------------------------------


def read_passages(path: str | Path) -> list[str]:
    """Passages of a LAMBADA-like file: JSON objects with a ``text``, one a line; or one passage a line."""
    if not str(path).endswith((".jsonl", ".ndjson", ".json")):
        return [line for line in _lines(path) if line.strip()]
    return [_field(record, ("text",), str, path, number) for number, record in _records(path)]


def read_questions(path: str | Path) -> list[tuple[str, list[str], int]]:
    """Questions of a HellaSwag-like file: JSON objects with ``ctx``, ``endings`` and ``label``, one a line.

    The names ``context``, ``choices`` and ``answer`` are accepted too. The label counts from 0.
    """
    questions = []
    for number, record in _records(path):
        context = _field(record, ("ctx", "context"), str, path, number)
        endings = _field(record, ("endings", "choices"), list, path, number)
        label = _field(record, ("label", "answer"), (int, str), path, number)
        if len(endings) < 2 or not all(isinstance(ending, str) and ending.strip() for ending in endings):
            raise DataError("not a list of endings", path=path, line=number, expected="two texts or more")
        if not str(label).isdigit() or int(label) >= len(endings):
            expected = f"0 to {len(endings) - 1}"
            raise DataError("no such ending", path=path, line=number, field="label", found=label, expected=expected)
        questions.append((context, endings, int(label)))
    return questions


def _records(path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON ({error})", path=path, line=number) from None
        if not isinstance(record, dict):
            raise DataError("not a JSON object", path=path, line=number)
        yield number, record


def _field(record, names, kinds, path, number):
    for name in names:
        if isinstance(record.get(name), kinds) and not isinstance(record[name], bool):
            return record[name]
    raise DataError("a field is missing", path=path, line=number, expected=" or ".join(names))


def _lines(path) -> list[str]:
    try:
        return read_regular(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", path=path, offset=error.start) from None
