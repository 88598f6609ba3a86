"""CTranslate2's generator, float32 or int8, on the weights in its own format.

CTranslate2 generates whole texts only. The time of a token is therefore taken from the difference between the times of
a longer and a shorter text.
"""

import os

import numpy as np

from . import generation

_SHORT = 2  # tokens


def prepare(name, spec):
    import ctranslate2
    from ctranslate2.specs import common_spec, transformer_spec

    folder = os.path.join(spec["folder"], "ctranslate2")
    if not os.path.exists(folder):
        _write(common_spec, transformer_spec, folder, spec)
    generator = ctranslate2.Generator(
        folder,
        device="cpu",
        compute_type=generation.format_of(name, spec),
        inter_threads=1,
        intra_threads=generation.threads(),
    )
    texts, new = [[str(i) for i in row] for row in generation.prompts(spec).tolist()], spec["new_tokens"]
    error = generation.error_of(np.array(generator.forward_batch(texts))[:, -1], spec)

    def write(count):
        results = generator.generate_batch(
            texts,
            max_length=count,
            min_length=count,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        if any(len(result.sequences_ids[0]) != count for result in results):
            raise RuntimeError(f"CTranslate2 did not write {count} tokens")

    def step():
        if not new:
            return error, generation.timed(lambda: write(1))
        short = generation.timed(lambda: write(_SHORT))
        return error, (generation.timed(lambda: write(_SHORT + new)) - short) / new

    return step


def _write(common_spec, transformer_spec, folder, spec):
    from safetensors.numpy import load_file

    tensors = load_file(os.path.join(spec["folder"], "model.safetensors"))
    model = transformer_spec.TransformerDecoderModelSpec.from_config(
        spec["n_layer"], spec["n_head"], pre_norm=True, activation=common_spec.Activation.GELUTanh
    )
    decoder = model.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = tensors["wte.weight"]
    decoder.position_encodings.encodings = tensors["wpe.weight"]

    def layernorm(target, source):
        target.gamma, target.beta = tensors[f"{source}.weight"], tensors[f"{source}.bias"]

    def linear(target, source):
        target.weight, target.bias = np.ascontiguousarray(tensors[f"{source}.weight"].T), tensors[f"{source}.bias"]

    layernorm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        layernorm(layer.self_attention.layer_norm, f"h.{i}.ln_1")
        linear(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
        layernorm(layer.ffn.layer_norm, f"h.{i}.ln_2")
        linear(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")
    last = str(spec["vocab_size"] - 1)
    model.register_vocabulary([str(i) for i in range(spec["vocab_size"])])
    model.config.unk_token = model.config.bos_token = model.config.eos_token = last
    model.validate()
    model.optimize()
    os.makedirs(folder)
    model.save(folder)
