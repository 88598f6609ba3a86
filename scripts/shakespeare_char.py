"""A character-level GPT on Tiny Shakespeare: nanoGPT's recipe for a CPU, number by number.

    gpt-numpy download shakespeare
    python scripts/shakespeare_char.py

Copy the script and change the copy: every name is a setting of ``gpt-numpy train``. The script takes every flag of that
command
(``--data FILE``, ``--out DIR``, ``--max-steps 100``; see ``--help``).
"""

from gpt_numpy.commands.train import recipe
from gpt_numpy.training import Settings

settings = Settings(
    data=("data/shakespeare/tinyshakespeare.txt",),
    tokenizer="char",
    n_layer=4,
    n_head=4,
    n_embd=128,
    block_size=64,
    batch_size=12,
    max_steps=2000,
    learning_rate=1e-3,
    warmup_steps=100,
    schedule="cosine",
    final_fraction=0.1,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.99,
    clip=1.0,
    eval_every=250,
    eval_windows=240,
    save_every=1000,
    sample_every=1000,
    sample_tokens=300,
)

if __name__ == "__main__":
    recipe(settings)
