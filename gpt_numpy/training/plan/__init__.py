"""A run is resolved before it starts: from ``Settings``, or from a run's folder, to a ``Plan``.

relevance    which settings matter when
inputs       the files of the text, and their kinds
tokenizers   the tokenizer, and the reason for the choice
corpus       text to tokens
initial      the model to start from
batches      rows of tokens for a step and for a validation
resolving    the plan: all of these, checked against each other
saved_state  what a run needs of its last checkpoint to go on
record       the plan in words (``--dry-run``) and as JSON (``plan.json``)
"""
