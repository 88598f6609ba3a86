import pathlib
import re

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study import trace
from gpt_numpy.study.microscope import boxes, boxes_beyond_gpt2, build_page
from gpt_numpy.study.whole_model import unit_scale
from tests.study.letters import Letters


def test_every_kind_without_dropout_has_its_box():
    assert boxes.box_name("h.ln_1.xhat") == boxes.box_name("ln_f.xhat") == "layernorm.xhat"
    assert boxes.box_name("h.ln_2") == "layernorm" and boxes.box_name("h.residual_2") == "residual"
    assert boxes.box_name("h.attn.c_attn") == "attn.c_attn" and boxes.box_name("embedding") == "embedding"


@pytest.mark.parametrize("name", boxes.BOXES)
def test_source_lines_and_derivations_are_there(name):
    described = boxes.described(name)
    for side in ("forward", "backward"):
        place = described[side]
        path = pathlib.Path(layers.__file__).parents[1] / place["file"]
        assert path.read_text(encoding="utf-8").splitlines()[place["line"] - 1].strip() == place["code"]
        assert getattr(boxes.BOXES[name], side)[1] in place["code"]
    assert len(described["derivation"]) > 80 and described["formula"] and described["gradient"]


def test_a_source_line_that_is_gone_is_an_error(monkeypatch):
    monkeypatch.setitem(boxes.BOXES, "mlp", boxes.BOXES["mlp"]._replace(forward=("mlp", "no such line")))
    with pytest.raises(ConfigError, match="no such source line"):
        boxes.described("mlp")


def test_a_line_of_the_steps_is_that_of_the_box():
    for name in boxes.BOXES:
        described = boxes.described(name)["backward"]
        if described["file"] == "study/steps.py" and "{name}" not in described["code"]:
            key = re.search(r'"(\w[\w.]*)"', described["code"])[1]
            assert name.endswith(f".{key}"), (name, described["code"])


def mean(a):
    return a.mean(axis=-1, keepdims=True)


def total(a):
    return a.sum(axis=-1, keepdims=True)


def rows(a):
    return a.reshape(-1, a.shape[-1])


def heads_first(a):
    return a.swapaxes(1, 2)


def slope(h):
    u = np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)
    du = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * h**2)
    return 0.5 * (1 + np.tanh(u)) + 0.5 * h * (1 - np.tanh(u) ** 2) * du


