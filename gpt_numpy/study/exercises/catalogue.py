"""The exercises: the functions of each, the module of their source, their problems, and common mistakes.

The planted bugs (``study.bugs``) of a file belong to every exercise whose solution holds the line that they change;
``SLIPS`` adds mistakes for functions that no planted bug is about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ... import model as model_module
from ...config import nearest
from ...errors import ConfigError
from ...layers import (
    activation,
    adamw,
    attention,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layernorm,
    linear,
    lm_head,
    mlp,
    residual,
    rmsnorm,
    rotary,
)
from ...tokenizer import reference
from .. import cases_beyond_gpt2, steps, steps_of_any_model
from ..bugs import BUGS
from . import problems, problems_of_heads, references, small_steps
from .slips import SLIPS, Slip


@dataclasses.dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise; ``written`` are the functions (or methods) that the reader writes, the last one the main one."""

    name: str
    title: str
    lesson: str
    home: ModuleType  # the module that holds the solution
    written: tuple
    forwards: tuple  # what stays in the stub
    problems: Callable[..., list]
    given: tuple = ()  # names of the home module that the stub imports
    cache: type | None = None
    steps: tuple | None = None  # the layer taken apart: X_steps and X_step_gradients
    step_order: tuple = ()  # names of the steps, in backward order
    gradients: tuple = ()  # names of the gradients that the main function returns
    of_class: str | None = None
    says: dict = dataclasses.field(default_factory=dict)  # function → what stands for its docstring's first paragraph
    bugs_of: tuple = ()  # other layers whose planted bugs belong here

    @property
    def file_name(self):
        return self.name.replace("-", "_") + ".py"

    def mistakes(self) -> list[Slip]:
        """Known mistakes, each a change to the solution's text."""
        from . import stubs

        bugs = [Slip(b.name, b.old, b.new, b.hint) for b in BUGS.values() if self._holds(b)]
        found = [*bugs, *SLIPS.get(self.name, ())]
        return [slip for slip in found if stubs.patched(self, slip.old, slip.new) is not None]

    def _holds(self, bug):
        # Exercises of GPT-2's layers run in GPT-2's form: a bug that only another form shows would change nothing there.
        shows = bug.layer in (self.name, *self.bugs_of) or bug.layer not in cases_beyond_gpt2.MAKERS
        return shows and self.home.__name__.rpartition(".")[2] + ".py" == bug.file and self.home in _WITH_BUGS


_OF_METHODS = {
    "_block_backward": "Return dx, the gradient of the block's input, from dout, that of its output, and add the gradient of "
    "each of its parameters to self.grads. A part does both: norm.backward(dout, cache.ln_1, g, name, alloc) returns the "
    "gradient of the norm's input and adds those of its parameters to g[name + 'weight'] and g[name + 'bias']. The "
    "residuals are functions of ops, without parameters. cache is the BlockCache of _block_forward. alloc and alloc_dx "
    "make arrays: hand them on.",
    "_trunk_backward": "Return the gradient of the embedding's output, from dx, that of the last layernorm's output, and add "
    "the gradient of every parameter on the way to self.grads. self._pass holds the caches of _trunk_forward. With "
    "self.recompute, blocks[i] is the block's input instead of its cache: _block_forward gives the cache again.",
    "backward": "Return the gradient of the embedding's output, and add the gradient of every parameter to self.grads. "
    "self._pass.head is what self.parts.head.backward(dout, self._pass.head, g, alloc) needs. After loss, dout is the "
    "gradient of the loss, a number; after forward, that of the logits, (B, T, V).",
}

_WITH_BUGS = {
    attention, cross_entropy, dropout, embedding, gelu, layernorm, linear, lm_head, mlp, residual, model_module,
    activation, rmsnorm, rotary
}  # fmt: skip


def _layer(name, title, lesson, home, written, forwards, cache, pair, order, **more):
    return Exercise(
        name,
        title,
        lesson,
        home,
        written,
        forwards,
        lambda seed=0: problems.of_layer(name, seed),
        cache=cache,
        steps=pair,
        step_order=order,
        gradients=problems.gradient_names(name),
        **more,
    )


def _of(op):
    return steps.STEPS[op]


def _method(name, title, written, forwards):
    return Exercise(
        name, title, "11", model_module, written, forwards, problems.model, of_class="GPT", says=_OF_METHODS
    )


def _program(name, title, lesson, home, written, make, **more):
    return Exercise(name, title, lesson, home, written, more.pop("forwards", ()), make, **more)


