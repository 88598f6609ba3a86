"""Measures of a trained model on local files, as papers quote them.

likelihood  log-probabilities of a text in windows, and of continuations of contexts
tasks       perplexity with a stride, the next word (LAMBADA), multiple choice (HellaSwag): files in, figures out

Every measure is the arithmetic of Hugging Face's ``transformers`` on the same weights: a test compares all digits.
"""

from .likelihood import Continuation, continuations, text_logprobs
from .tasks import Choices, LastWord, Perplexity, multiple_choice, next_word, perplexity

__all__ = [
    "Choices",
    "Continuation",
    "LastWord",
    "Perplexity",
    "continuations",
    "multiple_choice",
    "next_word",
    "perplexity",
    "text_logprobs",
]
