"""``tokenizer_config.json`` and two files beside it: settings that a tokenizer's other files do not hold.

``tokenizer_config.json``    added tokens (under ``added_tokens_decoder``, as ``transformers`` writes them), the names of
                             special tokens, the prefix space; the pre-tokenization pattern and the version of
                             Unicode that defines letters are keys of our own, which other programs ignore. A file
                             without ``unicode_version`` means the package's own version. Entries that decide no
                             id, such as ``chat_template``, are kept and written again as they are
``chat_template.jinja``      the chat template of a newer ``transformers``, kept as it is
``added_tokens.json``        added tokens of an older ``transformers``: text → id
``special_tokens_map.json``  which tokens are special, by name or with flags

An added token is found in a text before the pattern is applied. A special one is recognised only where the caller
allows it; a plain one is recognised in every text.

``add_bos_token`` puts the ``bos_token`` in front of every text where there is no ``tokenizer.json``, which says so itself:
as in ``transformers``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ... import unicode
from ...errors import TokenizerError, VocabError
from ...files.regular import read_regular
from ..pretokenize import GPT2_PATTERN, compile_pattern
from ..reference import TIES
from ..specials import END_OF_TEXT
from ..vocabulary import NORMAL_FORMS, Extras, Origin, Vocabulary
from . import strict_json

SETTINGS_FILE = "tokenizer_config.json"
ADDED_FILE = "added_tokens.json"
SPECIALS_FILE = "special_tokens_map.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
# The names under which transformers keeps special tokens, in both files.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE = "additional_special_tokens"
# Entries that are made from the vocabulary, and ``auto_map``, which names files of code that are not kept.
_MADE = (
    *("tokenizer_class", "pattern", "unicode_version", "add_prefix_space", "added_tokens_decoder"),
    *("normal_form", "ignore_merges", "begin_of_text", "ties", "auto_map"),
)


@dataclass
class Declared:
    """Declarations of the files beside a vocabulary: text → id of added tokens, and the tokens that are special by name.

    ``specials`` is None where no file declares special tokens, and ``add_prefix_space`` where no file mentions it.
    """

    specials: dict[str, int] | None = None
    plain: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    end_of_text: str | None = None
    pattern: str = GPT2_PATTERN
    add_prefix_space: bool | None = None
    ties: str | None = None
    normal_form: str | None = None
    ignore_merges: bool = False
    begin: tuple[str, ...] = ()
    flagged: set[str] = field(default_factory=set)  # "normalized": found in normalised text
    extras: Extras = field(default_factory=lambda: Extras({}, {}))
    path: Path | None = None

    def normalized(self) -> frozenset[str]:
        """The plain tokens that are found in normalised text."""
        return frozenset() if self.normal_form is None else frozenset(self.flagged & self.plain.keys())

    def settle(self, table: dict[str, int], made: set[str]) -> tuple[dict[str, int], dict[str, int]]:
        """(special, plain) added tokens, text → id, for the id ``table`` of a vocabulary.

        Special tokens are those declared special and those of ``table`` that are special by name only, as GPT-2's
        ``<|endoftext|>`` without any declaration. ``made`` are the spellings of bytes and of merged tokens: these
        tokens stay ordinary even where a name refers to them.
        """
        names = {*self.named, END_OF_TEXT} - self.plain.keys() - made
        return {**{text: table[text] for text in sorted(names) if text in table}, **(self.specials or {})}, self.plain

    def vocabulary(
        self, tokens: tuple[bytes, ...], merges: tuple[tuple[int, int], ...], specials: dict[str, int], origin: Origin
    ) -> Vocabulary:
        """The vocabulary of these parts with the declared plain tokens and settings."""
        return Vocabulary(
            tokens,
            merges,
            specials,
            self.pattern,
            origin,
            self.plain,
            bool(self.add_prefix_space),
            settled_end_of_text(specials, self),
            self.ties,
            normal_form=self.normal_form,
            normalized_tokens=self.normalized(),
            ignore_merges=self.ignore_merges,
            begin=self.begin,
            extras=self.extras,
        )


def read_declared(folder: Path) -> Declared:
    """The ``Declared`` of ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json`` in ``folder``."""
    declared = Declared()
    for name, read in ((SETTINGS_FILE, _read_config), (SPECIALS_FILE, _read_names), (ADDED_FILE, _read_added)):
        path = folder / name
        if strict_json.is_there(path):
            declared.path = declared.path or path
            read(_table(path), path, declared)
    if strict_json.is_there(folder / CHAT_TEMPLATE_FILE):
        declared.extras.files[CHAT_TEMPLATE_FILE] = read_regular(folder / CHAT_TEMPLATE_FILE, VocabError)
    return declared


def _table(path) -> dict:
    settings, _ = strict_json.read(path)
    if not isinstance(settings, dict):
        raise VocabError("not a table of settings", path=path, found=type(settings).__name__, expected="a JSON object")
    return settings


def read_settings(path: Path) -> tuple[dict[str, int] | None, str]:
    """Special tokens (None: not declared) and the pattern from a ``tokenizer_config.json``."""
    declared = Declared()
    _read_config(_table(path), path, declared)
    return declared.specials, declared.pattern


def _read_config(settings, path, declared) -> None:
    declared.pattern = check_pattern(settings.get("pattern", GPT2_PATTERN), path, "pattern")
    if (version := settings.get("unicode_version", unicode.VERSION)) != unicode.VERSION:
        raise VocabError(
            "the tokenizer classes characters by another version of Unicode",
            path=path,
            field="unicode_version",
            found=version,
            expected=unicode.VERSION,
        )
    prefix = settings.get("add_prefix_space")
    if prefix is not None and not isinstance(prefix, bool):
        raise VocabError("not a truth value", path=path, field="add_prefix_space", found=prefix)
    declared.add_prefix_space = prefix
    declared.ties = settings.get("ties")
    if declared.ties is not None and declared.ties not in TIES:
        raise VocabError(
            "no rule for pairs of equal counts", path=path, field="ties", found=declared.ties, expected=", ".join(TIES)
        )
    _read_names(settings, path, declared)
    _read_own(settings, path, declared)
    declared.extras.settings.update((name, value) for name, value in settings.items() if name not in _MADE)
    entries = settings.get("added_tokens_decoder")
    if entries is None:
        return
    if not isinstance(entries, dict):
        raise VocabError("not a table", path=path, field="added_tokens_decoder", found=entries)
    declared.specials = {}
    for key, entry in entries.items():
        where = f"added_tokens_decoder.{key}"
        if not (key.isascii() and key.isdigit()):
            raise VocabError("not an id", path=path, field=where)
        add_token(declared.specials, declared.plain, entry, int(key[:19]), path, where)
        if entry.get("normalized"):
            declared.flagged.add(entry["content"])


def _read_own(settings, path, declared) -> None:
    """Settings that are in ``tokenizer.json``, where there is one."""
    declared.normal_form = settings.get("normal_form")
    if declared.normal_form not in (None, *NORMAL_FORMS):
        raise VocabError("no normal form", path=path, field="normal_form", found=declared.normal_form, expected="NFC")
    declared.ignore_merges = settings.get("ignore_merges", False)
    if not isinstance(declared.ignore_merges, bool):
        raise VocabError("not a truth value", path=path, field="ignore_merges", found=declared.ignore_merges)
    adds_begin = settings.get("add_bos_token", False)
    if not isinstance(adds_begin, bool) and adds_begin is not None:
        raise VocabError("not a truth value", path=path, field="add_bos_token", found=adds_begin)
    first = _content(settings["bos_token"], path, "bos_token") if adds_begin and settings.get("bos_token") else None
    begin = settings.get("begin_of_text", [] if first is None else [first])
    if not isinstance(begin, list) or not all(isinstance(text, str) for text in begin):
        raise VocabError("not a list of tokens", path=path, field="begin_of_text", found=begin)
    declared.begin = tuple(begin)


def _read_names(settings, path, declared) -> None:
    """Special tokens by their names, each a text or an object with flags."""
    more = settings.get(_MORE) or []
    if not isinstance(more, list):
        raise VocabError("not a list", path=path, field=_MORE, found=more)
    named = [(role, settings.get(role)) for role in _ROLES]
    named += [(f"{_MORE}[{n}]", entry) for n, entry in enumerate(more)]
    for name in (*_ROLES, _MORE):
        if name in settings:
            declared.extras.settings.setdefault(name, settings[name])
    for role, entry in named:
        if entry is None or entry is False:
            continue
        text = _content(entry, path, role)
        declared.named.add(text)
        if role == "eos_token":
            declared.end_of_text = text


def _content(entry, path, where) -> str:
    """The text of an entry; flags that only Hugging Face's library supports are refused."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text:
        raise VocabError("not a token", path=path, field=where, found=entry, expected="text, or an object with content")
    for flag in ("lstrip", "rstrip", "single_word"):
        if isinstance(entry, dict) and entry.get(flag):
            raise VocabError(f"{flag} is set, which is not supported", path=path, field=where)
    return text


