"""The page's text for each kind of intermediate: its formula, its gradient, and the source lines of both.

Source lines are found by their text in the installed files. If a line has changed, the search raises an error, so the
page never shows a wrong line number. A gradient that a layer computes is shown with the layer's line. A gradient that a
layer never forms (that of the mean, for example) is shown with the line of ``study.steps``. The derivation is the
backward's docstring.
"""

from __future__ import annotations

import inspect
import pathlib

from ... import layers
from ...errors import ConfigError
from .. import glossary
from . import boxes_beyond_gpt2
from .box import Box

_LAYERNORM = "layernorm_backward"
_ATTENTION = "attention_backward"
_LOSS = "cross_entropy_backward"

BOXES = {
    "embedding.tokens": Box(
        "tokens[t] = wte[token_t]",
        "dwte[v] = Σ of dout over the positions of v",
        ("embedding", "np.take(wte, tokens"),
        ("embedding", "np.add.at(dwte"),
        "embedding_backward",
    ),
    "embedding.positions": Box(
        "positions[t] = wpe[t]",
        "dwpe[t] = Σ over the batch of dout[b, t]",
        ("embedding", "out += wpe[positions]"),
        ("embedding", "np.add.at(dwpe"),
        "embedding_backward",
    ),
    "embedding": Box(
        "x = tokens + positions",
        "a sum hands its gradient to both terms",
        ("embedding", "out += wpe[positions]"),
        ("embedding", "np.add.at(dwte"),
        "embedding_backward",
    ),
    "layernorm.mean": Box(
        "m = mean(x)", "dm = −Σ dc", ("layernorm", "mean = x.mean"), ("steps", 'd["mean"] ='), _LAYERNORM
    ),
    "layernorm.centred": Box(
        "c = x − m",
        "dc = r · dxhat + (2/C) · c · dv",
        ("layernorm", "centred = np.subtract"),
        ("steps", 'd["centred"] ='),
        _LAYERNORM,
    ),
    "layernorm.variance": Box(
        "v = mean(c²)", "dv = −½ r³ · dr", ("layernorm", "variance = np.mean"), ("steps", 'd["variance"] ='), _LAYERNORM
    ),
    "layernorm.rstd": Box(
        "r = 1 / √(v + ε)",
        "dr = Σ dxhat ∘ c",
        ("layernorm", "rstd = 1 / np.sqrt"),
        ("steps", 'd["rstd"] ='),
        _LAYERNORM,
    ),
    "layernorm.xhat": Box(
        "xhat = c · r",
        "dxhat = dout ∘ weight",
        ("layernorm", "out *= rstd"),
        ("layernorm", "dxhat = np.multiply"),
        _LAYERNORM,
    ),
    "layernorm.scaled": Box(
        "s = xhat ∘ weight",
        "ds = dout,  dweight = Σ rows of dout ∘ xhat",
        ("layernorm", "out *= weight"),
        ("layernorm", "dweight = (dout * xhat)"),
        _LAYERNORM,
    ),
    "layernorm": Box(
        "out = xhat ∘ weight + bias",
        "dbias = Σ rows of dout",
        ("layernorm", "out += bias"),
        ("layernorm", "dbias = dout.sum"),
        _LAYERNORM,
    ),
    "attn.c_attn": Box(
        "[q k v] = x · W + b",
        "d[q k v] = the three gradients side by side",
        ("attention", "qkv, attn_cache = linear_forward"),
        ("attention", "view[...] = gradient"),
        "multi_head_attention_backward",
    ),
    "attn.q": Box(
        "q: the first third, a head at a time",
        "dq = s · dS · k,  s = 1/√head_size",
        ("attention", "q, k, v = split_heads(qkv"),
        ("attention", "np.matmul(dscores, shared_heads(k, q)"),
        _ATTENTION,
    ),
    "attn.k": Box(
        "k: the second third",
        "dk = s · dSᵀ · q",
        ("attention", "q, k, v = split_heads(qkv"),
        ("attention", "heads_first(dk)[...] ="),
        _ATTENTION,
    ),
    "attn.v": Box(
        "v: the last third",
        "dv = Pᵀ · dheads",
        ("attention", "q, k, v = split_heads(qkv"),
        ("attention", "heads_first(dv)[...] ="),
        _ATTENTION,
    ),
    "attn.products": Box(
        "q · kᵀ",
        "d(q kᵀ) = s · dS",
        ("attention", "scores = heads_first(q) @"),
        ("attention", "dscores *= "),
        _ATTENTION,
    ),
    "attn.scores": Box(
        "S = q · kᵀ / √head_size",
        "dS = P ∘ (dP − rowsum(dP ∘ P))",
        ("attention", "scores *= scale"),
        ("attention", "dscores = softmax_backward"),
        "attention.softmax_backward",
    ),
    "attn.weights": Box(
        "P = softmax(S over the keys seen)",
        "dP = dheads · vᵀ: also for keys that are not seen, where P = 0 and nothing passes",
        ("attention", "weights = softmax(np.where"),
        ("attention", "dweights = dout @"),
        _ATTENTION,
    ),
    "attn.heads": Box(
        "heads = P · v",
        "dheads = dout · Wᵀ",
        ("attention", "np.matmul(dropped, shared_heads(v, q)"),
        ("attention", "dheads, dproj_weight"),
        _ATTENTION,
    ),
    "attn": Box(
        "out = heads · W + b",
        "dW = headsᵀ · dout,  db = Σ rows of dout",
        ("attention", "out, proj_cache = linear_forward"),
        ("attention", "dheads, dproj_weight"),
        "linear_backward",
    ),
    "residual": Box(
        "x = x + branch",
        "dx = dout,  dbranch = dout",
        ("residual", "return np.add(x, branch"),
        ("residual", "return dout, dbranch"),
        "residual_backward",
    ),
    "mlp.c_fc": Box(
        "h = x · W + b",
        "dh = dgelu ∘ gelu'(h)",
        ("mlp", "hidden, fc_cache = linear_forward"),
        ("mlp", "dhidden = activate_backward"),
        "mlp_backward",
    ),
    "mlp.gelu.u": Box(
        "u = √(2/π) · (h + 0.044715 · h³)",
        "du = dtanh · (1 − tanh²(u))",
        ("gelu", "return SCALE * (x + CUBIC"),
        ("steps", 'd["gelu.u"] ='),
        "gelu_backward",
    ),
    "mlp.gelu.tanh": Box(
        "t = tanh(u)", "dt = ½ dgate", ("gelu", "gate = 0.5 *"), ("steps", 'd["gelu.tanh"] ='), "gelu_backward"
    ),
    "mlp.gelu.gate": Box(
        "gate = ½ (1 + t)",
        "dgate = dgelu ∘ h",
        ("gelu", "gate = 0.5 *"),
        ("steps", 'd["gelu.gate"] ='),
        "gelu_backward",
    ),
    "mlp.gelu": Box(
        "gelu(h) = h ∘ gate",
        "dgelu = dout · Wᵀ",
        ("gelu", "out = np.multiply(finite, gate"),
        ("mlp", "dactivated, dproj_weight"),
        "gelu_backward",
    ),
    "mlp": Box(
        "out = gelu(h) · W + b",
        "dW = gelu(h)ᵀ · dout,  db = Σ rows of dout",
        ("mlp", "out, proj_cache = linear_forward"),
        ("mlp", "dactivated, dproj_weight"),
        "mlp_backward",
    ),
    "lm_head.logits": Box(
        "logits = x · wteᵀ",
        "dlogits = (softmax − one-hot of the target) / N",
        ("lm_head", "logits = np.matmul(x, wte.T"),
        ("steps", 'd["logits"] ='),
        _LOSS,
    ),
    "lm_head.log_normaliser": Box(
        "z = log Σ exp(logits)",
        "dz = 1/N:  −Σ dlog p",
        ("cross_entropy", "total = shifted.sum"),
        ("steps", 'd["log_normaliser"] ='),
        _LOSS,
    ),
    "lm_head.log_probabilities": Box(
        "log p = logits − z",
        "dlog p = −1/N at the target, 0 elsewhere",
        ("cross_entropy", "losses = np.log(total"),
        ("steps", 'np.put_along_axis(d["log_probabilities"]'),
        _LOSS,
    ),
    "lm_head.losses": Box(
        "loss_t = −log p[target_t]",
        "dloss_t = 1/N",
        ("cross_entropy", "losses = np.log(total"),
        ("steps", 'd["losses"] ='),
        _LOSS,
    ),
    "lm_head.loss": Box(
        "loss = mean of loss_t",
        "1: the backward pass begins here",
        ("cross_entropy", "loss = float("),
        ("steps", 'd = {"loss":'),
        _LOSS,
    ),
}