_LIST = [
    _layer(
        "linear", "the affine map", "04", linear, ("linear_backward",), ("linear_forward",), linear.LinearCache,
        (small_steps.linear_steps, small_steps.linear_step_gradients), ("product",),
    ),
    _layer(
        "gelu", "the activation", "05", gelu, ("gelu_backward",), ("gelu_forward",), gelu.GeluCache,
        (small_steps.gelu_steps, small_steps.gelu_step_gradients), ("gate", "tanh", "u"),
    ),
    _layer(
        "mlp", "three layers in a chain", "05", mlp, ("mlp_backward",), ("mlp_forward",), mlp.MLPCache,
        _of("mlp"), ("gelu", "gelu.gate", "gelu.tanh", "gelu.u", "c_fc"),
    ),
    _layer(
        "cross-entropy", "softmax and loss in one", "06", cross_entropy, ("cross_entropy_backward",),
        ("cross_entropy_forward",), cross_entropy.CrossEntropyCache,
        (small_steps.cross_entropy_steps, small_steps.cross_entropy_step_gradients),
        ("losses", "log_probabilities", "log_normaliser"),
    ),
    _layer(
        "layernorm", "an output depends on its whole row", "07", layernorm, ("layernorm_backward",),
        ("layernorm_forward",), layernorm.LayernormCache, _of("layernorm"),
        ("scaled", "xhat", "rstd", "variance", "centred", "mean"),
    ),
    _program("softmax", "its Jacobian, applied", "08", attention, ("softmax_backward",), problems.softmax,
             forwards=("softmax",)),
    _program("head", "one masked head on plain matrices", "08", references, ("head_backward",), problems.head,
             forwards=("head_forward",), cache=references.HeadCache, gradients=("q", "k", "v")),
    _layer(
        "attention", "all heads, with masks and dropout", "08", attention,
        ("softmax_backward", "attention_backward"), ("attention_forward",), attention.AttentionCache,
        (small_steps.attention_core_steps, small_steps.attention_core_step_gradients),
        ("weights_dropped", "weights", "scores", "products"),
    ),
    _layer(
        "multi-head", "the projections around attention", "08", attention, ("multi_head_attention_backward",),
        ("multi_head_attention_forward",), attention.MultiHeadAttentionCache, _of("multi_head_attention"),
        ("heads", "v", "weights", "scores", "products", "q", "k", "c_attn"),
        given=("attention_forward", "attention_backward", "AttentionCache"),
    ),
    _layer(
        "embedding", "a table look-up", "09", embedding, ("embedding_backward",), ("embedding_forward",),
        embedding.EmbeddingCache, _of("embedding"), ("tokens", "positions"),
    ),
    _layer(
        "lm-head", "the tied output head", "09", lm_head, ("lm_head_backward",), ("lm_head_forward",),
        lm_head.LMHeadCache, _of("lm_head"), (),
    ),
    _layer(
        "lm-head-cross-entropy", "head and loss together", "09", lm_head,
        ("lm_head_cross_entropy_backward", "lm_head_cross_entropy_gradients"), ("lm_head_cross_entropy_forward",),
        lm_head.LMHeadCrossEntropyCache, _of("lm_head_cross_entropy"),
        ("losses", "log_probabilities", "log_normaliser", "logits"),
        given=("lm_head_forward", "lm_head_backward", "LMHeadCache"),
    ),
    _layer(
        "residual", "a sum", "10", residual, ("residual_backward",), ("residual_forward",), residual.ResidualCache,
        _of("residual"), ("dropped",),
    ),
    _layer(
        "dropout", "a mask made from the position", "10", dropout, ("dropout_backward",),
        ("dropout_forward",), dropout.DropoutCache, _of("dropout"), (),
        says={"dropout_backward": "Gradient dx, of dout's shape."},
    ),
    _method("block", "the backward of one block", ("_block_backward",), ("_block_forward",)),
    _method("model", "the backward of the whole model", ("backward", "_trunk_backward", "_block_backward"),
            ("loss", "_trunk_forward", "_block_forward")),
    _program("adamw", "the optimizer's update", "12", adamw, ("adamw_update",), problems.adamw),
    _program("bpe", "merging by rank", "01", reference, ("merge_pair", "encode_word"), problems.merging),
    _program("cache", "attention with a key-value cache", "13", references, ("attend_with_cache",), problems.cache),
    _program("sampling", "temperature, top-k, top-p", "13", references, ("next_token_probabilities",),
             problems.sampling),
    _program("online-softmax", "attention in tiles", "14", references, ("tiled_attention",), problems.online_softmax),
    _program("kernel", "a first numba kernel", "15", references, ("softmax_rows",), problems.kernel),
    _layer(
        "rmsnorm", "layernorm without the mean", "16", rmsnorm, ("rmsnorm_backward",), ("rmsnorm_forward",),
        rmsnorm.RmsnormCache, steps_of_any_model.STEPS["rmsnorm"], ("xhat", "rrms", "square"),
    ),
    _layer(
        "swiglu", "an activation with a gate", "16", activation, ("swiglu_backward",), ("swiglu_forward",),
        activation.SwigluCache, (small_steps.swiglu_steps, small_steps.swiglu_step_gradients), ("activated",),
        given=("activation_forward", "activation_backward"),
    ),
    _layer(
        "rotary", "positions as angles, in both pairings", "16", rotary, ("pairs", "turned", "rotary_backward"),
        ("rotary_forward",), rotary.RotaryCache, (small_steps.rotary_steps, small_steps.rotary_step_gradients), (),
        says={"rotary_backward": "Gradient dx, of dout's shape."},
    ),
    _program("shared-heads", "heads of keys that several query heads use", "16", attention,
             ("shared_heads", "sum_shared"), problems_of_heads.shared_heads, gradients=("x",),
             bugs_of=("grouped attention",)),
    _program("qk-norm", "a norm and a rotation of queries and keys", "16", attention, ("prepare_heads_backward",),
             problems_of_heads.prepared_heads, forwards=("prepare_heads",), cache=attention.HeadsCache,
             gradients=("x", "weight"), bugs_of=("llama attention",)),
]  # fmt: skip

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in _LIST}


def exercise_named(name: str) -> Exercise:
    """The exercise ``name``; underscores may replace dashes. Raises ``ConfigError`` with the nearest name."""
    found = EXERCISES.get(str(name).removesuffix(".py").replace("_", "-"))
    if found is None:
        raise ConfigError(f"no exercise {name!r}{nearest(name, EXERCISES)}", expected=", ".join(EXERCISES))
    return found


def originals(exercise: Exercise) -> dict[str, Any]:
    """Name → the package's own function (or class) for everything that the exercise asks for or gives."""
    if exercise.of_class:
        return {exercise.of_class: getattr(exercise.home, exercise.of_class)}
    return {n: getattr(exercise.home, n) for n in (*exercise.written, *exercise.forwards)}
