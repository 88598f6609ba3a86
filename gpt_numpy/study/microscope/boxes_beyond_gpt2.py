"""The boxes of the layers that came after GPT-2: RMSNorm, gated activations, rotary positions."""

from __future__ import annotations

from .box import Box

_ANY = "steps_of_any_model"
_PREPARED = "multi_head_attention_backward"

BOXES = {
    "rmsnorm.square": Box(
        "s = mean(x²)", "ds = −½ r³ · dr", ("rmsnorm", "square = np.mean"), (_ANY, 'd["square"] ='), "rmsnorm_backward"
    ),
    "rmsnorm.rrms": Box(
        "r = 1 / √(s + ε)",
        "dr = Σ dxhat ∘ x",
        ("rmsnorm", "rrms = 1 / np.sqrt"),
        (_ANY, 'd["rrms"] ='),
        "rmsnorm_backward",
    ),
    "rmsnorm.xhat": Box(
        "xhat = x · r",
        "dxhat = dout ∘ weight",
        ("rmsnorm", "out = np.multiply(x, rrms"),
        ("rmsnorm", "dxhat = np.multiply"),
        "rmsnorm_backward",
    ),
    "rmsnorm": Box(
        "out = xhat ∘ weight",
        "dweight = Σ rows of dout ∘ xhat",
        ("rmsnorm", "out *= weight"),
        ("rmsnorm", "dweight = (dout * xhat)"),
        "rmsnorm_backward",
    ),
    "attn.q.columns": Box(
        "q: its columns of [q k v], a head at a time",
        "dq: the gradient of the next box of q, turned back or through its norm",
        ("attention", "q, k, v = split_heads(qkv"),
        (_ANY, "d[name] = gradient"),
        _PREPARED,
    ),
    "attn.k.columns": Box(
        "k: its columns of [q k v], a head at a time",
        "dk: the gradient of the next box of k, turned back or through its norm",
        ("attention", "q, k, v = split_heads(qkv"),
        (_ANY, "d[name] = gradient"),
        _PREPARED,
    ),
    "attn.v.columns": Box(
        "v: its columns of [q k v], a head at a time",
        "dv = Pᵀ · dheads, summed over the query heads that share it",
        ("attention", "q, k, v = split_heads(qkv"),
        ("attention", "heads_first(dv)[...] ="),
        "attention_backward",
    ),
    "attn.q.normed": Box(
        "q, each head's rows through RMSNorm",
        "turned back, if q is turned after it",
        ("attention", "x, norm = rmsnorm_forward"),
        (_ANY, 'd[f"{name}.normed"] ='),
        _PREPARED,
    ),
    "attn.k.normed": Box(
        "k, each head's rows through RMSNorm",
        "turned back, if k is turned after it",
        ("attention", "x, norm = rmsnorm_forward"),
        (_ANY, 'd[f"{name}.normed"] ='),
        _PREPARED,
    ),
    "attn.q.turned": Box(
        "q, each pair turned by its position's angle",
        "s · dS · k,  s = 1/√head_size, with the turned keys",
        ("attention", "x, turn = rotary_forward"),
        (_ANY, 'd[f"{name}.turned"] ='),
        _PREPARED,
    ),
    "attn.k.turned": Box(
        "k, each pair turned by its position's angle",
        "s · dSᵀ · q, with the turned queries, summed over the query heads that share it",
        ("attention", "x, turn = rotary_forward"),
        (_ANY, 'd[f"{name}.turned"] ='),
        _PREPARED,
    ),
    "mlp.gate": Box(
        "gate: the left half of h",
        "dgate = df(gate) ∘ f'(gate)",
        ("activation", "gate, up = halves(hidden"),
        ("activation", "dgate[...] ="),
        "swiglu_backward",
    ),
    "mlp.up": Box(
        "up: the right half of h",
        "dup = da ∘ f(gate)",
        ("activation", "gate, up = halves(hidden"),
        ("activation", "np.multiply(dout, activated, out=dup"),
        "swiglu_backward",
    ),
    "mlp.gate.activated": Box(
        "f(gate)",
        "df(gate) = da ∘ up",
        ("activation", "activated, _ = activation_forward"),
        ("steps", 'd["gate.activated"] ='),
        "swiglu_backward",
    ),
    "mlp.activation": Box(
        "a = f(h), or f(gate) ∘ up with a gate",
        "da = dout · Wᵀ",
        ("mlp", "activated, gelu_cache = activate"),
        ("mlp", "dactivated, dproj_weight"),
        "mlp_backward",
    ),
}