BOXES |= boxes_beyond_gpt2.BOXES

_GROUPS = {
    "h.ln_1": "layernorm",
    "h.ln_2": "layernorm",
    "ln_f": "layernorm",
    "h.attn": "attn",
    "h.mlp": "mlp",
    "h.residual_1": "residual",
    "h.residual_2": "residual",
    "embedding": "embedding",
    "lm_head": "lm_head",
}


def box_name(kind, kinds=()):
    """The key in ``BOXES`` for a trace's kind: all norms share theirs.

    kinds: all of the trace, which tell RMSNorm and heads that are normed or turned
    """
    group = max((g for g in _GROUPS if kind == g or kind.startswith(g + ".")), key=len)
    name = "rmsnorm" if f"{group}.square" in kinds or kind == f"{group}.square" else _GROUPS[group]
    if kind in ("h.attn.q", "h.attn.k", "h.attn.v") and {"h.attn.q.turned", "h.attn.q.normed"} & set(kinds):
        return name + kind[len(group) :] + ".columns"  # GPT-2 cuts thirds, and attends to them as they are
    return name + kind[len(group) :]


def described(name):
    """The box in the page's form: texts, and for both directions the file, the line's number and its text."""
    box = BOXES[name]
    module, _, function = box.derivation.rpartition(".")
    home = getattr(layers, module) if module else layers
    return {
        "formula": box.formula,
        "gradient": box.gradient,
        "symbols": glossary.explained(f"{box.formula}  {box.gradient}", name.partition(".")[0]),
        "forward": _source(*box.forward),
        "backward": _source(*box.backward),
        "derivation": (inspect.getdoc(getattr(home, function)) or "").replace("``", ""),
    }


def _source(module, text):
    folder = "study" if module.startswith("steps") else "layers"
    path = pathlib.Path(layers.__file__).parents[1] / folder / f"{module}.py"
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, start=1) if line.strip().startswith(text)]
    if not found:
        raise ConfigError("no such source line", path=path, found=text)
    return {"file": f"{folder}/{module}.py", "line": found[-1], "code": lines[found[-1] - 1].strip()}
