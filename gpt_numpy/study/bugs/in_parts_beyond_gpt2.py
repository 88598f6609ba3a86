"""Bugs in the layers that came after GPT-2: RMSNorm, the gated activation, rotary positions."""

from .planting import Bug

_RMSNORM = "rmsnorm.py"
_ROTARY = "rotary.py"
_ACTIVATION = "activation.py"

BUGS = [
    Bug(
        "rmsnorm-stretch-term-forgotten",
        _RMSNORM,
        "    dx -= xhat\n",
        "",
        "rmsnorm: differences of x",
        "Multiply the numeric dx of a row with the row, entry by entry, and add up; then the analytic one.",
        "Every x moves r = 1/√(mean(x²) + ε), and so every output of its row. Without the term −xhat · mean(dxhat ∘ xhat), "
        "dx has a component along the row, though scaling the row does not change the output.",
    ),
    Bug(
        "rmsnorm-mean-term-too-many",
        _RMSNORM,
        "    dx = dxhat\n",
        "    dx = dxhat - dxhat.mean(axis=-1, keepdims=True)\n",
        "rmsnorm: differences of x",
        "Sum the analytic dx over a row. Must it be 0?",
        "This is the backward of layernorm. RMSNorm does not subtract the mean, so a shift of the row changes the output "
        "and the rows of dx need not sum to 0.",
    ),
    Bug(
        "rmsnorm-sum-for-mean",
        _RMSNORM,
        "stretch = (dxhat * xhat).mean(axis=-1, keepdims=True)",
        "stretch = (dxhat * xhat).sum(axis=-1, keepdims=True)",
        "rmsnorm: differences of x",
        "The error lies along xhat, and is C − 1 times what is expected there.",
        "The mean square divides by C, and so does its derivative, (2/C) · x.",
    ),
    Bug(
        "rmsnorm-weight-forgotten",
        _RMSNORM,
        "dxhat = np.multiply(dout, weight, out=alloc(x.shape, x.dtype))",
        "dxhat = np.multiply(dout, 1, out=alloc(x.shape, x.dtype))",
        "rmsnorm: differences of x",
        "In a fresh model, where every weight is 1, nothing fails.",
        "out = xhat ∘ weight, so dxhat = dout ∘ weight.",
    ),
    Bug(
        "rmsnorm-variance-for-mean-square",
        _RMSNORM,
        "square = np.mean(x * x, axis=-1, keepdims=True)",
        "square = np.var(x, axis=-1, keepdims=True)",
        "rmsnorm: differences of x",
        "On rows whose mean is 0, nothing fails. Is it the backward that is wrong?",
        "The forward divides by the standard deviation, as a layernorm does. RMSNorm divides by the root of the mean square.",
    ),
    Bug(
        "swiglu-up-forgotten",
        _ACTIVATION,
        "dgate[...] = activation_backward(dout * up, cache)",
        "dgate[...] = activation_backward(dout, cache)",
        "swiglu: differences of hidden",
        "The right half of the gradient is right. Which factor is the left half short of?",
        "out = f(gate) ∘ up is a product: the gradient of f(gate) is dout ∘ up.",
    ),
    Bug(
        "swiglu-slope-forgotten",
        _ACTIVATION,
        "dgate[...] = activation_backward(dout * up, cache)",
        "dgate[...] = dout * up",
        "swiglu: differences of hidden",
        "The left half is right where the gate is large and positive, and wrong elsewhere.",
        "The gate goes through f before it multiplies: dgate = dout ∘ up ∘ f'(gate).",
    ),
    Bug(
        "swiglu-gate-not-activated",
        _ACTIVATION,
        "np.multiply(dout, activated, out=dup)",
        "np.multiply(dout, gate, out=dup)",
        "swiglu: differences of hidden",
        "The left half of the gradient is right. By what was the right half multiplied in the forward?",
        "up was multiplied by f(gate), not by the gate itself.",
    ),
    Bug(
        "rotary-gradient-turned-the-same-way",
        _ROTARY,
        "turned(dout, cache.rotation, alloc, -1)",
        "turned(dout, cache.rotation, alloc, 1)",
        "rotary: differences of x",
        "Where the angle is 0 or π the gradient is right.",
        "A rotation's transpose is its inverse: the gradient is turned by −angle.",
    ),
    Bug(
        "rotary-neighbours-exchanged",
        _ROTARY,
        "return x[..., 0::2], x[..., 1::2]",
        "return x[..., 1::2], x[..., 0::2]",
        "rotary (neighbours): value",
        "Every difference agrees. Is (a, b) turned towards b, or away from it?",
        "The two numbers of a pair are exchanged, which turns by −angle. The gradient is right for that function, and a "
        "model trained with it works; a model trained elsewhere does not.",
    ),
]
