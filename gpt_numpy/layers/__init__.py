"""The specification: every layer of GPT-2 forward and backward, in plain NumPy.

A layer is a pair of functions and a cache: ``f_forward(inputs, weights) -> out, cache`` and, right under it,
``f_backward(dout, cache) -> gradients`` in the order of the forward's inputs. No function writes to its
arguments. A call with arguments that do not fit is refused before anything is computed (``gpt_numpy.arguments``).
``alloc`` is the function that allocates large results; a training step passes its workspace's. ``into`` lets
the caller accumulate parameter gradients, or with ``add=False`` replace them.

``gpt_numpy.kernels`` exports fast functions with the same names and signatures; ``GPT(config, ops=layers)``
or ``ops=kernels`` chooses. The kernels are tested against these functions.
"""

from .activation import activation_backward, activation_forward, swiglu_backward, swiglu_forward
from .adamw import adamw_update, clear_gradients, gradient_norm
from .attention import (
    attention_backward,
    attention_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .dropout import dropout_backward, dropout_forward
from .embedding import embedding_backward, embedding_forward
from .gelu import gelu_backward, gelu_forward
from .layernorm import layernorm_backward, layernorm_forward
from .linear import linear_backward, linear_forward
from .lm_head import (
    lm_head_backward,
    lm_head_cross_entropy_backward,
    lm_head_cross_entropy_forward,
    lm_head_cross_entropy_gradients,
    lm_head_forward,
)
from .mlp import mlp_backward, mlp_forward
from .residual import residual_backward, residual_forward
from .rmsnorm import rmsnorm_backward, rmsnorm_forward
from .rotary import rotary_backward, rotary_forward

__all__ = [
    "activation_backward",
    "activation_forward",
    "adamw_update",
    "attention_backward",
    "attention_forward",
    "clear_gradients",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "gelu_backward",
    "gelu_forward",
    "gradient_norm",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "lm_head_backward",
    "lm_head_cross_entropy_backward",
    "lm_head_cross_entropy_forward",
    "lm_head_cross_entropy_gradients",
    "lm_head_forward",
    "mlp_backward",
    "mlp_forward",
    "multi_head_attention_backward",
    "multi_head_attention_forward",
    "residual_backward",
    "residual_forward",
    "rmsnorm_backward",
    "rmsnorm_forward",
    "rotary_backward",
    "rotary_forward",
    "swiglu_backward",
    "swiglu_forward",
]