def _read_added(table, path, declared) -> None:
    """Added tokens as text → id: special where they are named so, else plain."""
    known = {**(declared.specials or {}), **declared.plain}
    for text, i in table.items():
        if known.get(text, i) != i:
            raise VocabError(f"the added token {text!r} has the id {known[text]} elsewhere", path=path, found=i)
        if text not in known:
            entry = {"content": text, "special": text in declared.named}
            specials: dict[str, int] = {} if declared.specials is None else declared.specials
            add_token(specials, declared.plain, entry, i, path, text)
            declared.specials = specials or declared.specials


def check_pattern(pattern, path: Path, where: str) -> str:
    """``pattern``, checked; ``VocabError`` if it is not a valid pattern."""
    if not isinstance(pattern, str):
        raise VocabError("not a pattern", path=path, field=where, found=pattern, expected="a string")
    try:
        compile_pattern(pattern)
    except TokenizerError as error:
        raise VocabError(str(error), path=path, field=where) from None
    return pattern


def add_token(specials: dict[str, int], plain: dict[str, int], entry, i, path: Path, where: str) -> None:
    """Put Hugging Face's added token ``entry`` with the id ``i`` into ``specials``, or into ``plain``.

    An entry without the flag is special: where its token occurs as text, the text is refused, and no text is lost.
    """
    text = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text or type(i) is not int or i < 0:
        raise VocabError(
            "not an added token", path=path, field=where, found=entry, expected="an object with content and an id"
        )
    _content(entry, path, where)
    if text in specials or text in plain or i in specials.values() or i in plain.values():
        raise VocabError("the same special token or id twice", path=path, field=where, found=text)
    (specials if entry.get("special", True) else plain)[text] = i


