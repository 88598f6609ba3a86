"""The problem that every generating contender gets: the same weights, the same prompts, the same right answer.

A folder is made with a random model (a GPT-2 124M, or a Llama 135M of SmolLM2's shape) and the logits after the prompts,
computed by the NumPy layers. Each contender converts the weights to its own format. A contender's logits are compared with
those of the folder before the contender is timed.
"""

from __future__ import annotations

import os

import numpy as np

from gpt_numpy.config import GPTConfig
from gpt_numpy.host.processors import cores

from .. import timing
from .problem import config as config_of
from .problem import spec_of

TOLERANCE = {"float32": 2e-3, "int8": 0.5, "int4": 3.0}  # of logits whose spread is about 1

_MODELS = {
    "GPT-2 124M": spec_of(GPTConfig.preset("gpt2"), batch_size=1, block_size=1024),
    "Llama 135M": spec_of(GPTConfig.preset("llama-135m"), batch_size=1, block_size=1024),
}
_OURS, _LLAMA, _CTRANSLATE2 = "generate_ours", "generate_llama", "generate_ctranslate2"
_TRANSFORMERS = "generate_transformers"
_FLOATS = {"gpt_numpy": _OURS, "llama.cpp": _LLAMA, "CTranslate2": _CTRANSLATE2, "transformers": _TRANSFORMERS}
_BYTES = {"gpt_numpy": _OURS, "gpt_numpy float32": _OURS, "llama.cpp q8_0": _LLAMA, "CTranslate2 int8": _CTRANSLATE2}
_LLAMA_FLOATS = {name: module for name, module in _FLOATS.items() if module != _CTRANSLATE2}
_LLAMA_BYTES = {"gpt_numpy": _OURS, "llama.cpp q8_0": _LLAMA}
_LLAMA_NIBBLES = {"gpt_numpy": _OURS, "llama.cpp q4_0": _LLAMA, "llama.cpp q4_k_m": _LLAMA}
_WEIGHTS = {"float32": "float32", "int8": "8-bit weights", "int4": "4-bit weights"}


def _decode(model, contenders, format="float32"):
    spec = dict(**_MODELS[model], prompt_tokens=64, new_tokens=64, format=format)
    return f"{model}, {_WEIGHTS[format]}: tokens 65 to 128 of one text", spec, contenders, "token"


def _prefill(model, contenders):
    spec = dict(**_MODELS[model], prompt_tokens=1000, new_tokens=0)
    return f"{model}, float32: reading a prompt of 1,000 tokens", spec, contenders, "prompt"


# name → (summary, spec, contenders, unit of time)
PROBLEMS = {
    "decode": _decode("GPT-2 124M", _FLOATS),
    "decode-batch": (
        "GPT-2 124M, float32: tokens 65 to 96 of eight texts at a time",
        _MODELS["GPT-2 124M"] | dict(batch_size=8, prompt_tokens=64, new_tokens=32),
        {name: module for name, module in _FLOATS.items() if module != _LLAMA},
        "step of 8 tokens",
    ),
    "decode-int8": _decode("GPT-2 124M", _BYTES, "int8"),
    "prefill": _prefill("GPT-2 124M", _FLOATS),
    "llama-decode": _decode("Llama 135M", _LLAMA_FLOATS),
    "llama-decode-int8": _decode("Llama 135M", _LLAMA_BYTES, "int8"),
    "llama-decode-int4": _decode("Llama 135M", _LLAMA_NIBBLES, "int4"),
    "llama-prefill": _prefill("Llama 135M", _LLAMA_FLOATS),
}


def prompts(spec):
    """(batch_size, prompt_tokens) int64, seeded."""
    shape = spec["batch_size"], spec["prompt_tokens"]
    return np.random.default_rng(2).integers(0, spec["vocab_size"], shape)


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
