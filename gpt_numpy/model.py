"""The model: the forward pass from tokens to a loss, and the backward pass as its mirror image.

The model owns the configuration, the parameters (one flat array with named views) and their
gradients. Its layer functions come from a module, ``layers`` or ``kernels``, which export the same names. ``parts``
chooses among them once, as the configuration says: GPT-2 by default.
Read ``_block_forward`` next to ``_block_backward``: the second passes gradients back through the same
steps, from the last line to the first.
Gradients are added up here alone: every backward receives ``self.grads``, to whose arrays its parameter gradients are
added; after ``replace_gradients`` the first contribution is written instead. A tied ``wte`` is contributed to twice, by
the backward of the output head and by that of the embedding, because the two share it.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import Any, NamedTuple

import numpy as np

from .architecture.model_inputs import IGNORE_INDEX as IGNORE_INDEX
from .architecture.model_inputs import check_inputs, check_targets
from .architecture.model_inputs import check_tokens as check_tokens
from .architecture.parts import Parts
from .config import GPTConfig
from .host import compiler
from .parameters import Gradients, Parameters, initialise
from .products import with_products
from .randomness import Dropout, dropout_key
from .wording import counted
from .workspace import Workspace

_EMBEDDING, _ATTENTION, _RESIDUAL_1, _RESIDUAL_2 = range(4)  # dropout's sites


class DropoutAt(NamedTuple):
    """Position of a batch in a run. A forward pass that receives one applies dropout."""

    seed: int
    step: int
    first_sequence: int = 0  # index of the batch's first sequence in the global batch


class BlockCache(NamedTuple):
    ln_1: Any
    attn: Any
    residual_1: Any
    ln_2: Any
    mlp: Any
    residual_2: Any


class Pass(NamedTuple):
    """The arrays of one forward pass that the backward needs."""

    embedding: Any
    dropout: Any
    blocks: list  # of BlockCache, or of the block's input where blocks are recomputed
    ln_f: Any
    head: Any
    context: tuple  # what attention sees, dropout_at


class GPT:
    """A GPT with explicit gradients: GPT-2, or a model of other parts, as the configuration says.

    A model runs one pass at a time: a forward and its backward belong to one thread. ``inference.decoder.OpsDecoder``
    only reads the parameters and may run in any number of threads. A copy of a model has its own arrays; ``backward``
    of the copy needs a forward pass of the copy first.

    >>> import numpy as np
    >>> from gpt_numpy import GPT, GPTConfig
    >>> model = GPT(GPTConfig.preset("tiny"))
    >>> tokens = np.arange(12).reshape(2, 6)
    >>> loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    >>> _ = model.backward()
    >>> model.grads["wte.weight"].shape
    (256, 32)

    ops        the module of layer functions: ``gpt_numpy.layers`` or ``gpt_numpy.kernels`` (the default where numba
               can compile)
    recompute  keep only each block's input in the forward and run the block again in the backward:
               about a third more time for most of the activations' memory
    workspace  a ``workspace.Workspace`` for the large arrays of a step, or None to allocate afresh
    products   "float32", or "bfloat16": matrix products of a float32 model round their operands (``gpt_numpy.products``)

    ``on_gradients``, None or a function, is called during a backward with the name of a tensor when the gradients of
    that tensor and of all that follow it in the table are complete (data-parallel training sends them on).
    """

    def __init__(
        self,
        config: GPTConfig,
        seed=0,
        dtype=np.float32,
        ops=None,
        *,
        recompute=False,
        workspace=None,
        params=None,
        products="float32",
    ):
        ops = with_products(compiler.default_ops() if ops is None else ops, products)
        self.config, self.recompute, self.workspace = config, recompute, workspace
        self.ops = ops
        self.params = params
        if params is None:
            self.params = Parameters(config, dtype)
            initialise(self.params, config, seed)
        self.on_gradients = None
        self._grads = None
        self._pass = None

    def __repr__(self):
        c, ops = self.config, getattr(self.ops, "__name__", "other ops").rpartition(".")[2]
        sizes = f"{counted(c.n_layer, 'layer')}, {counted(c.n_head, 'head')}, {c.n_embd} wide"
        tokens = f"{counted(c.block_size, 'position')}, {counted(c.vocab_size, 'token')}"
        numbers = f"{counted(len(self.params.flat), 'parameter')}, {self.dtype}"
        return f"<GPT: {sizes}, {tokens}{c.parts_in_words()}; {numbers}, {ops}>"

    # ---- copies ------------------------------------------------------------------------------------------

    def __getstate__(self):
        """The state that is copied or pickled: without the last pass, and without sharing the workspace."""
        ops = self.ops.__name__ if inspect.ismodule(self.ops) else self.ops
        workspace = None if self.workspace is None else Workspace()
        own = {**self.__dict__, "workspace": workspace, "on_gradients": None, "_pass": None, "_ops": ops}
        return {name: value for name, value in own.items() if name != "parts"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        ops = state["_ops"]
        self.ops = importlib.import_module(ops) if isinstance(ops, str) else ops

    def __copy__(self):
        return copy.deepcopy(self)  # two models that share gradients would add into each other's

    @property
    def ops(self):
        """The module of layer functions; setting it chooses the parts anew."""
        return self._ops

    @ops.setter
    def ops(self, ops):
        self._ops, self.parts = ops, Parts.of(self.config, ops)

    @property
    def dtype(self):
        return self.params.flat.dtype

    @property
    def grads(self):
        """Gradients, laid out like ``params``; allocated when first used."""
        if self._grads is None:
            self._grads = Gradients(self.config, self.dtype)
        return self._grads

    def zero_gradients(self):
        """Set every gradient to zero. ``backward`` adds to the gradients that are there."""
        self.grads.keep()
        self.ops.clear_gradients(self.grads.flat)

    def replace_gradients(self):
        """Let the next ``backward`` replace the gradients: the same as to set them to zero before it, and faster.

        Until then ``grads`` still holds the former gradients.
        """
        self.grads.replace()

    # ---- the public passes -------------------------------------------------------------------------------

    def forward(self, tokens, *, positions=None, first_key=None, dropout_at=None):
        """Logits (B, T, V) for tokens (B, T).

        positions (T,) or (B, T): default 0 … T − 1. first_key (B, T): the first key that each query
        sees (default 0). dropout_at: a ``DropoutAt`` while training, None otherwise.
        """
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        logits, head = self.parts.head.forward(x, self.params)
        self._pass = self._pass._replace(head=head)
        return logits

    def loss(self, tokens, targets, *, positions=None, first_key=None, dropout_at=None):
        """Mean cross-entropy (nats per token, a float) of predicting targets (B, T) from tokens (B, T).

        Targets equal to ``IGNORE_INDEX`` do not count.
        """
        targets = check_targets(self.config, targets, np.shape(tokens))
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        loss, head = self.parts.head.loss(x, self.params, targets, IGNORE_INDEX, self._alloc("activations head"))
        self._pass = self._pass._replace(head=head)
        return loss

    def backward(self, dout=1.0):
        """Add the gradients of the last pass to ``grads``.

        After ``loss``, dout is the gradient of the loss, a number. After ``forward``, dout is the gradient of the
        logits, (B, T, V). Returns the gradient of the embedding's output, (B, T, C); tokens, being integers, have
        no gradient.
        """
        if self._pass is None or self._pass.head is None:
            raise RuntimeError("backward() needs a forward() or loss() before it")
        dx = self.parts.head.backward(dout, self._pass.head, self.grads, self._alloc("backward head"))
        return self._trunk_backward(dx)

    def loss_and_gradients(self, tokens, targets, dloss=1.0, *, positions=None, first_key=None, dropout_at=None):
        """``loss`` and ``backward(dloss)`` in one call, in which the head's logits never exist all at once."""
        targets = check_targets(self.config, targets, np.shape(tokens))
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        loss, dx = self.parts.head.loss_and_gradients(
            x, self.params, self.grads, targets, dloss, IGNORE_INDEX, self._alloc("backward head")
        )
        self._trunk_backward(dx)
        return loss

    # ---- everything below the head -----------------------------------------------------------------------

    def _trunk_forward(self, tokens, positions, first_key, dropout_at):
        tokens, positions, first_key = check_inputs(self.config, tokens, positions, first_key)
        ops, p = self.ops, self.params
        self._pass = None  # its arrays can go before the next ones come, where the workspace has yet to grow
        if self.workspace is not None:
            self.workspace.begin_pass(tokens.shape)
        alloc = self._alloc("activations")
        x, embedding = self.parts.embedding.forward(tokens, positions, p, alloc)
        seen = self.parts.attention.seen(positions, first_key, tokens.shape, self.dtype)
        dropout = self._dropout(dropout_at, -1, _EMBEDDING)
        dropout_cache = None
        if dropout is not None:
            x, dropout_cache = ops.dropout_forward(x, dropout, alloc)
        blocks = []
        for i in range(self.config.n_layer):
            block_input = x
            if self.recompute:
                # One block's activations at a time; only its output has to outlive it.
                out, _ = self._block_forward(i, x, seen, dropout_at, self._alloc("recomputed"))
                x = alloc(out.shape, out.dtype)
                x[...] = out
                blocks.append(block_input)
            else:
                x, cache = self._block_forward(i, x, seen, dropout_at, alloc)
                blocks.append(cache)
        x, ln_f = self.parts.norm.forward(x, p, "ln_f.", alloc)
        self._pass = Pass(embedding, dropout_cache, blocks, ln_f, None, (seen, dropout_at))
        return x

    def _trunk_backward(self, dx):
        ops, g = self.ops, self.grads
        embedding, dropout_cache, blocks, ln_f, _, context = self._pass
        alloc = self._alloc("backward ln_f")
        dx = self.parts.norm.backward(dx, ln_f, g, "ln_f.", alloc)
        for i in reversed(range(self.config.n_layer)):
            cache = blocks[i]
            if self.recompute:
                _, cache = self._block_forward(i, blocks[i], *context, self._alloc("recomputed"))
            # The gradient that goes on to the next block must outlive this block's other arrays.
            dx = self._block_backward(i, dx, cache, self._alloc("backward"), self._alloc(f"stream {i % 2}"))
            if self.on_gradients is not None:
                self.on_gradients(f"h.{i}.ln_1.weight")
        if dropout_cache is not None:
            dx = ops.dropout_backward(dx, dropout_cache)
        self.parts.embedding.backward(dx, embedding, g)
        return dx

    def _block_forward(self, i, x, seen, dropout_at, alloc):
        ops, (_, norm, attention, mlp, _), p, h = self.ops, self.parts, self.params, f"h.{i}."
        copied = getattr(ops, "COPIES_INPUTS", False)  # by attention and mlp: what a norm makes need not be kept
        normed, ln_1 = norm.forward(x, p, h + "ln_1.", self._alloc("normed") if copied else alloc)
        dropout = self._dropout(dropout_at, i, _ATTENTION)
        branch, attn = attention.forward(normed, p, h + "attn.", i, seen, dropout, alloc, self._alloc("branch"))
        x, residual_1 = ops.residual_forward(x, branch, self._dropout(dropout_at, i, _RESIDUAL_1), alloc)
        normed, ln_2 = norm.forward(x, p, h + "ln_2.", self._alloc("normed") if copied else alloc)
        branch, mlp_cache = mlp.forward(normed, p, h + "mlp.", alloc, self._alloc("branch"))
        x, residual_2 = ops.residual_forward(x, branch, self._dropout(dropout_at, i, _RESIDUAL_2), alloc)
        return x, BlockCache(ln_1, attn, residual_1, ln_2, mlp_cache, residual_2)

    def _block_backward(self, i, dout, cache, alloc, alloc_dx):
        ops, (_, norm, attention, mlp, _), g, h = self.ops, self.parts, self.grads, f"h.{i}."
        dstream, dbranch = ops.residual_backward(dout, cache.residual_2, alloc)
        dnormed = mlp.backward(dbranch, cache.mlp, g, h + "mlp.", alloc)
        # x went two ways, into the branch and past it: its gradients add up
        dx = norm.backward(dnormed, cache.ln_2, g, h + "ln_2.", alloc, dstream=dstream)
        dstream, dbranch = ops.residual_backward(dx, cache.residual_1, alloc)
        dnormed = attention.backward(dbranch, cache.attn, g, h + "attn.", alloc)
        return norm.backward(dnormed, cache.ln_1, g, h + "ln_1.", alloc_dx, dstream=dstream)

    # ---- small things ------------------------------------------------------------------------------------

    def _alloc(self, region):
        return np.empty if self.workspace is None else self.workspace.begin(region)

    def _dropout(self, dropout_at, layer, site):
        if dropout_at is None or self.config.dropout == 0:
            return None
        key = dropout_key(dropout_at.seed, dropout_at.step, layer, site)
        return Dropout(self.config.dropout, key, dropout_at.first_sequence)

    # ---- files -------------------------------------------------------------------------------------------

    def save(self, folder):
        """Write a Hugging Face folder (``config.json``, ``model.safetensors``)."""
        from .interop import huggingface

        huggingface.save(folder, self.config, self.params)

    @classmethod
    def load(cls, folder, dtype=np.float32, ops=None, **options):
        """The model in a Hugging Face folder, written by any library, or the best checkpoint in a run's folder.

        Keyword options are the constructor's.
        """
        from .interop import huggingface
        from .locating import find_model

        config, params = huggingface.load(find_model(folder), dtype)
        return cls(config, dtype=dtype, ops=ops, params=params, **options)
