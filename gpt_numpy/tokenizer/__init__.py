"""Text to tokens and back: byte-level BPE as in GPT-2, and one id a character.

From simple to fast, a file a step:

    byte_alphabet   GPT-2's printable spelling of the 256 bytes
    pretokenize     text to words by a pattern
    reference       merges learned and applied in plain Python: the specification
    specials        special tokens: cut out, allowed, refused
    vocabulary      tokens, merges and specials, checked against each other
    formats/        the files these are kept in: Hugging Face's, OpenAI's, tiktoken's
    tokenizer       Tokenizer, which puts these together over ``kernels/bpe/``   (ids: what comes from outside)
    streaming       text from ids as they come, ids of text as it comes
    rendering       a text coloured by token
    char            CharTokenizer
"""

from pathlib import Path

from ..errors import VocabError
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
    """The tokenizer saved in ``folder``, of whichever kind it is; ``VocabError`` if the files are bad.

    ``folder`` may be a run's: then the tokenizer of its checkpoints.
    """
    folder = find_tokenizer(folder)
    try:
        settings, _ = strict_json.read(Path(folder) / SETTINGS_FILE)
        char = settings["tokenizer_class"] == CharTokenizer.__name__
    except (VocabError, OSError, KeyError, TypeError):
        char = False  # what is wrong with the file, Tokenizer.load says better
    return (CharTokenizer if char else Tokenizer).load(folder)