# box → its two texts, and both evaluated: v and g are the traced values and gradients of the box's group (x: what goes
# in), w the group's parameters, dw their gradients
EVALUATED = {
    "layernorm.mean": ("m = mean(x)", "dm = −Σ dc", lambda v, w: mean(v["x"]), lambda v, g, w: -total(g["centred"])),
    "layernorm.centred": (
        "c = x − m",
        "dc = r · dxhat + (2/C) · c · dv",
        lambda v, w: v["x"] - v["mean"],
        lambda v, g, w: v["rstd"] * g["xhat"] + 2 / v["x"].shape[-1] * v["centred"] * g["variance"],
    ),
    "layernorm.variance": (
        "v = mean(c²)",
        "dv = −½ r³ · dr",
        lambda v, w: mean(v["centred"] ** 2),
        lambda v, g, w: -0.5 * v["rstd"] ** 3 * g["rstd"],
    ),
    "layernorm.rstd": (
        "r = 1 / √(v + ε)",
        "dr = Σ dxhat ∘ c",
        lambda v, w: 1 / np.sqrt(v["variance"] + 1e-5),
        lambda v, g, w: total(g["xhat"] * v["centred"]),
    ),
    "layernorm.xhat": (
        "xhat = c · r",
        "dxhat = dout ∘ weight",
        lambda v, w: v["centred"] * v["rstd"],
        lambda v, g, w: g[""] * w["weight"],
    ),
    "layernorm.scaled": (
        "s = xhat ∘ weight",
        "ds = dout,  dweight = Σ rows of dout ∘ xhat",
        lambda v, w: v["xhat"] * w["weight"],
        lambda v, g, w: g[""],
    ),
    "attn.scores": (
        "S = q · kᵀ / √head_size",
        "dS = P ∘ (dP − rowsum(dP ∘ P))",
        lambda v, w: heads_first(v["q"]) @ heads_first(v["k"]).swapaxes(-1, -2) / np.sqrt(v["q"].shape[-1]),
        lambda v, g, w: v["weights"] * (g["weights"] - total(g["weights"] * v["weights"])),
    ),
    "attn.products": (
        "q · kᵀ",
        "d(q kᵀ) = s · dS",
        lambda v, w: heads_first(v["q"]) @ heads_first(v["k"]).swapaxes(-1, -2),
        lambda v, g, w: g["scores"] / np.sqrt(v["q"].shape[-1]),
    ),
    "attn.weights": (
        "P = softmax(S over the keys seen)",
        "dP = dheads · vᵀ: also for keys that are not seen, where P = 0 and nothing passes",
        lambda v, w: layers.attention.softmax(
            np.where(np.tri(v["scores"].shape[-1], dtype=bool), v["scores"], -np.inf)
        ),
        lambda v, g, w: heads_first(g["heads"]) @ heads_first(v["v"]).swapaxes(-1, -2),
    ),
    "attn.q": (
        "q: the first third, a head at a time",
        "dq = s · dS · k,  s = 1/√head_size",
        lambda v, w: layers.attention.split_heads(v["c_attn"], v["q"].shape[2])[0],
        lambda v, g, w: heads_first(g["scores"] @ heads_first(v["k"])) / np.sqrt(v["q"].shape[-1]),
    ),
    "attn.k": (
        "k: the second third",
        "dk = s · dSᵀ · q",
        lambda v, w: layers.attention.split_heads(v["c_attn"], v["q"].shape[2])[1],
        lambda v, g, w: heads_first(g["scores"].swapaxes(-1, -2) @ heads_first(v["q"])) / np.sqrt(v["q"].shape[-1]),
    ),
    "attn.v": (
        "v: the last third",
        "dv = Pᵀ · dheads",
        lambda v, w: layers.attention.split_heads(v["c_attn"], v["q"].shape[2])[2],
        lambda v, g, w: heads_first(v["weights"].swapaxes(-1, -2) @ heads_first(g["heads"])),
    ),
    "attn.heads": (
        "heads = P · v",
        "dheads = dout · Wᵀ",
        lambda v, w: heads_first(v["weights"] @ heads_first(v["v"])),
        lambda v, g, w: (g[""] @ w["c_proj.weight"].T).reshape(v["heads"].shape),
    ),
    "attn.c_attn": (
        "[q k v] = x · W + b",
        "d[q k v] = the three gradients side by side",
        lambda v, w: v["x"] @ w["c_attn.weight"] + w["c_attn.bias"],
        lambda v, g, w: np.concatenate([g[n].reshape(v["x"].shape) for n in "qkv"], axis=-1),
    ),
    "mlp.c_fc": (
        "h = x · W + b",
        "dh = dgelu ∘ gelu'(h)",
        lambda v, w: v["x"] @ w["c_fc.weight"] + w["c_fc.bias"],
        lambda v, g, w: g["gelu"] * slope(v["c_fc"]),
    ),
    "mlp.gelu.u": (
        "u = √(2/π) · (h + 0.044715 · h³)",
        "du = dtanh · (1 − tanh²(u))",
        lambda v, w: np.sqrt(2 / np.pi) * (v["c_fc"] + 0.044715 * v["c_fc"] ** 3),
        lambda v, g, w: g["gelu.tanh"] * (1 - np.tanh(v["gelu.u"]) ** 2),
    ),
    "mlp.gelu.tanh": (
        "t = tanh(u)",
        "dt = ½ dgate",
        lambda v, w: np.tanh(v["gelu.u"]),
        lambda v, g, w: g["gelu.gate"] / 2,
    ),
    "mlp.gelu.gate": (
        "gate = ½ (1 + t)",
        "dgate = dgelu ∘ h",
        lambda v, w: (1 + v["gelu.tanh"]) / 2,
        lambda v, g, w: g["gelu"] * v["c_fc"],
    ),
    "mlp.gelu": (
        "gelu(h) = h ∘ gate",
        "dgelu = dout · Wᵀ",
        lambda v, w: v["c_fc"] * v["gelu.gate"],
        lambda v, g, w: g[""] @ w["c_proj.weight"].T,
    ),
    "lm_head.log_normaliser": (
        "z = log Σ exp(logits)",
        "dz = 1/N:  −Σ dlog p",
        lambda v, w: np.log(total(np.exp(v["logits"]))),
        lambda v, g, w: -total(g["log_probabilities"]),
    ),
    "lm_head.log_probabilities": (
        "log p = logits − z",
        "dlog p = −1/N at the target, 0 elsewhere",
        lambda v, w: v["logits"] - v["log_normaliser"],
        lambda v, g, w: -w["one_hot"] / w["N"],
    ),
    "lm_head.logits": (
        "logits = x · wteᵀ",
        "dlogits = (softmax − one-hot of the target) / N",
        lambda v, w: v["x"] @ w["wte"].T,
        lambda v, g, w: (np.exp(v["log_probabilities"]) - w["one_hot"]) / w["N"],
    ),
    "lm_head.losses": (
        "loss_t = −log p[target_t]",
        "dloss_t = 1/N",
        lambda v, w: -(v["log_probabilities"] * w["one_hot"]).sum(axis=-1),
        lambda v, g, w: np.full(v["losses"].shape, 1 / w["N"]),
    ),
    "lm_head.loss": (
        "loss = mean of loss_t",
        "1: the backward pass begins here",
        lambda v, w: v["losses"].mean(),
        lambda v, g, w: 1.0,
    ),
}
_WHERE = {"layernorm": ("h.1.ln_2", "h.1.residual_1"), "attn": ("h.1.attn", "h.1.ln_1"), "mlp": ("h.1.mlp", "h.1.ln_2")}


