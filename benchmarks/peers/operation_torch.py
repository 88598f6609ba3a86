"""One operation by PyTorch: its fused form, eager, compiled, or on tensors that are in bfloat16 already."""

import functools

from ..problems.operations import ADAMW, DECAY
from . import operations


def prepare(name, spec):
    import torch

    arrays, operation = operations.inputs(spec), spec["operation"]
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if "bf16" in name:
        tensors = {key: tensor.bfloat16() for key, tensor in tensors.items()}
    if operation == "block":
        empty = functools.partial(torch.zeros, dtype=next(iter(tensors.values())).dtype)
        return operations.products_step(spec, tensors, _multiply, empty, lambda out: out.float().numpy())
    if operation == "adamw":
        call = _adamw(tensors, torch.compile if "compiled" in name else lambda function: function)
    else:
        forward = _forward(operation)
        call = _both_ways(torch.compile(forward) if "compiled" in name else forward, tensors)
    return operations.step_of(call, spec, [output.detach().float().numpy() for output in call()])


def _multiply(a, b, out, a_t, b_t):
    import torch

    torch.mm(a.T if a_t else a, b.T if b_t else b, out=out)


def _forward(operation):
    import torch.nn.functional as F

    def attention(q, k, v):
        heads = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)

    return {
        "attention": attention,
        "layernorm": lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias, 1e-5),
        "gelu": functools.partial(F.gelu, approximate="tanh"),
        "cross-entropy": F.cross_entropy,
    }[operation]


def _both_ways(forward, tensors):
    import torch

    dout = tensors.pop("dout", None)
    wanted = [x.requires_grad_() for x in tensors.values() if x.is_floating_point()]

    def call():
        out = forward(*tensors.values())
        return out, *torch.autograd.grad(out, wanted, dout)

    return call


def _adamw(tensors, compiled):
    """The optimizer's update of one tensor, fused or compiled."""
    import torch

    params, grads, first, second = tensors.values()
    settings = ADAMW
    options = dict(lr=settings["learning_rate"], betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"])
    params.requires_grad_().grad = grads
    fused = compiled is not torch.compile
    optimizer = torch.optim.AdamW([params], weight_decay=DECAY, fused=fused, **options)
    optimizer.state[params] = {"step": torch.tensor(0.0), "exp_avg": first, "exp_avg_sq": second}
    step = compiled(optimizer.step)

    def call():
        step()
        return params, first, second

    return call
