"""Generation from text to text, in pieces that a terminal or a program can show as soon as they come.

The ends of tokens are not always ends of characters. A token may stop inside a character (an emoji is four
bytes), and a stop string may begin in one token and end in another. Text that has been shown cannot be
taken back. Text is therefore held back while it may be part of a character or the beginning of a stop string.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import GenerationError, TokenizerError
from ..tokenizer import StreamDecoder
from ..tokenizer.specials import before_document, begun
from .generate import stream


class TextStream:
    """Turns the ids of one sequence into text, piece by piece, up to the first of ``stop`` (a list of strings).

    ``ended`` becomes true when a stop string has come. The stop string and all after it are not part of the text.
    """

    def __init__(self, tokenizer, stop=()):
        self._decoder = StreamDecoder(tokenizer)
        self._stop = check_stop(stop)
        self._held = ""
        self.ended = False

    def feed(self, token):
        """Take one more token; returns the text that can be shown, which may be empty."""
        return self._release(self._decoder.feed(int(token)))

    def finish(self):
        """The text that is still held back, when no more tokens come."""
        if self.ended:
            return ""
        text = self._release(self._decoder.finish())
        text, self._held = text + ("" if self.ended else self._held), ""
        return text

    def _release(self, piece):
        if self.ended:
            return ""
        text = self._held + piece
        found = [position for position in (text.find(stop) for stop in self._stop) if position >= 0]
        if found:
            self.ended, self._held = True, ""
            return text[: min(found)]
        hold = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def check_stop(stop):
    """``stop`` as a tuple of non-empty strings; one string is one stop string."""
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in stop:
        if not isinstance(string, str) or not string:
            raise GenerationError("not a stop string", field="stop", found=string, expected="text of any length but 0")
    return stop


def _overlap(text, stop):
    """Length of the longest suffix of ``text`` that is a proper prefix of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0


class Piece(NamedTuple):
    """A piece of the text of one sequence."""

    sequence: int
    text: str


def stream_text(model, tokenizer, prompts, max_new_tokens, *, samples=1, stop=(), stop_tokens=None, **options):
    """Yield a ``Piece`` whenever there is text to show.

    prompts      a text or a list of texts, in which special tokens are refused, since text of a user is not trusted.
                 A prompt may also be a list of token ids
    stop         a string or strings that end a text
    stop_tokens  ids that end a text; default: the tokenizer's end of text, if it has one

    The other arguments are those of ``generate.stream``. Ids that the tokenizer has no text for are never drawn.
    """
    options.setdefault("vocabulary", tokenizer.n_vocab)
    prompts = encode_prompts(tokenizer, prompts)
    if stop_tokens is None:
        stop_tokens = () if tokenizer.eot_id is None else (tokenizer.eot_id,)
    finished = set()
    tokens = stream(
        model, prompts, max_new_tokens, samples=samples, stop_tokens=stop_tokens, finished=finished, **options
    )
    yield from pieces(tokens, tokenizer, len(prompts) * samples, stop, finished)


def pieces(new_tokens, tokenizer, count, stop=(), finished=None):
    """Yield the ``Piece``s of ``count`` sequences from an iterator of ``NewToken``s.

    finished: a set to which a sequence is added when a stop string ends it. Without this set, the first stop string
    ends the iteration.
    """
    texts = [TextStream(tokenizer, stop) for _ in range(count)]
    for token in new_tokens:
        text = texts[token.sequence].feed(token.id)
        if text:
            yield Piece(token.sequence, text)
        if texts[token.sequence].ended:
            if finished is None:
                return
            finished.add(token.sequence)
    for sequence, text_stream in enumerate(texts):
        text = text_stream.finish()
        if text:
            yield Piece(sequence, text)


def start_of_text(tokenizer):
    """The ids before the first token of a text: those of ``before_document``, or else a line break.

    Raises ``GenerationError`` for a tokenizer that has neither.
    """
    if front := before_document(tokenizer):
        return front
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        raise GenerationError(
            "the prompt is empty, and this tokenizer has neither an end of text nor a line break", expected="a text"
        ) from None


def encode_prompts(tokenizer, prompts):
    """A list of lists of token ids from one prompt or several, each a text or a list of ids.

    A text has the tokenizer's ``begin_ids`` in front (``tokenizer.specials``).
    """
    single = isinstance(prompts, str) or (len(prompts) > 0 and hasattr(prompts[0], "__index__"))
    prompts = [prompts] if single else prompts
    return [
        begun(tokenizer, tokenizer.encode(prompt)) if isinstance(prompt, str) else list(prompt) for prompt in prompts
    ]