def merge_added_tokens(
    table: dict[str, int], specials: dict[str, int], plain: dict[str, int], path: Path | None
) -> None:
    """Check the added tokens ``specials`` and ``plain`` against the id ``table`` and add the missing ones to ``table``."""
    for text, i in sorted({**specials, **plain}.items(), key=lambda item: item[1]):
        kind = "added" if text in plain else "special"
        if table.get(text, i) != i:
            raise VocabError(
                f"the {kind} token {text!r} has another id in the vocabulary ({table[text]})", path=path, found=i
            )
        if text not in table:
            if i != len(table):
                raise VocabError(
                    f"the {kind} token {text!r} is not in the vocabulary",
                    path=path,
                    found=i,
                    expected=f"its next id, {len(table)}",
                )
            table[text] = i


def added_tokens(vocabulary: Vocabulary) -> list[tuple[int, dict]]:
    """(id, Hugging Face's description) of each added token, in the order of ids."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    everything = [(i, text, True) for text, i in vocabulary.special_tokens.items()]
    everything += [(i, text, False) for text, i in vocabulary.plain_tokens.items()]
    return [
        (i, {"content": text, **flags, "normalized": text in vocabulary.normalized_tokens, "special": special})
        for i, text, special in sorted(everything)
    ]


def format_settings(vocabulary: Vocabulary) -> bytes:
    """The content of ``tokenizer_config.json``.

    ``transformers`` builds its GPT2Tokenizer with GPT-2's own pattern; for another pattern or more steps, its
    PreTrainedTokenizerFast reads these from ``tokenizer.json``.
    """
    end_of_text, begin, kept = vocabulary.end_of_text, vocabulary.begin, vocabulary.extras.settings
    more: dict = {
        "normal_form": vocabulary.normal_form,
        "ignore_merges": vocabulary.ignore_merges,
        "begin_of_text": list(begin),
    }
    more = {name: value for name, value in more.items() if value}
    settings: dict = {
        "tokenizer_class": "PreTrainedTokenizerFast" if more or vocabulary.pattern != GPT2_PATTERN else "GPT2Tokenizer",
        "pattern": vocabulary.pattern,
        "unicode_version": unicode.VERSION,
        "add_prefix_space": vocabulary.add_prefix_space,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
    }
    roles = {"bos_token": begin[0] if begin else end_of_text, "eos_token": end_of_text, "unk_token": end_of_text}
    # Where other roles were read, transformers is told of those alone: its GPT2Tokenizer would add a token for a missing one.
    settings |= roles if not any(role in kept for role in _ROLES) else dict.fromkeys(roles)
    settings |= kept
    settings["added_tokens_decoder"] = {str(i): entry for i, entry in added_tokens(vocabulary)}
    settings |= more
    if vocabulary.ties is not None:
        settings["ties"] = vocabulary.ties
    return json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8")


def settled_end_of_text(specials: dict[str, int], declared: Declared) -> str | None:
    """The token that ends a text: ``<|endoftext|>`` where it is special, else the declared ``eos_token``."""
    if END_OF_TEXT in specials:
        return END_OF_TEXT
    return declared.end_of_text if declared.end_of_text in specials else None
