"""llama.cpp through llama-cpp-python: the weights as GGUF in float32, or quantised by llama.cpp itself.

The second word of the contender's name is llama.cpp's name of the format: ``llama.cpp q8_0``, ``llama.cpp q4_k_m``.
"""

import logging
import os

import numpy as np

from . import generation


def prepare(name, spec):
    import llama_cpp

    from gpt_numpy.interop import gguf_files, huggingface

    path = os.path.join(spec["folder"], "float32.gguf")
    gguf_files.save(path, *huggingface.load_views(spec["folder"]), tokenizer=None)
    if " " in name:
        path = quantized(llama_cpp, path, name.split()[1])
    count, tokens, new = generation.threads(), generation.prompts(spec)[0].tolist(), spec["new_tokens"]
    model = llama_cpp.Llama(
        path,
        n_ctx=spec["block_size"],
        n_batch=spec["block_size"],
        n_threads=count,
        n_threads_batch=count,
        verbose=False,
    )

    def logits():
        return np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), (spec["vocab_size"],))

    model.eval(tokens)
    error, first = generation.error_of(logits()[None], spec), int(logits().argmax())

    def decode():
        chosen = first
        for _ in range(new):
            model.eval([chosen])
            chosen = int(logits().argmax())

    def step():
        model.n_tokens = len(tokens) if new else 0  # the cache is cut to this at the next eval
        return error, generation.timed(decode, new) if new else generation.timed(lambda: model.eval(tokens))

    return step


def quantized(llama_cpp, path, kind):
    """The path of a new file: the model of ``path`` as llama.cpp itself quantises it to ``kind``, such as ``q4_k_m``."""
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # else a line for each tensor
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    target = f"{os.path.splitext(path)[0]}.{kind}.gguf"
    if llama_cpp.llama_model_quantize(path.encode(), target.encode(), options) != 0:
        raise RuntimeError(f"llama.cpp could not quantise the model to {kind}")
    return target
