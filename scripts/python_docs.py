"""A small GPT on Python's own help text, with a byte-level BPE tokenizer trained on it: needs no download.

    python scripts/python_docs.py

The training is that of ``gpt-numpy train``, but longer, with a wider model and with dropout, because the corpus is
small and is read many times. The script takes every flag of ``gpt-numpy train`` (``--help``).
"""

from gpt_numpy.commands.train import recipe
from gpt_numpy.training import Settings

settings = Settings(
    data=("python-docs",),
    tokenizer="bpe",
    vocab_size=2048,
    n_layer=6,
    n_head=6,
    n_embd=192,
    block_size=128,
    dropout=0.2,
    batch_size=16,
    max_steps=4000,
    learning_rate=1.5e-3,
    warmup_steps=200,
    schedule="wsd",
    final_fraction=0.0,
    weight_decay=0.2,
    documents="apart",
    eval_every=200,
    patience=5,
    sample_every=1000,
)

if __name__ == "__main__":
    recipe(settings)
