"""What the model writes in the middle of its training: the same prompt and seed every time, so samples compare."""

from __future__ import annotations

from ..inference import generate


def sample(model, corpus, prompt, n_tokens, seed, temperature=0.8, top_k=50):
    """The text of ``prompt`` and up to ``n_tokens`` more; an empty prompt is the start of a text."""
    tokenizer = corpus.tokenizer
    if prompt:
        ids = tokenizer.encode_ordinary(prompt)
    elif tokenizer.eot_id is not None:
        ids = [tokenizer.eot_id]
    else:
        ids = [int(corpus.training[:1][0])]
    shown = [] if ids == [tokenizer.eot_id] else ids
    stop_tokens = () if tokenizer.eot_id is None else (tokenizer.eot_id,)
    top_k = min(top_k, model.config.vocab_size)
    new = generate(model, ids, n_tokens, stop_tokens=stop_tokens, temperature=temperature, top_k=top_k, seed=seed)
    return tokenizer.decode([*shown, *new.tolist()])
