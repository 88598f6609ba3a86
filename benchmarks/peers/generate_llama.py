"""llama.cpp through llama-cpp-python: the weights as GGUF in float32, or quantised by llama.cpp itself to q8_0."""

import os

import numpy as np

from . import generation

_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def prepare(name, spec):
    import gguf
    import llama_cpp

    path = os.path.join(spec["folder"], "float32.gguf")
    _write(gguf, path, spec)
    if "q8_0" in name:
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
        source, path = path, os.path.join(spec["folder"], "q8_0.gguf")
        if llama_cpp.llama_model_quantize(source.encode(), path.encode(), options) != 0:
            raise RuntimeError("llama.cpp could not quantise the model")
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


def _write(gguf, path, spec):
    from safetensors.numpy import load_file

    tensors = load_file(os.path.join(spec["folder"], "model.safetensors"))
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(spec["n_layer"])
    writer.add_context_length(spec["block_size"])
    writer.add_embedding_length(spec["n_embd"])
    writer.add_feed_forward_length(4 * spec["n_embd"])
    writer.add_head_count(spec["n_head"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(0)
    writer.add_vocab_size(spec["vocab_size"])
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    writer.add_tensor("token_embd.weight", tensors["wte.weight"])
    writer.add_tensor("output.weight", tensors["wte.weight"])
    writer.add_tensor("position_embd.weight", tensors["wpe.weight"])
    for kind in ("weight", "bias"):
        writer.add_tensor(f"output_norm.{kind}", tensors[f"ln_f.{kind}"])
        for i in range(spec["n_layer"]):
            for ours, theirs in _NAMES.items():  # matrices are (out, in)
                writer.add_tensor(f"blk.{i}.{theirs}.{kind}", np.ascontiguousarray(tensors[f"h.{i}.{ours}.{kind}"].T))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
