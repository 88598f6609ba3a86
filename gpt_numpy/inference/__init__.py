"""Text from a trained model.

cache      KVCache: the keys and values of every token seen so far, owned by the caller
decoder    the forward pass over new tokens only, with a KVCache
packed, panel_decoder  the fast decoder: weights in panels, in float32, bfloat16, int8 or int4
sequences  growing sequences: which tokens a model with a bounded context still sees
sampling   from logits to the next token
generate   generate and stream: token ids in, token ids out
text       generate and stream for text: a tokenizer, stop strings, no character cut in two
speculative  a small model drafts, a large one checks
score      how probable a text is
language_model  ``gpt_numpy.load``: a model with its tokenizer, text in and text out
figures    the speed of a generation, as a share of the machine's limits
"""

from .cache import KVCache
from .generate import NewToken, generate, stream
from .sampling import Sampling
from .sequences import Sequences

__all__ = ["KVCache", "NewToken", "Sampling", "Sequences", "generate", "stream"]
