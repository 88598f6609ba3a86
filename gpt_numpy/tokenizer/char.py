"""One id a character: the tokenizer of the field's character experiments.

The interface is that of ``Tokenizer``, so that a model and its trainer work with either kind.
Only the characters of the training text have an id. Any other character is refused, with its position.

>>> tokenizer = CharTokenizer.train(["hello"])
>>> tokenizer.encode("hole")
[1, 3, 2, 0]
>>> tokenizer.decode([1, 3, 2, 0])
'hole'
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import TokenizerError, VocabError
from ..files.durable import write_files
from ..wording import counted
from .formats import strict_json
from .formats.tokenizer_config import SETTINGS_FILE
from .formats.vocab_files import read_id_table
from .identity import char_identity
from .ids import Decodes, TokenJoiner, check_text
from .ragged import RaggedIds, join
from .specials import END_OF_TEXT, check_special_tokens, refuse_specials, resolve, split_specials

VOCAB_FILE = "vocab.json"


class CharTokenizer(Decodes):
    """``characters`` in the order of their ids, then ``special_tokens``."""

    def __init__(self, characters: Sequence[str], special_tokens: Sequence[str] = ()):
        special_tokens = check_special_tokens(special_tokens)
        self._texts = (*characters, *special_tokens)
        self._ids = {text: i for i, text in enumerate(self._texts)}
        if len(self._ids) != len(self._texts):
            raise VocabError("a character or special token twice")
        if any(len(character) != 1 for character in characters):
            raise VocabError("a token that is not one character")
        self._joiner = TokenJoiner([text.encode("utf-8") for text in self._texts])
        self.special_tokens = {text: self._ids[text] for text in special_tokens}
        self.dtype = np.dtype(np.uint16 if len(self._texts) <= 1 << 16 else np.uint32)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None, special_tokens: Sequence[str] = ()):
        """The tokenizer of all characters in ``texts``, in the order of their code points.

        Raises ``TokenizerError`` if ``texts`` hold no character, or if the characters and ``special_tokens`` together are
        more than ``vocab_size`` (None: no limit).
        """
        special_tokens = check_special_tokens(special_tokens)
        characters: set[str] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            check_text(text)
            for part, special in split_specials(text, special_tokens):
                if not special:
                    characters.update(part)
        if not characters:
            raise TokenizerError("there is no text to train on")
        if vocab_size is not None and len(characters) + len(special_tokens) > vocab_size:
            raise TokenizerError(
                f"{counted(len(characters), 'character')} and {len(special_tokens)} special tokens do not fit",
                field="vocab_size",
                found=vocab_size,
            )
        return cls(sorted(characters), special_tokens)

    def __repr__(self):
        specials = len(self.special_tokens)
        characters = counted(self.n_vocab - specials, "character")
        return f"<CharTokenizer: {counted(self.n_vocab, 'id')}: {characters}, {specials} special>"

    @property
    def characters(self) -> tuple[str, ...]:
        """The characters in the order of their ids, without the special tokens."""
        return tuple(text for text in self._texts if text not in self.special_tokens)

    @property
    def n_vocab(self) -> int:
        """The number of ids, special tokens included."""
        return len(self._texts)

    vocab_size = n_vocab

    @property
    def eot_id(self) -> int | None:
        """The id of ``<|endoftext|>``, or None if there is no such token."""
        return self.special_tokens.get(END_OF_TEXT)

    @property
    def begin_ids(self) -> list[int]:
        """No ids stand in front of a text, as ``Tokenizer.begin_ids`` has them."""
        return []

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides the ids of a text; equal for equal tokenizers (``identity``)."""
        return char_identity(self.characters, self.special_tokens)

    @property
    def end_of_text(self) -> str | None:
        """The text of the token ``eot_id``, or None if there is no such token."""
        return END_OF_TEXT if END_OF_TEXT in self.special_tokens else None

    def encode(
        self,
        text: str,
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
    ) -> list[int]:
        """The ids of ``text``, with the arguments and errors of ``Tokenizer.encode``; an unknown character is an error too."""
        return self.encode_to_array(
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        ).tolist()

    def encode_to_array(
        self,
        text: str,
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
    ) -> np.ndarray:
        """As ``encode``, but an array (n_tokens,) of ``self.dtype``; ``threads`` is there for the common interface."""
        check_text(text)
        allowed = resolve(self.special_tokens, allowed_special, "allowed_special")
        disallowed = resolve(self.special_tokens, disallowed_special, "disallowed_special", but=allowed)
        refuse_specials(text, disallowed, allowed)
        pieces, offset = [np.empty(0, self.dtype)], 0
        for part, special in split_specials(text, allowed):
            pieces.append(np.array([self._ids[part]], self.dtype) if special else self._encode_part(part, offset))
            offset += len(part)
        return np.concatenate(pieces)

    def _encode_part(self, text, offset) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)]
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            raise TokenizerError(
                "a character that is not in the vocabulary", offset=offset + int(unknown[0]), found=text[unknown[0]]
            )
        return ids.astype(self.dtype)

    @functools.cached_property
    def _id_of_code(self) -> np.ndarray:
        """The id of each code point up to the highest with an id; -1 for a code point without one, and at the end."""
        codes = [ord(text) for text in self._texts if text not in self.special_tokens]
        table = np.full(max(codes, default=0) + 2, -1, np.int64)
        table[codes] = range(len(codes))
        return table

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
        as_arrays: bool = False,
    ) -> list[list[int]] | RaggedIds:
        """``encode`` of each of ``texts``, as lists or (``as_arrays``) as one array of ids and one of offsets.

        ``threads`` is there for the common interface.
        """
        arrays = self.encode_batch_to_arrays(
            texts, allowed_special=allowed_special, disallowed_special=disallowed_special
        )
        return join(arrays, self.dtype) if as_arrays else [ids.tolist() for ids in arrays]

    def encode_batch_to_arrays(
        self,
        texts: Iterable[str],
        *,
        allowed_special: str | Collection[str] = (),
        disallowed_special: str | Collection[str] = "all",
        threads: int | None = None,
    ) -> list[np.ndarray]:
        """``encode_to_array`` of each of ``texts``; ``threads`` is there for the common interface."""
        return [
            self.encode_to_array(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
            for text in texts
        ]

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of ``text``, in which special tokens are text like any other."""
        return self.encode(text, disallowed_special=())

    def save(self, folder: str | os.PathLike) -> None:
        """Write ``vocab.json`` (character → id) and ``tokenizer_config.json`` into ``folder``, made if missing."""
        settings = {"tokenizer_class": type(self).__name__, "special_tokens": self.special_tokens}
        write_files(
            folder,
            {
                VOCAB_FILE: json.dumps(self._ids, ensure_ascii=False, indent=0).encode("utf-8"),
                SETTINGS_FILE: json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8"),
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike) -> CharTokenizer:
        """Read the files that ``save`` wrote; ``VocabError`` for any other content."""
        path, settings_path = Path(folder) / VOCAB_FILE, Path(folder) / SETTINGS_FILE
        settings, _ = strict_json.read(settings_path)
        if not isinstance(settings, dict) or settings.get("tokenizer_class") != cls.__name__:
            raise VocabError("not the settings of a character-level tokenizer", path=settings_path)
        table, text = strict_json.read(path)
        table = read_id_table(table, text, path)
        specials = settings.get("special_tokens", {})
        if not isinstance(specials, dict) or any(table.get(name) != i for name, i in specials.items()):
            raise VocabError(f"disagrees with {VOCAB_FILE}", path=settings_path, field="special_tokens")
        ordered = sorted(table, key=table.__getitem__)
        characters = [name for name in ordered if name not in specials]
        if ordered != characters + sorted(specials, key=specials.__getitem__):
            raise VocabError("special tokens come before characters", path=path)
        for name in characters:
            if len(name) != 1:
                raise VocabError(
                    "a token that is not one character", path=path, line=strict_json.line_of_key(text, name), found=name
                )
        return cls(characters, sorted(specials, key=specials.__getitem__))
