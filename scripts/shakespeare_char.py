"""A character-level GPT on Tiny Shakespeare: nanoGPT's recipe for a CPU, number by number, but for the first values.

    gpt-numpy download shakespeare
    python scripts/shakespeare_char.py

nanoGPT draws the first matrices with GPT-2's standard deviation, 0.02, which suits models that are 768 wide or wider. This
model is 128 wide and begins with 0.05 (0.02 times the root of 768 / 128). It ends at a validation loss of 1.75; with
``--init-std 0.02``, as in nanoGPT, it ends at 1.90. Sizes, steps, tokens a step and rates are nanoGPT's. Two smaller
differences remain: biases, which nanoGPT leaves out (``--bias none``), and GELU by tanh, as in GPT-2 (``--mlp gelu_erf``).

Copy the script and change the copy: every name is a setting of ``gpt-numpy train``. The script takes every flag of that
command (``--data FILE``, ``--out DIR``, ``--max-steps 100``; see ``--help``).
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
    init_std=0.05,  # nanoGPT: 0.02
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
