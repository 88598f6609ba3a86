"""The problem that every generating contender gets: the same weights, the same prompts, the same right answer.

A folder is made with a random model (a GPT-2 124M, or a Llama 135M of SmolLM2's shape) and the logits after the prompts,
computed by the NumPy layers. Each contender converts the weights to its own format. A contender's logits are compared with
those of the folder before the contender is timed.
"""

from __future__ import annotations

import os

import numpy as np

from gpt_numpy.host.processors import cores

from .. import timing

TOLERANCE = {"float32": 2e-3, "int8": 0.5, "int4": 3.0}  # of logits whose spread is about 1

_GPT2 = dict(vocab_size=50257, n_layer=12, n_head=12, n_embd=768, block_size=1024)
_LLAMA_135M = dict(preset="llama-135m", block_size=1024, vocab_size=49152)
_OURS, _LLAMA, _CTRANSLATE2 = "generate_ours", "generate_llama", "generate_ctranslate2"
_TRANSFORMERS = "generate_transformers"
_FLOATS = {"gpt_numpy": _OURS, "llama.cpp": _LLAMA, "CTranslate2": _CTRANSLATE2, "transformers": _TRANSFORMERS}
_BYTES = {"gpt_numpy": _OURS, "gpt_numpy float32": _OURS, "llama.cpp q8_0": _LLAMA, "CTranslate2 int8": _CTRANSLATE2}
_LLAMA_FLOATS = {name: module for name, module in _FLOATS.items() if module != _CTRANSLATE2}
_NIBBLES = {"gpt_numpy": _OURS, "llama.cpp q4_0": _LLAMA, "llama.cpp q4_k_m": _LLAMA}

# name → (summary, spec, contenders, unit of time)
PROBLEMS = {
    "decode": (
        "GPT-2 124M, float32: tokens 65 to 128 of one text",
        dict(**_GPT2, batch_size=1, prompt_tokens=64, new_tokens=64),
        _FLOATS,
        "token",
    ),
    "decode-batch": (
        "GPT-2 124M, float32: tokens 65 to 96 of eight texts at a time",
        dict(**_GPT2, batch_size=8, prompt_tokens=64, new_tokens=32),
        {name: module for name, module in _FLOATS.items() if module != _LLAMA},
        "step of 8 tokens",
    ),
    "decode-int8": (
        "GPT-2 124M, 8-bit weights: tokens 65 to 128 of one text",
        dict(**_GPT2, batch_size=1, prompt_tokens=64, new_tokens=64, format="int8"),
        _BYTES,
        "token",
    ),
    "prefill": (
        "GPT-2 124M, float32: reading a prompt of 1,000 tokens",
        dict(**_GPT2, batch_size=1, prompt_tokens=1000, new_tokens=0),
        _FLOATS,
        "prompt",
    ),
    "llama-decode": (
        "Llama 135M, float32: tokens 65 to 128 of one text",
        dict(**_LLAMA_135M, batch_size=1, prompt_tokens=64, new_tokens=64),
        _LLAMA_FLOATS,
        "token",
    ),
    "llama-decode-int8": (
        "Llama 135M, 8-bit weights: tokens 65 to 128 of one text",
        dict(**_LLAMA_135M, batch_size=1, prompt_tokens=64, new_tokens=64, format="int8"),
        {"gpt_numpy": _OURS, "llama.cpp q8_0": _LLAMA},
        "token",
    ),
    "llama-decode-int4": (
        "Llama 135M, 4-bit weights: tokens 65 to 128 of one text",
        dict(**_LLAMA_135M, batch_size=1, prompt_tokens=64, new_tokens=64, format="int4"),
        _NIBBLES,
        "token",
    ),
    "llama-prefill": (
        "Llama 135M, float32: reading a prompt of 1,000 tokens",
        dict(**_LLAMA_135M, batch_size=1, prompt_tokens=1000, new_tokens=0),
        _LLAMA_FLOATS,
        "prompt",
    ),
}


def prompts(spec):
    """(batch_size, prompt_tokens) int64, seeded."""
    shape = spec["batch_size"], spec["prompt_tokens"]
    return np.random.default_rng(2).integers(0, spec["vocab_size"], shape)


def config_of(spec):
    """The ``GPTConfig`` of the problem."""
    from gpt_numpy import GPTConfig

    if "preset" in spec:
        return GPTConfig.preset(spec["preset"], block_size=spec["block_size"], vocab_size=spec["vocab_size"])
    return GPTConfig(**{key: spec[key] for key in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")})


def make_folder(folder, spec):
    """Write the model, with logits of about unit spread, and the logits after each prompt."""
    from gpt_numpy import GPT, layers
    from gpt_numpy.inference.cache import KVCache
    from gpt_numpy.inference.decoder import OpsDecoder

    model = GPT(config_of(spec), seed=1, ops=layers)
    rng = np.random.default_rng(1)
    for name, view in model.params.items():
        if name.endswith(".bias"):
            view[...] = rng.standard_normal(view.shape) * 0.02
    model.params["wte.weight"][...] *= 1.8
    model.save(folder)
    tokens = prompts(spec)
    np.save(os.path.join(folder, "logits.npy"), OpsDecoder(model).extend(tokens, KVCache(model.config, len(tokens))))


def format_of(name, spec):
    """The number format of a contender: the one in its name, or else the problem's."""
    return "float32" if "float32" in name else spec.get("format", "float32")


def tolerance(name, spec):
    """The largest error of a logit that a contender may make."""
    return TOLERANCE[format_of(name, spec)]


def threads():
    """Threads for each contender: the processors that this process may use."""
    return len(cores())


def error_of(logits, spec):
    """The largest difference of ``logits`` (batch_size, V) from the right ones."""
    return float(np.abs(np.asarray(logits) - np.load(os.path.join(spec["folder"], "logits.npy"))).max())


def timed(run, count=1):
    """Seconds of ``run()``, divided by ``count``."""
    return timing.once(run) / count
