"""From somebody's text to batches: reading, normalising, splitting, packing, sampling.

Every stage is a pure function or an iterator, uses NumPy alone and knows nothing of the model:

>>> documents = [normalize(text) for text in read_documents(["notes/"])]
>>> training, validation = split_documents(documents, 0.1, seed=0)
>>> tokens = pack(map(tokenizer.encode_ordinary, training), eot_id, token_dtype(tokenizer.n_vocab))
>>> inputs, targets = batch(tokens, batch_size=12, block_size=64, seed=0, step=0)
"""

from .corpora import BUILTIN_CORPORA, builtin_corpus
from .normalizing import DEFAULT_STEPS, STEPS, normalize
from .packing import check_tokens, pack, token_dtype
from .reading import read_documents
from .sampling import IGNORED, batch, validation_windows
from .splitting import split_documents

__all__ = [
    "BUILTIN_CORPORA",
    "DEFAULT_STEPS",
    "IGNORED",
    "STEPS",
    "batch",
    "builtin_corpus",
    "check_tokens",
    "normalize",
    "pack",
    "read_documents",
    "split_documents",
    "token_dtype",
    "validation_windows",
]
