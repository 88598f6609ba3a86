"""Perplexity of one model in several number formats: ours, and llama.cpp's of the same weights, on the same tokens.

    python -m benchmarks.peers.perplexity runs/notes-1 chapter.txt --theirs q8_0 q4_0 q4_k_m --ours float32 int8

A text is read in windows of the model's context, each from an empty cache, and every token but a window's first counts. A
tokenizer's ``begin_ids`` stand in front of each window, as in llama.cpp's own perplexity.
Q4_K_M needs rows of 256 numbers: of a model whose widths are no multiples of 256, llama.cpp keeps matrices in wider
formats. The bytes are those of a file of llama.cpp, and of our packed weights.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile

import numpy as np

from gpt_numpy.inference.cache import KVCache
from gpt_numpy.inference.packed import DTYPES, PackedWeights
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.inference.score import log_softmax_at
from gpt_numpy.interop import gguf_files, huggingface
from gpt_numpy.locating import find_model
from gpt_numpy.tokenizer import load_tokenizer

from . import generation
from .generate_llama import quantized


def perplexity(logits_of, windows):
    """exp of the mean loss over ``windows`` (lists of ids); ``logits_of(ids)`` gives logits (T, V) of each position."""
    logprobs = [log_softmax_at(np.asarray(logits_of(ids))[:-1], ids[1:]) for ids in windows]
    return math.exp(-np.concatenate(logprobs).mean())


def our_logits(config, params, form):
    """(a function for ``perplexity``, bytes) of our decoder with weights in ``form``."""
    decoder = PanelDecoder(PackedWeights.pack(config, params, form))

    def logits_of(ids):
        return decoder.extend(np.array(ids)[None], KVCache(config, 1, len(ids)), every=True)[0]

    return logits_of, decoder.weights.nbytes


def their_logits(llama_cpp, path, config):
    """The same of llama.cpp with the file ``path``."""
    count, size = generation.threads(), config.block_size
    options = dict(n_threads=count, n_threads_batch=count, logits_all=True, verbose=False)
    model = llama_cpp.Llama(path, n_ctx=size, n_batch=size, **options)

    def logits_of(ids):
        model.reset()
        model.eval(ids)
        return model.scores[: len(ids)]

    return logits_of, os.path.getsize(path)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.perplexity", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a run's or a Hugging Face folder")
    parser.add_argument("text", help="a file in UTF-8 that the model has not read")
    parser.add_argument("--ours", nargs="*", default=list(DTYPES), help="formats of ours (default: all)")
    parser.add_argument("--theirs", nargs="*", default=["f32", "q8_0", "q4_0", "q4_k_m"], help="formats of llama.cpp")
    parser.add_argument("--max-tokens", type=int, default=16384, help="tokens of the text (default: 16384)")
    args = parser.parse_args(argv)
    import llama_cpp

    folder = find_model(args.model)
    config, params = huggingface.load_views(folder)
    with open(args.text, encoding="utf-8") as file:
        tokenizer = load_tokenizer(folder)
        ids = tokenizer.encode_ordinary(file.read())[: args.max_tokens]
    begin = tokenizer.begin_ids
    size = config.block_size - len(begin)
    windows = [begin + ids[start : start + size] for start in range(0, len(ids), size) if len(ids) - start > 1]
    print(f"{sum(map(len, windows)) - len(windows):,} tokens in {len(windows)} windows")
    for form in args.ours:
        _report(f"gpt_numpy {form}", *our_logits(config, params, form), windows)
    with tempfile.TemporaryDirectory() as scratch:
        whole = os.path.join(scratch, "f32.gguf")
        gguf_files.save(whole, config, params, tokenizer=None)
        for kind in args.theirs:
            path = whole if kind == "f32" else quantized(llama_cpp, whole, kind)
            _report(f"llama.cpp {kind}", *their_logits(llama_cpp, path, config), windows)


def _report(name, logits_of, n_bytes, windows):
    print(f"{name:22}{n_bytes / 1e6:10.3f} MB   perplexity {perplexity(logits_of, windows):.4f}", flush=True)


if __name__ == "__main__":
    main()
