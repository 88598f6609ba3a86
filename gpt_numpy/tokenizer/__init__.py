"""Text to tokens and back: byte-level BPE as in GPT-2, and one id a character.

From simple to fast, a file a step:

    byte_alphabet   GPT-2's printable spelling of the 256 bytes
    pretokenize     text to words by a pattern
    reference       merges learned and applied in plain Python: the specification
    specials        special tokens: cut out, allowed, refused
    vocabulary      tokens, merges and specials, checked against each other
    formats/        files of vocabularies: Hugging Face's, OpenAI's, tiktoken's
    tokenizer       Tokenizer, which uses all of these and ``kernels/bpe/``   (ids: checks of texts and ids)
    streaming       text from a stream of ids, ids of a stream of text
    rendering       a text coloured by token
    char            CharTokenizer
"""

from pathlib import Path

from ..errors import VocabError
from ..files.regular import size_of_regular
from ..locating import find_tokenizer
from .char import CharTokenizer
from .formats import strict_json
from .formats.tokenizer_config import SETTINGS_FILE
from .pretokenize import GPT2_PATTERN
from .specials import END_OF_TEXT
from .streaming import StreamDecoder
from .tokenizer import Tokenizer

__all__ = ["END_OF_TEXT", "GPT2_PATTERN", "CharTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]


def load_tokenizer(folder):
    """The tokenizer saved in ``folder``, of either kind; ``VocabError`` for invalid files.

    ``folder`` may be a run's: the result is then the tokenizer of its checkpoints.
    """
    folder = find_tokenizer(folder)
    path = Path(folder) / SETTINGS_FILE
    if strict_json.is_there(path):
        size_of_regular(path, VocabError)
    try:
        settings, _ = strict_json.read(path)
        char = settings["tokenizer_class"] == CharTokenizer.__name__
    except (VocabError, OSError, KeyError, TypeError):
        char = False  # Tokenizer.load names the fault of the file better
    return (CharTokenizer if char else Tokenizer).load(folder)
