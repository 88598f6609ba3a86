"""Two labs on a model that trains in seconds: predict the outcome of a sweep, and find the fault of a damaged model.

``sweep`` varies one setting and compares the losses with the reader's prediction. ``damaged`` returns the model of one
of four cases, each with a different fault. The model's attention maps (``study.microscope``) show the fault.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import layers
from ..config import GPTConfig
from ..data import batch
from ..errors import ConfigError
from ..model import GPT
from ..randomness import fold
from ..tokenizer import CharTokenizer
from .bugs import BUGS, plant

TEXT = "the cat sat on the mat. the rat sat on the cat. the cat sat on the hat. " * 20
SETTINGS = {"width": 32, "heads": 2, "layers": 2, "context": 24, "lr": 5e-3}
FAULTS = ("untrained-head", "leaking-mask", "positions-off-by-one", "dead-layer")


class Run(NamedTuple):
    model: GPT
    tokenizer: CharTokenizer
    losses: list[float]
    held_out: float  # mean loss on windows of the text's last tenth, which is not trained on


def train(n_steps: int = 120, text: str = TEXT, seed: int = 0, ops=layers, **settings) -> Run:
    """Train a character model; settings: any of ``SETTINGS``. Raises ``ConfigError`` for a setting that is unknown.

    ops: the layers that the model computes with.
    """
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        raise ConfigError("no such setting", field=", ".join(sorted(unknown)), expected=", ".join(SETTINGS))
    chosen = {**SETTINGS, **settings}
    tokenizer = CharTokenizer.train([text])
    tokens = np.array(tokenizer.encode(text))
    context = int(chosen["context"])
    cut = len(tokens) - max(len(tokens) // 10, context + 2)
    if cut < context + 2:
        raise ConfigError("too little text", found=len(tokens), expected=f"more than {2 * context + 4} characters")
    n_layer, n_head, n_embd = (int(chosen[name]) for name in ("layers", "heads", "width"))
    model = GPT(GPTConfig(tokenizer.n_vocab, context, n_layer, n_head, n_embd), seed=seed, ops=ops)
    flat, edges = model.params.flat, np.array([0, model.params.flat.size])
    moments, losses = (np.zeros_like(flat), np.zeros_like(flat)), []
    for step in range(1, n_steps + 1):
        model.zero_gradients()
        losses.append(model.loss_and_gradients(*batch(tokens[:cut], 8, context, seed, step)))
        scale = min(1.0, 1.0 / layers.gradient_norm(model.grads.flat))
        rate = chosen["lr"] * min(1, step / 10) * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        layers.adamw_update(
            flat, model.grads.flat, *moments, edges, np.zeros(1), rate, 0.9, 0.99, 1e-8, step, gradient_scale=scale
        )
    return Run(model, tokenizer, losses, model.loss(*batch(tokens[cut:], 16, context, seed, 0)))


def sweep(setting: str, values, n_steps: int = 120, text: str = TEXT, seed: int = 0) -> dict[float, float]:
    """Value → loss on the text's last tenth, for models that differ in one setting alone."""
    return {value: train(n_steps, text, seed, **{setting: value}).held_out for value in values}


# ---- what is wrong with this model? ----------------------------------------------------------------------------------


def fault_of(case: int) -> str:
    """The fault of case 1 to 4; the order of the cases differs from that of ``FAULTS``."""
    if not 1 <= case <= len(FAULTS):
        raise ConfigError("no such case", found=case, expected=f"1 to {len(FAULTS)}")
    order = sorted(FAULTS, key=lambda fault: fold(*fault.encode(), 20))
    return order[case - 1]


def damaged(run: Run, fault: str, seed: int = 0) -> GPT:
    """A copy of the trained model with one of ``FAULTS``."""
    ops = plant(BUGS["attention-mask-leaks-one-key"])[0] if fault == "leaking-mask" else layers
    config = run.model.config
    model = GPT(config, ops=ops)
    model.params.flat[...] = run.model.params.flat
    p, width = model.params, config.n_embd // config.n_head
    if fault == "untrained-head":
        fresh = GPT(config, seed=seed + 1, ops=layers).params["h.0.attn.c_attn.weight"]
        for third in range(2):  # queries and keys of head 0
            columns = slice(third * config.n_embd, third * config.n_embd + width)
            p["h.0.attn.c_attn.weight"][:, columns] = fresh[:, columns]
            p["h.0.attn.c_attn.bias"][columns] = 0
    elif fault == "positions-off-by-one":
        p["wpe.weight"][...] = np.roll(p["wpe.weight"], 1, axis=0)
    elif fault == "dead-layer":
        last = config.n_layer - 1
        for name in ("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"):
            p[f"h.{last}.{name}"][...] = 0
    elif fault != "leaking-mask":
        raise ConfigError("no such fault", found=fault, expected=", ".join(FAULTS))
    return model
