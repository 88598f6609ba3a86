"""transformers' LlamaForCausalLM with PyTorch's fused attention and fused AdamW: eager, compiled, or with bf16 autocast."""

from . import problem
from .torch_gpt import prepare_step


def model_of(spec):
    """The model of the spec's shape with transformers' own initial values, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gpt_numpy.interop.folder_config import config_fields

    torch.manual_seed(0)
    fields = config_fields(problem.config(spec)) | {"use_cache": False}
    return LlamaForCausalLM._from_config(LlamaConfig(**fields), attn_implementation="sdpa", dtype=torch.float32)


def prepare(name, spec):
    import torch.nn.functional as F

    def loss_of(forward, tokens, targets):
        return F.cross_entropy(forward(tokens).logits.flatten(0, 1), targets.flatten())

    return prepare_step(name, spec, model_of(spec).train(), loss_of)
