"""transformers' LlamaForCausalLM with PyTorch's fused attention and fused AdamW: eager, compiled, or with bf16 autocast."""

import contextlib

from . import problem
from .torch_gpt import optimizer_of


def model_of(spec):
    """The model of the spec's shape with transformers' own initial values, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gpt_numpy.interop.folder_config import config_fields

    torch.manual_seed(0)
    fields = config_fields(problem.config(spec)) | {"use_cache": False}
    return LlamaForCausalLM._from_config(LlamaConfig(**fields), attn_implementation="sdpa", dtype=torch.float32)


def prepare(name, spec):
    import torch
    import torch.nn.functional as F

    model = model_of(spec).train()
    forward = torch.compile(model) if "compiled" in name else model
    optimizer = optimizer_of(
        model, problem.LEARNING_RATE, (problem.BETA1, problem.BETA2), problem.WEIGHT_DECAY, fused=True
    )
    tokens, targets = map(torch.from_numpy, problem.batch(spec))

    def precision():
        return torch.autocast("cpu", torch.bfloat16) if "bf16" in name else contextlib.nullcontext()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            logits = forward(tokens).logits
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), problem.CLIP)
        optimizer.step()
        return loss.item()

    return step