def traced(tokens, targets, **fields):
    """(model, trace, loss) of one pass, forward and backward, of a model whose every tensor matters."""
    model = GPT(GPTConfig(11, 8, n_layer=2, **fields), dtype=np.float64, ops=layers)
    unit_scale(model.params, np.random.default_rng(0))
    with trace(model) as t:
        loss = model.loss(tokens, targets)
        model.backward()
    return model, t, loss


PAIR = np.random.default_rng(1).integers(0, 11, (2, 2, 5))  # tokens and targets
ROW = np.array([[[1, 2, 3, 4, 5]], [[2, 3, 4, 5, 6]]])
WIDE, NARROW = dict(n_head=3, n_embd=12), dict(n_head=2, n_embd=8)


@pytest.fixture(scope="module")
def traced_model():
    return traced(*PAIR, **WIDE)


@pytest.mark.parametrize("name", EVALUATED)
def test_formula_and_gradient_of_a_box_are_what_the_trace_holds(name, traced_model):
    model, t, _ = traced_model
    targets = PAIR[1]
    formula, gradient, value_of, gradient_of = EVALUATED[name]
    assert (boxes.BOXES[name].formula, boxes.BOXES[name].gradient) == (formula, gradient)
    group, _, own = name.partition(".")
    prefix, below = _WHERE.get(group, ("lm_head", "ln_f"))
    names = {n.removeprefix(prefix).removeprefix("."): n for n in t if n == prefix or n.startswith(prefix + ".")}
    v, g = {n: t[full].value for n, full in names.items()}, {n: t[full].grad for n, full in names.items()}
    v["x"] = t[below].value
    w = {n.removeprefix(prefix + "."): p for n, p in model.params.items()}
    w |= {"one_hot": np.eye(11)[targets], "N": targets.size, "wte": model.params["wte.weight"]}
    assert np.allclose(value_of(v, w), v[own], rtol=1e-10, atol=1e-12)
    assert np.allclose(gradient_of(v, g, w), g[own], rtol=1e-9, atol=1e-12)


