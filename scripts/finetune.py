"""Go on from a published GPT-2 (or any folder in its format) on a text of your own.

    gpt-numpy download gpt2
    python scripts/finetune.py --data my_text.txt

The learning rate is low and constant after a short warm-up: the model knows the language already.
``block_size`` is cropped, because fewer positions make a step cheaper and are enough for a short text.
The script takes every flag of ``gpt-numpy train``: ``--init-from FOLDER`` for another model.
"""

from gpt_numpy.commands.train import recipe
from gpt_numpy.training import Settings

settings = Settings(
    init_from="data/gpt2",
    block_size=256,
    positions="crop",
    batch_size=8,
    micro_batch_size=1,
    max_steps=200,
    learning_rate=3e-5,
    schedule="constant",
    warmup_steps=10,
    weight_decay=0.0,
    dropout=0.1,
    documents="apart",
    eval_every=20,
    eval_windows=32,
    patience=3,
    sample_every=50,
    save_every=100,
    keep=1,
)

if __name__ == "__main__":
    recipe(settings)
