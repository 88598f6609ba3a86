"""The arithmetic of an evaluation written plainly, over any function tokens (T,) → logits (T, V)."""

import numpy as np


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


def text_loss(forward, tokens, block_size, stride):
    """(nats, tokens scored), window by window, as the documentation of transformers computes a perplexity."""
    nats, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + block_size, len(tokens))
        window, wanted = tokens[begin:end], end - previous_end
        logprobs = log_softmax(forward(window))
        for position in range(max(1, len(window) - wanted), len(window)):
            nats -= logprobs[position - 1, window[position]]
            count += 1
        previous_end = end
        if end == len(tokens):
            break
    return nats, count


def continuation(forward, context, following, block_size):
    """(log-probability, whether greedy) of ``following``; what is too long loses its beginning."""
    tokens = [*context, *following][-(block_size + 1) :]
    logprobs = log_softmax(forward(tokens[:-1]))[-len(following) :]
    total = sum(row[token] for row, token in zip(logprobs, following))
    return float(total), bool((logprobs.argmax(-1) == np.array(following)).all())
