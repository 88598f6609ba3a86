"""From text to batches: reading, normalising, splitting, packing, sampling.

Every stage is a pure function or an iterator, uses NumPy alone and knows nothing of the model. In memory:

>>> documents = [normalize(text) for text in read_documents(["notes/"])]
>>> training, validation = split_documents(documents, 0.1, seed=0)
>>> tokens = pack(map(tokenizer.encode_ordinary, training), eot_id, token_dtype(tokenizer.n_vocab))
>>> inputs, targets = batch(tokens, batch_size=12, block_size=64, seed=0, step=0)

At any size, by way of a folder of shards: ``prepare(inputs, tokenizer, folder)``, then ``open_dataset(folder)``.

    text    finds, opens and normalises text, and divides it into documents
    rows    packs documents into rows of tokens, and draws batches of rows
    shards  writes, opens, verifies and inspects tokens on the disk
"""

from .rows.packing import check_tokens, pack, token_dtype
from .rows.prefetching import prefetch
from .rows.segments import document_masks, mask_padding
from .rows.windows import (
    IGNORED,
    batch,
    count_blocks,
    count_validation_windows,
    epoch_batch,
    rows_of_rank,
    validation_windows,
)
from .shards.dataset import TokenDataset, open_dataset
from .shards.preparing import Settings, prepare
from .shards.token_files import join_token_files, read_token_file
from .text.corpora import BUILTIN_CORPORA, builtin_corpus
from .text.normalizing import DEFAULT_STEPS, STEPS, normalize
from .text.reading import read_documents
from .text.reading_record import Reading, copy_reading, read_as_trained, reading_of
from .text.splitting import split_documents

__all__ = [
    "BUILTIN_CORPORA",
    "DEFAULT_STEPS",
    "IGNORED",
    "STEPS",
    "Reading",
    "Settings",
    "TokenDataset",
    "batch",
    "builtin_corpus",
    "check_tokens",
    "copy_reading",
    "count_blocks",
    "count_validation_windows",
    "document_masks",
    "epoch_batch",
    "join_token_files",
    "mask_padding",
    "normalize",
    "open_dataset",
    "pack",
    "prefetch",
    "prepare",
    "read_as_trained",
    "read_documents",
    "read_token_file",
    "reading_of",
    "rows_of_rank",
    "split_documents",
    "token_dtype",
    "validation_windows",
]
