"""A run is resolved before it starts: from ``Settings``, or from a run's folder, to a ``Plan``.

relevance    which settings matter when
inputs       where the text is, and of what kind
tokenizers   which tokenizer, and why
corpus       text to tokens
initial      the model to start from
batches      rows of tokens: what the model sees at a step, and how it is evaluated
resolving    the plan: all of these, checked against each other
record       the plan in words (``--dry-run``) and as JSON (``plan.json``)
"""