_SILU = np.vectorize(lambda x: x / (1 + np.exp(-x)))
_SILU_SLOPE = np.vectorize(lambda x: (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2)
GATED = {
    "gate": (
        lambda v, w: np.split(v["c_fc"], 2, axis=-1)[0],
        lambda v, g, w: g["gate.activated"] * _SILU_SLOPE(v["gate"]),
    ),
    "up": (lambda v, w: np.split(v["c_fc"], 2, axis=-1)[1], lambda v, g, w: g["activation"] * v["gate.activated"]),
    "gate.activated": (lambda v, w: _SILU(v["gate"]), lambda v, g, w: g["activation"] * v["up"]),
    "activation": (lambda v, w: v["gate.activated"] * v["up"], lambda v, g, w: g[""] @ w["c_proj.weight"].T),
}


def test_boxes_of_a_gated_layer_are_what_the_trace_holds():
    model, t, _ = traced(*PAIR, **WIDE, mlp="swiglu")
    names = {n.removeprefix("h.1.mlp").removeprefix("."): n for n in t if n.startswith("h.1.mlp")}
    v, g = {n: t[full].value for n, full in names.items()}, {n: t[full].grad for n, full in names.items()}
    w = {n.removeprefix("h.1.mlp."): p for n, p in model.params.items()}
    for own, (value_of, gradient_of) in GATED.items():
        assert np.allclose(value_of(v, w), v[own]) and np.allclose(gradient_of(v, g, w), g[own]), own
    assert t.faults() == []


LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_kv_head=1, bias=False)
MODELS = [dict(mlp="relu2"), dict(mlp="gelu_erf"), LLAMA, {**LLAMA, "qk_norm": True, "sliding_window": 3}]


@pytest.mark.parametrize("parts", MODELS, ids=str)
def test_every_kind_of_model_has_a_page(parts):
    model, t, loss = traced(*ROW, **NARROW, **parts)
    assert t.faults() == []
    for kind in t.kinds():
        name = boxes.box_name(kind, t.kinds())
        assert boxes.described(name)["formula"]
        if ".ln_" in kind and parts.get("norm") == "rmsnorm":
            assert name.startswith("rmsnorm")
    page = build_page(model, Letters(), "bcdefg")
    assert f'"loss": {loss!r}' in page


def test_boxes_of_rmsnorm_are_what_the_trace_holds():
    model, t, _ = traced(*ROW, **NARROW, **LLAMA)
    x, w, epsilon = t["h.0.residual_2"].value, model.params["h.1.ln_1.weight"], model.config.norm_epsilon
    s, r, xhat, out = (t[f"h.1.ln_1{n}"] for n in (".square", ".rrms", ".xhat", ""))
    assert np.allclose(s.value, mean(x**2)) and np.allclose(r.value, 1 / np.sqrt(s.value + epsilon))
    assert np.allclose(xhat.value, x * r.value) and np.allclose(out.value, xhat.value * w)
    assert np.allclose(s.grad, -0.5 * r.value**3 * r.grad) and np.allclose(r.grad, total(xhat.grad * x))
    assert np.allclose(xhat.grad, out.grad * w)


def test_boxes_of_heads_that_are_turned_and_share_keys_are_what_the_trace_holds():
    model, t, _ = traced(*ROW, **NARROW, **LLAMA)
    named = {kind: boxes.box_name(kind, t.kinds()) for kind in t.kinds() if kind.startswith("h.attn.")}
    assert not any("third" in boxes.BOXES[name].formula for name in named.values())
    assert [named[f"h.attn.{n}"] for n in "qkv"] == [f"attn.{n}.columns" for n in "qkv"]
    q, k, v, heads, P, dS = (t[f"h.1.attn.{n}"] for n in ("q.turned", "k.turned", "v", "heads", "weights", "scores"))
    s = 0.5  # 1/√head_size
    assert np.allclose(q.grad, s * np.einsum("bhij,bjd->bihd", dS.grad, k.value[:, :, 0]))
    assert np.allclose(k.grad[:, :, 0], s * np.einsum("bhij,bihd->bjd", dS.grad, q.value))
    assert np.allclose(v.grad[:, :, 0], np.einsum("bhij,bihd->bjd", P.value, heads.grad))
    rotation = model.parts.attention.seen(np.arange(5), None, (1, 5), np.float64).rotation
    for name, turned in (("q", q), ("k", k)):
        own = t[f"h.1.attn.{name}"]
        assert np.allclose(
            own.grad, layers.rotary_backward(turned.grad, layers.rotary.RotaryCache(rotation, own.grad.shape))
        )


def test_what_is_not_evaluated_is_a_sum_or_a_parameter():
    left = set(boxes.BOXES) - set(EVALUATED) - set(boxes_beyond_gpt2.BOXES)
    assert left == {"embedding", "embedding.tokens", "embedding.positions", "layernorm", "attn", "residual", "mlp"}


def test_no_marks_of_the_source_are_left():
    assert not [name for name in boxes.BOXES if "``" in str(boxes.described(name))]
