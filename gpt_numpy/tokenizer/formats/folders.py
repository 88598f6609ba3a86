"""The files of a tokenizer, in each of the three forms.

``huggingface`` (ours too)   tokenizer.json, vocab.json, merges.txt, tokenizer_config.json
``openai``                   encoder.json, vocab.bpe, tokenizer_config.json
``tiktoken``                 ranks.tiktoken, tokenizer_config.json

Each also has the ``chat_template.jinja`` that was beside the files that were read, if there was one.

Loading reads the first form that the folder holds, in the order ``SOURCES``. A ``tokenizer.json`` is a whole tokenizer
in one file: a folder where a save was cut short between two files still holds one tokenizer, the old or the new.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ...errors import TokenizerError, VocabError
from ..vocabulary import Vocabulary
from .strict_json import is_there
from .tiktoken_file import format_tiktoken, read_tiktoken
from .tokenizer_config import CHAT_TEMPLATE_FILE, SETTINGS_FILE, format_settings, read_declared
from .tokenizer_json import format_tokenizer_json, read_tokenizer_json
from .vocab_files import format_merges, format_vocab, id_table, read_vocabulary

TIKTOKEN_FILE = "ranks.tiktoken"
SOURCES = ("tokenizer.json", "vocab.json and merges.txt", "encoder.json and vocab.bpe", "one *.tiktoken file")


def load(path: Path) -> Vocabulary:
    """The vocabulary in ``path``: a folder, or a ``tokenizer.json`` or ``.tiktoken`` file."""
    if path.suffix == ".tiktoken" and not path.is_dir():
        return _load_tiktoken(path)
    if path.suffix == ".json" and not path.is_dir():
        return read_tokenizer_json(path, read_declared(path.parent))
    if is_there(path / "tokenizer.json"):
        return read_tokenizer_json(path / "tokenizer.json", read_declared(path))
    for vocab_name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if is_there(path / vocab_name) and is_there(path / merges_name):
            return read_vocabulary(path / vocab_name, path / merges_name, read_declared(path))
    ranks = sorted(path.glob("*.tiktoken"))
    if len(ranks) == 1:
        return _load_tiktoken(ranks[0])
    if not path.exists():
        raise VocabError("there is no such folder", path=path)
    raise VocabError("no tokenizer here", path=path, expected=", or ".join(SOURCES))


def _load_tiktoken(path: Path) -> Vocabulary:
    declared = read_declared(path.parent)
    if declared.specials is None:
        raise VocabError(
            "ranks alone do not say which tokens are special",
            path=path,
            expected=f"{SETTINGS_FILE} with added_tokens_decoder beside it",
        )
    return read_tiktoken(path, declared)


def _format_encoder(vocabulary: Vocabulary) -> bytes:
    return json.dumps(id_table(vocabulary)).encode("ascii")  # byte for byte as OpenAI wrote GPT-2's


# form → name of a file → function that returns its content
FORMATS: dict[str, dict[str, Callable[[Vocabulary], bytes]]] = {
    "huggingface": {"tokenizer.json": format_tokenizer_json, "vocab.json": format_vocab, "merges.txt": format_merges},
    "openai": {"encoder.json": _format_encoder, "vocab.bpe": format_merges},
    "tiktoken": {TIKTOKEN_FILE: format_tiktoken},
}


def contents(vocabulary: Vocabulary, form: str) -> dict[str, bytes]:
    """name → content of the files of ``vocabulary`` in the form ``form`` (a key of ``FORMATS``)."""
    if form not in FORMATS:
        raise TokenizerError("no such form", field="form", found=form, expected=f"one of {', '.join(FORMATS)}")
    makers = {**FORMATS[form], SETTINGS_FILE: format_settings}
    return {**{name: make(vocabulary) for name, make in makers.items()}, **vocabulary.extras.files}


def present(folder: Path) -> list[Path]:
    """The files of a tokenizer, of any form, that are in ``folder``."""
    names = [name for makers in FORMATS.values() for name in makers]
    names += [SETTINGS_FILE, CHAT_TEMPLATE_FILE]
    return [folder / name for name in names if (folder / name).exists()]
