"""What the model writes in the middle of its training: the same prompt and seed every time, so samples compare."""

from __future__ import annotations

import numpy as np


def sample(model, corpus, prompt, n_tokens, seed, temperature=0.8, top_k=50):
    """The text of ``prompt`` and ``n_tokens`` more; an empty prompt is the start of a text."""
    tokenizer = corpus.tokenizer
    if prompt:
        ids = tokenizer.encode_ordinary(prompt)
    elif tokenizer.eot_id is not None:
        ids = [tokenizer.eot_id]
    else:
        ids = [int(corpus.training[0])]
    shown = 1 if ids == [tokenizer.eot_id] else 0
    rng = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(n_tokens):
        logits = model.forward(np.array([ids[-model.config.block_size :]]))[0, -1].astype(np.float64)
        logits[logits < np.sort(logits)[-min(top_k, len(logits))]] = -np.inf
        weights = np.exp((logits - logits.max()) / temperature)
        ids.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        if ids[-1] == tokenizer.eot_id:
            return tokenizer.decode(ids[shown:-1])
    return tokenizer.decode(ids[shown:])
