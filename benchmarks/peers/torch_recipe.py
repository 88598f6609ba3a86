"""nanoGPT's recipe for a CPU in PyTorch, a whole run: ``python -m benchmarks.peers.torch_recipe TEXT SEED STD``.

Karpathy's nanoGPT, config/train_shakespeare_char.py with the flags that its README gives for a CPU: 4 layers, 4 heads, 128
wide, 64 tokens, 12 sequences, 2,000 steps, no dropout, no compilation, and every 250 steps a look at 20 batches of either
text. STD is the standard deviation of the matrices before training, 0.02 in nanoGPT. The last line is JSON: the loss over
the whole validation text, which nanoGPT does not compute.
"""

import json
import math
import sys

import numpy as np

from . import torch_gpt

STEPS, EVAL_EVERY, EVAL_BATCHES = 2000, 250, 20
LEARNING_RATE, LEAST_RATE, WARM_UP = 1e-3, 1e-4, 100
SPEC = dict(n_layer=4, n_head=4, n_embd=128, batch_size=12, block_size=64)


def main(path, seed=1, std=0.02):
    import torch

    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    characters = sorted(set(text))
    index = {character: i for i, character in enumerate(characters)}
    ids = torch.tensor([index[character] for character in text])
    parts = {"train": ids[: int(0.9 * len(ids))], "validation": ids[int(0.9 * len(ids)) :]}
    model = torch_gpt.model_of(SPEC | {"vocab_size": len(characters)}, int(seed), float(std))
    optimizer = torch_gpt.optimizer_of(model, LEARNING_RATE, (0.9, 0.99), 0.1, fused=False)
    for step in range(STEPS + 1):
        if step % EVAL_EVERY == 0:
            with torch.no_grad():
                for part in parts.values():
                    loss = np.mean([model(*_batch(part)).item() for _ in range(EVAL_BATCHES)])
            print(f"step {step}: validation loss about {loss:.4f}", flush=True)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        loss = model(*_batch(parts["train"]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(json.dumps({"validation_loss": _whole(model, parts["validation"])}))


def _rate(step):
    if step < WARM_UP:
        return LEARNING_RATE * (step + 1) / (WARM_UP + 1)
    cosine = 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))
    return LEAST_RATE + cosine * (LEARNING_RATE - LEAST_RATE)


def _batch(ids):
    import torch

    size = SPEC["block_size"]
    starts = torch.randint(len(ids) - size, (SPEC["batch_size"],))
    windows = torch.stack([ids[start : start + size + 1] for start in starts])
    return windows[:, :-1], windows[:, 1:]


def _whole(model, ids):
    """The mean loss over all windows of the text, side by side."""
    import torch

    size = SPEC["block_size"]
    count = (len(ids) - 1) // size
    inputs, targets = ids[: count * size].view(count, size), ids[1 : count * size + 1].view(count, size)
    with torch.no_grad():
        return model(inputs, targets).item()


if __name__ == "__main__":
    main(*sys.argv[1:])
