"""gpt_numpy's generation: packed weights, greedy choice; also the share of the memory's speed, measured in between."""

import statistics

import numpy as np

from . import generation


def prepare(name, spec):
    from gpt_numpy import machine
    from gpt_numpy.inference.cache import KVCache
    from gpt_numpy.inference.packed import PackedWeights
    from gpt_numpy.inference.panel_decoder import PanelDecoder
    from gpt_numpy.interop import huggingface
    from gpt_numpy.machine.cost import generation_bytes_per_token, generation_flops_per_token

    config, params = huggingface.load_views(spec["folder"])
    decoder = PanelDecoder(PackedWeights.pack(config, params, generation.format_of(name, spec)))
    tokens, new = generation.prompts(spec), spec["new_tokens"]
    B, T = tokens.shape
    cache = KVCache(config, B, T + new)
    first = decoder.extend(tokens, cache)
    error, shares = generation.error_of(first, spec), []

    def decode():
        chosen = first.argmax(1)
        for _ in range(new):
            chosen = decoder.step_to_largest(chosen, cache, 1)[0][:, 0]

    def step():
        if not new:
            cache.lengths[:] = 0
            seconds = generation.timed(lambda: decoder.extend(tokens, cache))
            flops = T * generation_flops_per_token(config, T / 2, logits=False)
            shares.append(flops / seconds / machine.peak_flops())
            return error, seconds
        cache.lengths[:] = T
        seconds = generation.timed(decode, new)
        read = generation_bytes_per_token(config, decoder.weights.bytes_per_token, B * (T + new / 2))
        shares.append(read / seconds / machine.read_bandwidth())
        return error, seconds

    what = "read bandwidth" if new else "peak multiply-adds"
    step.report = lambda: {f"share of {what}": float(np.round(statistics.median(shares), 3))}
    return step
