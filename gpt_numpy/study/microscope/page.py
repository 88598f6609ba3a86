"""From a model and a text to the page: trace a pass, quantise its tensors, and write them into one HTML file.

Values become one signed byte each, code = ±127 · √(|x| / max): the root keeps small gradients visible next to
large ones. Tensors too wide to show are pooled over channels: the entry of largest magnitude represents its
neighbours. The statistics beside each picture are those of the exact numbers.
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import math

import numpy as np

from ...errors import GenerationError
from ...tokenizer.rendering import visible
from ...tokenizer.specials import begun
from ..trace import kind, trace
from .boxes import box_name, described

BYTES = 3_000_000  # of all codes together; base64 and the rest bring the page to under 5 MB
_TOP = 5  # predictions listed for a token


def build_page(model, tokenizer, text, name="model", max_tokens=32, say_faults=True):
    """The page's HTML for the first ``max_tokens`` tokens of ``text`` (and the one after them as last target).

    The tokenizer's ``begin_ids`` stand in front, as in the texts that the model has read. The page begins with what
    ``Trace.faults`` finds, unless ``say_faults`` is false. Afterwards the model's gradients are those of this text.
    """
    ids = begun(tokenizer, tokenizer.encode(text))
    length = min(max_tokens, model.config.block_size, len(ids) - 1)
    if length < 1:
        raise GenerationError("nothing to predict", field="text", found=text, expected="two tokens or more")
    tokens, targets = np.array([ids[:length]]), np.array([ids[1 : length + 1]])
    with trace(model) as traced:
        loss = model.loss(tokens, targets)
        model.zero_gradients()
        model.backward()
    kinds = traced.kinds()
    data = {
        "model": name,
        "shape": f"{model.config.n_layer} blocks, {model.config.n_head} heads, width {model.config.n_embd}"
        + model.config.parts_in_words(),
        "loss": loss,
        "cut": len(ids) - 1 > length,
        "faults": traced.faults() if say_faults else [],
        "lens": _lens(model, tokenizer, traced, targets[0]),
        "tokens": _tokens(tokenizer, ids[: length + 1], traced),
        "stages": _stages(traced, model.config),
        "tensors": _tensors(traced),
        "flow": _flow(traced),
        "boxes": {box: described(box) for box in dict.fromkeys(box_name(k, kinds) for k in kinds)},
        "parameters": [[n, _norm(p), _norm(model.grads[n])] for n, p in model.params.items()],
    }
    return _fill(data)


def _fill(data):
    files = importlib.resources.files(__package__)
    page = files.joinpath("page.html").read_text(encoding="utf-8")
    # In a script element only "<" could end it or open another.
    payload = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    for mark, content in (
        ("/*STYLE*/", files.joinpath("page.css").read_text(encoding="utf-8")),
        ("/*SCRIPT*/", files.joinpath("page.js").read_text(encoding="utf-8")),
        ("/*DATA*/", payload),
    ):
        page = page.replace(mark, content)
    return page


def _tokens(tokenizer, ids, traced):
    log_p = traced["lm_head.log_probabilities"].value[0]  # (T, V)
    losses = traced["lm_head.losses"].value[0]
    described = []
    n_texts = _n_texts(tokenizer)
    for t, row in enumerate(log_p):
        best = np.argsort(row[:n_texts])[::-1][:_TOP]
        described.append(
            {
                "text": _visible(tokenizer, ids[t]),
                "target": _visible(tokenizer, ids[t + 1]),
                "loss": float(losses[t]),
                "top": [[_visible(tokenizer, int(i)), math.exp(float(row[i]))] for i in best],
            }
        )
    return described


def _lens(model, tokenizer, traced, targets):
    """The logit lens: the prediction from the stream after each block, by the final norm and the head.

    (nostalgebraist 2020, "interpreting GPT: the logit lens".) The last row is the model's own prediction.
    """
    found = []
    for name in ["embedding", *(f"h.{i}.residual_2" for i in range(model.config.n_layer))]:
        x = traced[name].value
        normed, _ = model.parts.norm.forward(x, model.params, "ln_f.", np.empty)
        logits = np.asarray(model.parts.head.forward(normed, model.params)[0][0], np.float64)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        rows = []
        for row, target in zip(log_p, targets):
            best = np.argsort(row[: _n_texts(tokenizer)])[::-1][:3]
            top = [[_visible(tokenizer, int(i)), math.exp(float(row[i]))] for i in best]
            rows.append({"loss": float(-row[target]), "top": top})
        found.append({"after": name, "tokens": rows})
    return found


def _n_texts(tokenizer):
    """The number of ids that have a text: a model may have more. None: all of them."""
    return getattr(tokenizer, "n_vocab", None)


def _visible(tokenizer, token):
    return visible(tokenizer.decode_bytes([token])) or "∅"


def _stages(traced, config):
    """The stations from the embedding to the loss: each a title and the names of its tensors, forward order."""
    stages = [("embedding", "embedding")]
    stages += [(f"h.{i}", f"block {i}") for i in range(config.n_layer)]
    stages += [("ln_f", f"final {config.norm}"), ("lm_head", "output head and loss")]
    return [
        {"id": prefix, "title": title, "tensors": [n for n in traced if n == prefix or n.startswith(prefix + ".")]}
        for prefix, title in stages
    ]


def _tensors(traced):
    budget = _columns(traced)
    kinds = traced.kinds()
    return {name: _tensor(name, tensor, budget, kinds) for name, tensor in traced.items()}


def _tensor(name, tensor, budget, kinds):
    square = name.rpartition(".")[2] in ("products", "scores", "weights")  # keys along the columns: never pooled
    value, grad = _panels(tensor.value, square), _panels(tensor.grad, square)
    pooled = 1 if square else math.ceil(value.shape[-1] / budget)
    return {
        "box": box_name(kind(name), kinds),
        "shape": list(tensor.value.shape),
        "heads": tensor.value.ndim == 4,
        "columns": "key" if square else "channel",
        "pooled": pooled,
        "value": _picture(value, pooled),
        "grad": _picture(grad, pooled),
    }


def _panels(array, square):
    """``(panels, rows, columns)``: a panel a head where there are heads, a row a token where there are tokens."""
    if array.ndim == 4:
        return array[0] if square else array[0].swapaxes(0, 1)  # (1, n_head, T, T) or (1, T, n_head, head_size)
    if array.ndim == 3:
        return array  # (1, T, columns)
    if array.ndim == 2 and array.shape[0] == 1:
        return array[:, :, None]  # (1, T): a number a token
    return np.atleast_2d(array)[None]  # (T, C) of the positions, or the loss itself


def _columns(traced):
    """The widest picture that keeps all of them within ``BYTES``."""
    for budget in (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16):
        total = 0
        for tensor in traced.values():
            shape = tensor.value.shape
            width = shape[-1] if shape else 1
            total += 2 * (tensor.value.size // max(width, 1)) * min(width, budget)
        if total <= BYTES:
            break
    return budget


def _picture(panels, pooled):
    panels = np.nan_to_num(panels.astype(np.float64), neginf=0.0)
    exact = panels
    if pooled > 1:
        width = math.ceil(panels.shape[-1] / pooled)
        padded = np.zeros((*panels.shape[:-1], width * pooled))
        padded[..., : panels.shape[-1]] = panels
        groups = padded.reshape(*panels.shape[:-1], width, pooled)
        largest = np.abs(groups).argmax(axis=-1)
        panels = np.take_along_axis(groups, largest[..., None], axis=-1)[..., 0]
    peak = float(np.abs(panels).max(initial=0.0))
    codes = np.rint(127 * np.sign(panels) * np.sqrt(np.abs(panels) / (peak or 1.0))).astype(np.int8)
    return {
        "size": list(panels.shape),
        "peak": peak,
        "codes": base64.b64encode(codes.tobytes()).decode("ascii"),
        "min": float(exact.min()),
        "max": float(exact.max()),
        "norm": _norm(exact),
        "rms": float(np.sqrt(np.mean(exact**2))),
    }


def _flow(traced):
    """The residual stream from the embedding to the head, and what each branch adds: norms of gradients."""
    names = [
        n
        for n in traced
        if n == "embedding" or n.endswith((".residual_1", ".residual_2", ".attn", ".mlp")) or n == "ln_f"
    ]
    stream = [n for n in names if not n.endswith((".attn", ".mlp"))]
    return [
        {"name": n, "stream": n in stream, "value": _norm(traced[n].value), "grad": _norm(traced[n].grad)}
        for n in names
    ]


def _norm(array):
    return float(np.linalg.norm(np.asarray(array, dtype=np.float64).ravel()))
