"""GPT-2: the forward pass from tokens to a loss, and the backward pass as its mirror image.

The model owns the configuration, the parameters (one flat array with named views) and their
gradients. Its layer functions come from a module, ``layers`` or ``kernels``, which export the same names.
Read ``_block_forward`` next to ``_block_backward``: the second passes gradients back through the same
steps, from the last line to the first.
Gradients are added up in this module alone: every backward receives with ``into=`` the
arrays of ``self.grads`` that its parameter gradients are added to. ``wte`` is passed twice, to the backward of the
output head and to that of the embedding, because the two share it.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import Any, NamedTuple

import numpy as np

from .config import GPTConfig
from .errors import ContextLengthError, DataError
from .host import compiler
from .parameters import Parameters, initialise
from .products import with_products
from .randomness import Dropout, dropout_key
from .wording import counted
from .workspace import Workspace

IGNORE_INDEX = -1  # a target with this value counts neither in the loss nor in the gradient
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
    context: tuple  # dropout_at, first_key


class GPT:
    """A GPT-2 with explicit gradients.

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
        self.config, self.ops, self.recompute, self.workspace = config, ops, recompute, workspace
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
        return f"<GPT: {sizes}, {tokens}; {counted(len(self.params.flat), 'parameter')}, {self.dtype}, {ops}>"

    # ---- copies ------------------------------------------------------------------------------------------

    def __getstate__(self):
        """The state that is copied or pickled: without the last pass, and without sharing the workspace."""
        ops = self.ops.__name__ if inspect.ismodule(self.ops) else self.ops
        workspace = None if self.workspace is None else Workspace()
        return {**self.__dict__, "ops": ops, "workspace": workspace, "on_gradients": None, "_pass": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if isinstance(self.ops, str):
            self.ops = importlib.import_module(self.ops)

    def __copy__(self):
        return copy.deepcopy(self)  # two models that share gradients would add into each other's

    @property
    def dtype(self):
        return self.params.flat.dtype

    @property
    def grads(self):
        """Gradients, laid out like ``params``; allocated when first used."""
        if self._grads is None:
            self._grads = Parameters(self.config, self.dtype)
        return self._grads

    def zero_gradients(self):
        """Set every gradient to zero. ``backward`` adds to the gradients that are there."""
        self.ops.clear_gradients(self.grads.flat)

    # ---- the public passes -------------------------------------------------------------------------------

    def forward(self, tokens, *, positions=None, first_key=None, dropout_at=None):
        """Logits (B, T, V) for tokens (B, T).

        positions (T,) or (B, T): default 0 … T − 1. first_key (B, T): the first key that each query
        sees (default 0). dropout_at: a ``DropoutAt`` while training, None otherwise.
        """
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        logits, head = self.ops.lm_head_forward(x, self.params["wte.weight"])
        self._pass = self._pass._replace(head=(self.ops.lm_head_backward, head))
        return logits

    def loss(self, tokens, targets, *, positions=None, first_key=None, dropout_at=None):
        """Mean cross-entropy (nats per token, a float) of predicting targets (B, T) from tokens (B, T).

        Targets equal to ``IGNORE_INDEX`` do not count.
        """
        targets = self._check_targets(targets, np.shape(tokens))
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        loss, head = self.ops.lm_head_cross_entropy_forward(
            x, self.params["wte.weight"], targets, IGNORE_INDEX, self._alloc("activations head")
        )
        self._pass = self._pass._replace(head=(self.ops.lm_head_cross_entropy_backward, head))
        return loss

    def backward(self, dout=1.0):
        """Add the gradients of the last pass to ``grads``.

        After ``loss``, dout is the gradient of the loss, a number. After ``forward``, dout is the gradient of the
        logits, (B, T, V). Returns the gradient of the embedding's output, (B, T, C); tokens, being integers, have
        no gradient.
        """
        if self._pass is None or self._pass.head is None:
            raise RuntimeError("backward() needs a forward() or loss() before it")
        head_backward, head_cache = self._pass.head
        dx, _ = head_backward(dout, head_cache, into=(self.grads["wte.weight"],), alloc=self._alloc("backward head"))
        return self._trunk_backward(dx)

    def loss_and_gradients(self, tokens, targets, dloss=1.0, *, positions=None, first_key=None, dropout_at=None):
        """``loss`` and ``backward(dloss)`` in one call, in which the head's logits never exist all at once."""
        targets = self._check_targets(targets, np.shape(tokens))
        x = self._trunk_forward(tokens, positions, first_key, dropout_at)
        loss, dx, _ = self.ops.lm_head_cross_entropy_gradients(
            x,
            self.params["wte.weight"],
            targets,
            dloss,
            IGNORE_INDEX,
            into=(self.grads["wte.weight"],),
            alloc=self._alloc("backward head"),
        )
        self._trunk_backward(dx)
        return loss

    # ---- everything below the head -----------------------------------------------------------------------

    def _trunk_forward(self, tokens, positions, first_key, dropout_at):
        tokens, positions, first_key = self._check_inputs(tokens, positions, first_key)
        ops, p = self.ops, self.params
        self._pass = None  # its arrays can go before the next ones come, where the workspace has yet to grow
        alloc = self._alloc("activations")
        x, embedding = ops.embedding_forward(tokens, positions, p["wte.weight"], p["wpe.weight"], alloc)
        dropout = self._dropout(dropout_at, -1, _EMBEDDING)
        dropout_cache = None
        if dropout is not None:
            x, dropout_cache = ops.dropout_forward(x, dropout, alloc)
        blocks = []
        for i in range(self.config.n_layer):
            block_input = x
            if self.recompute:
                # One block's activations at a time; only its output has to outlive it.
                out, _ = self._block_forward(i, x, first_key, dropout_at, self._alloc("recomputed"))
                x = alloc(out.shape, out.dtype)
                x[...] = out
                blocks.append(block_input)
            else:
                x, cache = self._block_forward(i, x, first_key, dropout_at, alloc)
                blocks.append(cache)
        x, ln_f = ops.layernorm_forward(x, p["ln_f.weight"], p["ln_f.bias"], alloc=alloc)
        self._pass = Pass(embedding, dropout_cache, blocks, ln_f, None, (first_key, dropout_at))
        return x

    def _trunk_backward(self, dx):
        ops, g = self.ops, self.grads
        embedding, dropout_cache, blocks, ln_f, _, context = self._pass
        alloc = self._alloc("backward ln_f")
        dx, *_ = ops.layernorm_backward(dx, ln_f, into=(g["ln_f.weight"], g["ln_f.bias"]), alloc=alloc)
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
        ops.embedding_backward(dx, embedding, into=(g["wte.weight"], g["wpe.weight"]))
        return dx

    def _block_forward(self, i, x, first_key, dropout_at, alloc):
        ops, p, h = self.ops, self.params, f"h.{i}."
        normed, ln_1 = ops.layernorm_forward(x, p[h + "ln_1.weight"], p[h + "ln_1.bias"], alloc=alloc)
        branch, attn = ops.multi_head_attention_forward(
            normed,
            p[h + "attn.c_attn.weight"],
            p[h + "attn.c_attn.bias"],
            p[h + "attn.c_proj.weight"],
            p[h + "attn.c_proj.bias"],
            self.config.n_head,
            first_key,
            self._dropout(dropout_at, i, _ATTENTION),
            alloc,
            self._alloc("branch"),
        )
        x, residual_1 = ops.residual_forward(x, branch, self._dropout(dropout_at, i, _RESIDUAL_1), alloc)
        normed, ln_2 = ops.layernorm_forward(x, p[h + "ln_2.weight"], p[h + "ln_2.bias"], alloc=alloc)
        branch, mlp = ops.mlp_forward(
            normed,
            p[h + "mlp.c_fc.weight"],
            p[h + "mlp.c_fc.bias"],
            p[h + "mlp.c_proj.weight"],
            p[h + "mlp.c_proj.bias"],
            alloc,
            self._alloc("branch"),
        )
        x, residual_2 = ops.residual_forward(x, branch, self._dropout(dropout_at, i, _RESIDUAL_2), alloc)
        return x, BlockCache(ln_1, attn, residual_1, ln_2, mlp, residual_2)

    def _block_backward(self, i, dout, cache, alloc, alloc_dx):
        ops, g, h = self.ops, self.grads, f"h.{i}."
        dstream, dbranch = ops.residual_backward(dout, cache.residual_2, alloc)
        dnormed, *_ = ops.mlp_backward(
            dbranch,
            cache.mlp,
            into=(
                g[h + "mlp.c_fc.weight"],
                g[h + "mlp.c_fc.bias"],
                g[h + "mlp.c_proj.weight"],
                g[h + "mlp.c_proj.bias"],
            ),
            alloc=alloc,
        )
        dx, *_ = ops.layernorm_backward(
            dnormed, cache.ln_2, into=(g[h + "ln_2.weight"], g[h + "ln_2.bias"]), alloc=alloc
        )
        dx += dstream  # x went two ways, into the branch and past it: its gradients add up
        dstream, dbranch = ops.residual_backward(dx, cache.residual_1, alloc)
        dnormed, *_ = ops.multi_head_attention_backward(
            dbranch,
            cache.attn,
            into=(
                g[h + "attn.c_attn.weight"],
                g[h + "attn.c_attn.bias"],
                g[h + "attn.c_proj.weight"],
                g[h + "attn.c_proj.bias"],
            ),
            alloc=alloc,
        )
        dx, *_ = ops.layernorm_backward(
            dnormed, cache.ln_1, into=(g[h + "ln_1.weight"], g[h + "ln_1.bias"]), alloc=alloc_dx
        )
        dx += dstream
        return dx

    # ---- small things ------------------------------------------------------------------------------------

    def _alloc(self, region):
        return np.empty if self.workspace is None else self.workspace.begin(region)

    def _dropout(self, dropout_at, layer, site):
        if dropout_at is None or self.config.dropout == 0:
            return None
        key = dropout_key(dropout_at.seed, dropout_at.step, layer, site)
        return Dropout(self.config.dropout, key, dropout_at.first_sequence)

    def _check_inputs(self, tokens, positions, first_key):
        tokens = check_tokens(tokens, self.config.vocab_size)
        B, T = tokens.shape
        limit = self.config.block_size
        if positions is None:
            if T > limit:
                raise ContextLengthError("sequence too long", field="tokens", found=T, expected=f"at most {limit}")
            positions = np.arange(T)
        positions = np.array(positions)
        if positions.shape not in ((T,), (B, T)):
            raise DataError("wrong shape", field="positions", found=positions.shape, expected=f"{(T,)} or {(B, T)}")
        if positions.dtype.kind not in "iu":
            raise DataError("not positions", field="positions", found=str(positions.dtype), expected="integers")
        if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < limit:
            raise ContextLengthError("position out of range", found=int(positions.max()), expected=f"0 to {limit - 1}")
        if first_key is not None:
            first_key = np.array(first_key)
            valid = (
                first_key.shape == (B, T)
                and first_key.dtype.kind in "iu"
                and np.all((first_key >= 0) & (first_key <= np.arange(T)))
            )
            if not valid:
                raise DataError(
                    "every query sees at least itself",
                    field="first_key",
                    expected=f"integers of shape {(B, T)}, 0 <= first_key <= t",
                )
        return tokens, positions, first_key

    def _check_targets(self, targets, shape):
        targets = np.array(targets)
        if targets.shape != tuple(shape):
            raise DataError("wrong shape", field="targets", found=targets.shape, expected=str(tuple(shape)))
        return check_tokens(targets, self.config.vocab_size, lowest=IGNORE_INDEX, name="targets")

    # ---- files -------------------------------------------------------------------------------------------

    def save(self, folder):
        """Write a Hugging Face GPT-2 folder (``config.json``, ``model.safetensors``)."""
        from .interop import huggingface

        huggingface.save(folder, self.config, self.params)

    @classmethod
    def load(cls, folder, dtype=np.float32, ops=None, **options):
        """The model in a Hugging Face GPT-2 folder, written by any library, or the best checkpoint in a run's folder.

        Keyword options are the constructor's.
        """
        from .interop import huggingface
        from .locating import find_model

        config, params = huggingface.load(find_model(folder), dtype)
        return cls(config, dtype=dtype, ops=ops, params=params, **options)


def check_tokens(tokens, vocab_size, lowest=0, name="tokens"):
    """``tokens`` as a new int64 array (B, T) with every id in range, or a ``DataError`` naming the first bad one.

    The copy is checked, not the caller's array, which the caller may fill with the next batch at any time.
    """
    array = np.array(tokens)
    if array.dtype.kind not in "iu" or array.ndim != 2:
        found = f"{array.dtype} {array.shape}"
        raise DataError("not a batch of token ids", field=name, found=found, expected="integers (B, T)")
    if array.size and not (int(array.min()) >= lowest and int(array.max()) < vocab_size):
        bad = np.argwhere((array < lowest) | (array >= vocab_size))[0]
        where = f"{name}[{', '.join(map(str, bad))}]"
        raise DataError("no such token", field=where, found=int(array[tuple(bad)]), expected=f"0 to {vocab_size - 1}")
    return array.astype(np.int64, copy=False)
