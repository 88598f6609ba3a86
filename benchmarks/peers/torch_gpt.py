"""A compact GPT-2 with PyTorch's fused attention and fused AdamW: eager, compiled, or with bf16 autocast."""

import contextlib
import math

from gpt_numpy.parameters import INITIAL_STD

from . import problem


def model_of(spec, seed=0, std=INITIAL_STD):
    """The model; its forward takes tokens and targets and returns the mean loss.

    Initial values are GPT-2's, as in ``gpt_numpy.parameters.initialise`` and in nanoGPT, and not those of ``nn.Linear``.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(seed)
    C, n_head = spec["n_embd"], spec["n_head"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.attn, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.fc, self.out = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

        def forward(self, x):
            B, T, _ = x.shape
            heads = self.attn(self.ln_1(x)).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.proj(mixed.transpose(1, 2).reshape(B, T, C))
            return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(spec["vocab_size"], C), nn.Embedding(spec["block_size"], C)
            self.blocks = nn.Sequential(*(Block() for _ in range(spec["n_layer"])))
            self.ln_f = nn.LayerNorm(C)
            into_stream = ("proj.weight", "out.weight")  # of the products that add to the residual stream
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    scale = 1 / math.sqrt(2 * spec["n_layer"]) if name.endswith(into_stream) else 1.0
                    nn.init.normal_(parameter, std=std * scale)
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)

        def forward(self, tokens, targets):
            x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
            logits = F.linear(self.ln_f(self.blocks(x)), self.wte.weight)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Model()


def optimizer_of(model, learning_rate, betas, weight_decay, fused):
    """AdamW with weight decay on the matrices only."""
    import torch

    decayed = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=problem.EPSILON, fused=fused)


def prepare(name, spec):
    return prepare_step(name, spec, model_of(spec), lambda forward, tokens, targets: forward(tokens, targets))


def prepare_step(name, spec, model, loss_of):
    """The function that makes one training step of ``model``, compiled or with bf16 autocast as ``name`` says.

    ``loss_of(forward, tokens, targets)`` is the mean loss of a batch; ``forward`` is the model, or what was compiled of it.
    """
    import torch

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
            loss = loss_of(forward, tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), problem.CLIP)
        optimizer.step()
        return loss.item()

    return step
