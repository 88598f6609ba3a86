"""Hugging Face transformers on PyTorch: the model opened from the folder as it is, its own cache, greedy choice."""

from . import generation


def prepare(name, spec):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(generation.threads())
    torch.set_grad_enabled(False)
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["folder"]).eval()
    tokens, new = torch.from_numpy(generation.prompts(spec)), spec["new_tokens"]

    def read():
        return model(tokens, use_cache=True, logits_to_keep=1)

    error = generation.error_of(read().logits[:, -1].numpy(), spec)

    def decode(out):
        for _ in range(new):
            chosen = out.logits[:, -1].argmax(1, keepdim=True)
            out = model(chosen, past_key_values=out.past_key_values, use_cache=True)

    def step():
        if not new:
            return error, generation.timed(read)
        out = read()
        return error, generation.timed(lambda: decode(out), new)

    return step
