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
from .prefetch import prefetch
from .reading import read_documents
from .sampling import IGNORED, batch, count_blocks, epoch_batch, rows_of_rank, validation_windows
from .segments import document_masks, mask_padding
from .splitting import split_documents

__all__ = [
    "BUILTIN_CORPORA",
    "DEFAULT_STEPS",
    "IGNORED",
    "STEPS",
    "batch",
    "builtin_corpus",
    "check_tokens",
    "count_blocks",
    "document_masks",
    "epoch_batch",
    "mask_padding",
    "normalize",
    "pack",
    "prefetch",
    "read_documents",
    "rows_of_rank",
    "split_documents",
    "token_dtype",
    "validation_windows",
]
