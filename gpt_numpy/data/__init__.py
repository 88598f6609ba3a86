"""From somebody's text to batches: reading, normalising, splitting, packing, sampling.

Every stage is a pure function or an iterator, uses NumPy alone and knows nothing of the model. In memory:

>>> documents = [normalize(text) for text in read_documents(["notes/"])]
>>> training, validation = split_documents(documents, 0.1, seed=0)
>>> tokens = pack(map(tokenizer.encode_ordinary, training), eot_id, token_dtype(tokenizer.n_vocab))
>>> inputs, targets = batch(tokens, batch_size=12, block_size=64, seed=0, step=0)

At any size, by way of a folder of shards: ``prepare(inputs, tokenizer, folder)``, then ``open_dataset(folder)``.

    corpora files reading                             where text comes from, as documents
    normalizing splitting                             what is done to it
    packing fitting segments                          documents to rows of tokens, and kept apart in them
    counters sampling prefetching                     rows to batches
    token_files manifest dataset                      shards on the disk, opened and verified
    sources encoding collecting progress preparing    how they are made
    inspecting                                        what is in them
"""

from .corpora import BUILTIN_CORPORA, builtin_corpus
from .dataset import TokenDataset, open_dataset
from .normalizing import DEFAULT_STEPS, STEPS, normalize
from .packing import check_tokens, pack, token_dtype
from .prefetching import prefetch
from .preparing import Settings, prepare
from .reading import read_documents
from .sampling import IGNORED, batch, count_blocks, epoch_batch, rows_of_rank, validation_windows
from .segments import document_masks, mask_padding
from .splitting import split_documents
from .token_files import join_token_files, read_token_file

__all__ = [
    "BUILTIN_CORPORA",
    "DEFAULT_STEPS",
    "IGNORED",
    "STEPS",
    "Settings",
    "TokenDataset",
    "batch",
    "builtin_corpus",
    "check_tokens",
    "count_blocks",
    "document_masks",
    "epoch_batch",
    "join_token_files",
    "mask_padding",
    "normalize",
    "open_dataset",
    "pack",
    "prefetch",
    "prepare",
    "read_documents",
    "read_token_file",
    "rows_of_rank",
    "split_documents",
    "token_dtype",
    "validation_windows",
]
