"""``vocab.json`` and ``merges.txt``, as OpenAI published GPT-2's and as Hugging Face keeps them.

OpenAI calls the two files ``encoder.json`` and ``vocab.bpe``; the content is the same. The table maps
each token's spelling (see ``byte_alphabet``) to its id; the other file has one merge a line, in order, after
a version line. A third file, ``tokenizer_config.json``, holds what these two cannot say: which tokens are special
(as ``transformers`` writes it) and the pre-tokenization pattern (our own key). Without it, ``<|endoftext|>`` is
the one special token there may be, as in GPT-2.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import VocabError
from . import strict_json
from .byte_alphabet import spell, unspell
from .pretokenize import GPT2_PATTERN, compile_pattern
from .specials import END_OF_TEXT
from .vocabulary import Origin, Vocabulary

VERSION_LINE = "#version: 0.2"
SETTINGS_FILE = "tokenizer_config.json"
FILE_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def read_bytes(path: Path) -> bytes:
    """The content of the regular file ``path``; a FIFO or device, which might never end, is refused."""
    if path.exists() and not path.is_file():
        raise VocabError("not a regular file", path=path)
    return path.read_bytes()


def load_folder(folder: Path) -> Vocabulary:
    """The vocabulary in ``folder``, from either pair of file names and the settings file if there is one."""
    for vocab_name, merges_name in FILE_PAIRS:
        if (folder / vocab_name).exists() and (folder / merges_name).exists():
            settings = folder / SETTINGS_FILE
            return read_vocabulary(folder / vocab_name, folder / merges_name, settings if settings.exists() else None)
    raise VocabError("no tokenizer here", path=folder,
                     expected=" or ".join(f"{first} and {second}" for first, second in FILE_PAIRS))


def read_vocabulary(vocab_path: Path, merges_path: Path, settings_path: Path | None = None) -> Vocabulary:
    """The vocabulary of the two files; every fault is a ``VocabError`` with its file and line."""
    text = strict_json.decode_utf8(read_bytes(vocab_path), vocab_path)
    table = read_id_table(strict_json.loads(text, vocab_path), text, vocab_path)
    specials, pattern = {END_OF_TEXT: table[END_OF_TEXT]} if END_OF_TEXT in table else {}, GPT2_PATTERN
    if settings_path is not None:
        declared, pattern = read_settings(settings_path)
        if declared is not None:
            specials = merge_special_tokens(table, declared, settings_path)
    merges, lines = read_merges(merges_path, table)
    origin = _FileOrigin(vocab_path, text, table, merges_path, lines)
    return Vocabulary(tokens_of(table, specials, origin), merges, specials, pattern, origin)


class _FileOrigin(Origin):
    def __init__(self, vocab_path, vocab_text, table, merges_path, merge_lines):
        self.vocab_path, self.vocab_text, self.table = vocab_path, vocab_text, table
        self.merges_path, self.merge_lines = merges_path, merge_lines

    def token(self, i):
        key = next((key for key, value in self.table.items() if value == i), "")
        return {"path": self.vocab_path, "line": strict_json.line_of_key(self.vocab_text, key), "field": f"id {i}"}

    def merge(self, rank):
        return {"path": self.merges_path, "line": self.merge_lines[rank]}

    def whole(self):
        return {"path": self.vocab_path}


def read_id_table(table, text: str, path: Path) -> dict[str, int]:
    """``table`` (the JSON value in ``text``), checked to be a table of distinct ids from 0 without a gap."""
    if not isinstance(table, dict):
        raise VocabError("not a table of tokens", path=path, found=type(table).__name__, expected="a JSON object")
    owners: dict[int, str] = {}
    for key, i in table.items():
        problem = ("has an id that is no whole number" if type(i) is not int else
                   "has a negative id" if i < 0 else
                   f"has the id of {owners[i]!r} too" if i in owners else None)
        if problem:
            raise VocabError(f"the token {key!r} {problem}", path=path, line=strict_json.line_of_key(text, key),
                             found=i)
        owners[i] = key
    if owners and max(owners) != len(owners) - 1:
        last, gap = max(owners), next(gap for gap in range(len(owners)) if gap not in owners)
        raise VocabError(f"no token has the id {gap}, yet {owners[last]!r} has {last}", path=path,
                         line=strict_json.line_of_key(text, owners[last]))
    return table


def tokens_of(table: dict[str, int], specials: dict[str, int], origin: Origin) -> tuple[bytes, ...]:
    """The bytes of each id: ordinary tokens unspelled, special ones as their text."""
    tokens = [b""] * len(table)
    for text, i in table.items():
        try:
            tokens[i] = text.encode("utf-8") if text in specials else unspell(text)
        except ValueError as error:
            raise VocabError(f"the token {text!r} is neither special nor spelled in GPT-2's byte alphabet ({error})",
                             **origin.token(i)) from None
    return tuple(tokens)


def read_merges(path: Path, table: dict[str, int]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """The merges of ``path`` as pairs of ids, and the line of each."""
    text = strict_json.decode_utf8(read_bytes(path), path)
    rows = text.split("\n")
    if rows.pop() != "":
        raise VocabError("the last line does not end (is the file cut off?)", path=path, line=len(rows) + 1)
    if not rows:
        raise VocabError("empty", path=path, line=1, expected=f"{VERSION_LINE!r} and one merge a line")
    merges: dict[tuple[int, int], int] = {}
    for line, row in enumerate(rows, 1):
        if line == 1 and row.startswith("#version:") and not row.endswith("\r"):
            continue
        if row.endswith("\r"):
            raise VocabError("a carriage return", path=path, line=line, expected="lines that end in \\n alone")
        parts = row.split(" ")
        if len(parts) != 2 or not all(parts):
            raise VocabError("not a merge", path=path, line=line, found=row, expected="two tokens and one space")
        for part in parts:
            if part not in table:
                raise VocabError("a merge of an unknown token", path=path, line=line, found=part)
        pair = table[parts[0]], table[parts[1]]
        if pair in merges:
            raise VocabError(f"the merge of line {merges[pair]} again", path=path, line=line, found=row)
        merges[pair] = line
    return tuple(merges), list(merges.values())


def read_settings(path: Path) -> tuple[dict[str, int] | None, str]:
    """Special tokens (None: not declared) and the pattern from a ``tokenizer_config.json``."""
    settings = strict_json.loads(strict_json.decode_utf8(read_bytes(path), path), path)
    if not isinstance(settings, dict):
        raise VocabError("not a table of settings", path=path, found=type(settings).__name__, expected="a JSON object")
    pattern = settings.get("pattern", GPT2_PATTERN)
    if not isinstance(pattern, str):
        raise VocabError("not a pattern", path=path, field="pattern", found=pattern, expected="a string")
    compile_pattern(pattern)
    declared = settings.get("added_tokens_decoder")
    if declared is None:
        return None, pattern
    if not isinstance(declared, dict):
        raise VocabError("not a table", path=path, field="added_tokens_decoder", found=declared)
    specials: dict[str, int] = {}
    for key, entry in declared.items():
        where = f"added_tokens_decoder.{key}"
        if not (key.isascii() and key.isdigit()):
            raise VocabError("not an id", path=path, field=where)
        text = added_token_text(entry, path, where)
        if text in specials:
            raise VocabError("the same special token twice", path=path, field=where, found=text)
        specials[text] = int(key)
    return specials, pattern


def added_token_text(entry, path: Path, where: str) -> str:
    """The text of one of Hugging Face's added tokens; what only their library can do with one is refused."""
    text = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text:
        raise VocabError("not an added token", path=path, field=where, found=entry, expected="an object with content")
    for flag in ("lstrip", "rstrip", "single_word"):
        if entry.get(flag):
            raise VocabError(f"{flag} is set, which is not supported", path=path, field=where)
    return text


