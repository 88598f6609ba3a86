"""What each symbol in a formula stands for, layer by layer: for hints, riddles, exercises and the microscope.

``explained`` lists the symbols of a text with their meanings. A test holds that every symbol of every hint, answer,
statement and formula has one.
"""

from __future__ import annotations

import re

_SYMBOL = re.compile(
    r"(?<![\w'’.`\\])(?<!B/)(?<!P/)(d?)([A-Za-zΑ-Ωα-ω])(?:[₀-₉̂̃]|_[a-z0-9]{1,2}|_\{[^}]*\}|['²³ᵗᵀ½])*(?![\w'’])"
)
_WORDS = set("aAI") | {"do", "as"}  # ordinary words that look like a letter, or like the gradient of one
_CONSTANTS = set("eπ")
_NAMES = re.compile(r"(?<![\w`.])(d?)(xhat|dout|rowsum|Tq|Tk|head_size|n_head|wte|wpe|lr|logits|heads)(?![\w`])")

GENERAL = {
    "B": "sequences in a batch",
    "T": "positions of a sequence",
    "Tq": "queries of a sequence",
    "Tk": "keys of a sequence",
    "C": "channels of a position",
    "V": "tokens in the vocabulary",
    "L": "blocks",
    "N": "positions that count for the loss",
    "n_head": "attention heads",
    "head_size": "channels of a head",
    "x": "the layer's input",
    "W": "the layer's weight",
    "b": "the layer's bias",
    "p": "a probability",
    "t": "a position",
    "Σ": "a sum",
    "δ": "δ_ij is 1 if i = j, else 0",
    "i": "an index",
    "j": "an index",
    "ε": "a small constant that keeps a root or a quotient away from 0",
    "dout": "the loss's gradient of the layer's output",
    "wte": "the table of token embeddings",
    "wpe": "the table of position embeddings",
    "rowsum": "the sum over a row",
    "logits": "a score for each token, before the softmax",
    "heads": "the outputs of all heads",
    "lr": "the learning rate",
}

_ATTENTION = {
    "q": "queries",
    "k": "keys",
    "v": "values",
    "S": "scores, q · kᵀ · s",
    "s": "1/√head_size",
    "P": "attention weights, softmax(S)",
    "P̃": "the weights after dropout",
    "p": "dropout's probability; with an index, a weight",
    "i": "a query's position",
    "j": "a key's position",
    "d": "channels of a head",
    "x": "what a position's query, key and value are computed from",
    "W": "the weight of a projection",
    "b": "the bias of a projection",
    "t": "a position",
}
_GELU = {
    "x": "the input",
    "h": "the hidden layer, before GELU",
    "u": "tanh's argument, √(2/π) · (x + 0.044715 · x³)",
    "t": "tanh(u)",
    "Φ": "the distribution function of the normal distribution",
}
_LOSS = {
    "p": "the probabilities, softmax of the logits",
    "z": "the log normaliser, log Σ exp(logits)",
    "i": "a token",
    "j": "a token",
    "N": "positions that count for the loss",
    "x": "the final state, a row for each position",
    "t": "a position",
}

OF = {
    "layernorm": {
        "x": "a row of the input",
        "m": "the row's mean",
        "c": "x − m",
        "v": "the variance, mean(c²)",
        "r": "1/√(v + ε)",
        "xhat": "c · r",
        "s": "xhat ∘ weight",
    },
    "rmsnorm": {"x": "a row of the input", "s": "the mean square, mean(x²)", "r": "1/√(s + ε)", "xhat": "x · r"},
    "swiglu": {"W": "the width of a half of hidden", "f": "the activation"},
    "rotary": {"a": "the first number of a pair", "b": "the second number of a pair", "φ": "the angle of a pair"},
    "shared-heads": {"x": "keys or values", "q": "the queries", "k": "the keys", "v": "the values"},
    "qk-norm": {"x": "queries or keys, as they come from their projection"},
    "linear": {"K": "inputs of a row", "N": "outputs of a row"},
    "gelu": _GELU,
    "mlp": {**_GELU, "f": "the activation", "a": "the activated hidden layer"},
    "attention": _ATTENTION,
    "attn": _ATTENTION,
    "multi-head": {**_ATTENTION, "h": "a head"},
    "head": _ATTENTION,
    "cache": _ATTENTION,
    "online-softmax": {**_ATTENTION, "s": "a score"},
    "softmax": {"p": "the weights, softmax(s)", "s": "the scores"},
    "cross-entropy": _LOSS,
    "lm-head": _LOSS,
    "lm-head-cross-entropy": _LOSS,
    "lm_head": _LOSS,
    "dropout": {"p": "the probability of dropping an element"},
    "residual": {"x": "the stream", "p": "dropout's probability"},
    "embedding": {"v": "a token", "t": "a position", "b": "a sequence", "x": "the stream"},
    "model": {"h": "a block", "g": "the gradients by name, self.grads"},
    "block": {"h": "a block", "g": "the gradients by name, self.grads"},
    "adamw": {
        "p": "the parameters",
        "g": "their gradient",
        "m": "the running mean of g",
        "v": "the running mean of g²",
        "t": "the number of the step, from 1",
        "β": "the decay rate of a running mean",
    },
    "sampling": {"k": "top_k", "p": "top_p"},
    "kernel": {"x": "the scores", "N": "rows"},
}


def symbols_in(text: str) -> list[str]:
    """The symbols of a text, in order: single letters, and the names that formulas use; for a gradient what it is of."""
    found = {}
    for pattern in (_SYMBOL, _NAMES):
        for match in pattern.finditer(text):
            if match[0] in _WORDS or match[2] in _CONSTANTS | _WORDS or text[match.start() :].startswith("d("):
                continue
            symbol = "dout" if match[0] == "dout" else match[2] + ("̃" if "̃" in match[0] else "")
            found.setdefault(symbol, match.start())
    return sorted(found, key=lambda symbol: found[symbol])


def meaning(symbol: str, layer: str) -> str | None:
    """What a symbol stands for in a layer's formulas, or None."""
    return OF.get(layer, {}).get(symbol) or GENERAL.get(symbol)


def explained(text: str, layer: str) -> str:
    """``x: the input; r: 1/√(v + ε)`` and so on, for the symbols of ``text`` and those of their meanings; "" for none.

    A gradient is explained once for all.
    """
    symbols, number = symbols_in(text), 0
    while number < len(symbols):
        symbols += [s for s in symbols_in(meaning(symbols[number], layer) or "") if s not in symbols]
        number += 1
    parts = [f"{symbol}: {meaning(symbol, layer)}" for symbol in symbols if meaning(symbol, layer)]
    gradients = any(match[1] for pattern in (_SYMBOL, _NAMES) for match in pattern.finditer(text) if match[0] != "do")
    return "; ".join([*parts, *(["dx and the like: the loss's gradients"] if gradients else [])])