def merge_special_tokens(table: dict[str, int], declared: dict[str, int], path: Path) -> dict[str, int]:
    """Check ``declared`` specials against the id ``table`` and add those that it lacks."""
    for text, i in sorted(declared.items(), key=lambda item: item[1]):
        if table.get(text, i) != i:
            raise VocabError(f"the special token {text!r} has another id in the vocabulary ({table[text]})",
                             path=path, found=i)
        if text not in table:
            if i != len(table):
                raise VocabError(f"the special token {text!r} is not in the vocabulary", path=path, found=i,
                                 expected=f"its next id, {len(table)}")
            table[text] = i
    return declared


def id_table(vocabulary: Vocabulary) -> dict[str, int]:
    """token's spelling (or a special token's text) → id, in the order of ids."""
    names = {i: text for text, i in vocabulary.special_tokens.items()}
    return {names.get(i) or spell(token): i for i, token in enumerate(vocabulary.tokens)}


def format_merges(vocabulary: Vocabulary) -> bytes:
    """The content of ``merges.txt``."""
    spelled = [spell(token) for token in vocabulary.tokens]
    lines = [VERSION_LINE, *(f"{spelled[left]} {spelled[right]}" for left, right in vocabulary.merges), ""]
    return "\n".join(lines).encode("utf-8")


def format_vocab(vocabulary: Vocabulary) -> bytes:
    """The content of ``vocab.json``: one token a line, so that a difference is a line too."""
    return json.dumps(id_table(vocabulary), ensure_ascii=False, indent=0).encode("utf-8")


def format_settings(vocabulary: Vocabulary) -> bytes:
    """The content of ``tokenizer_config.json``, in ``transformers``' words but for ``pattern``."""
    end_of_text = END_OF_TEXT if END_OF_TEXT in vocabulary.special_tokens else None
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "pattern": vocabulary.pattern,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "unk_token": end_of_text,
        "added_tokens_decoder": {
            str(i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": True}
            for text, i in sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
        },
    }
    return json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8")


def format_folder(vocabulary: Vocabulary) -> dict[str, bytes]:
    """All files of a saved tokenizer, name → content."""
    return {
        "vocab.json": format_vocab(vocabulary),
        "merges.txt": format_merges(vocabulary),
        SETTINGS_FILE: format_settings(vocabulary),
    }
