"""What a model costs before it runs: parameters by part, operations and bytes of a training step and of one token.

Operations are those of matrix products only; a multiply-add counts as two. Work that a kernel repeats to save memory
counts once. The backward of a product is two products of the same size. Bytes follow the arrays that ``model`` and
``kernels`` make; a test compares the formula with the workspace of a training step.
"""

from __future__ import annotations

from .. import parameters
from ..config import GPTConfig
from ..host import compiler

FLOAT32 = 4


def parameters_by_part(config: GPTConfig) -> dict[str, int]:
    """Number of parameters of each part of the model."""
    parts = {"token embedding (and head)": 0, "position embedding": 0, "attention": 0, "mlp": 0, "layernorm": 0}
    for name, shape in parameters.table(config).items():
        size = 1
        for length in shape:
            size *= length
        if name in ("wte.weight", "lm_head.weight"):
            parts["token embedding (and head)"] += size
        elif name == "wpe.weight":
            parts["position embedding"] += size
        else:
            parts["attention" if ".attn." in name else "mlp" if ".mlp." in name else "layernorm"] += size
    return parts


def step_flops(config: GPTConfig, batch_size: int, block_size: int) -> dict[str, int]:
    """Operations of forward and backward, by kind of product, for (batch_size, block_size) tokens."""
    B, T, C, L = batch_size, block_size, config.n_embd, config.n_layer
    visible = sum(_visible_keys(config, layer, T) for layer in range(L))
    forward = {
        "attention projections": L * 2 * B * T * C * (config.qkv_columns + config.heads_width),
        "attention": 2 * 2 * config.heads_width * B * visible,  # q · kᵀ and weights · v, over what is visible
        "mlp": L * 2 * B * T * C * (config.hidden_columns + config.mlp_width),
        "head": 2 * B * T * C * config.vocab_size,
    }
    return {name: 3 * number for name, number in forward.items()}


def _visible_keys(config, layer, T):
    """Keys that the T queries of a sequence see in block ``layer``: query t sees t + 1, or a window's."""
    window = min(T, config.window(layer) or T)
    return window * (window + 1) // 2 + (T - window) * window


def training_flops_per_token(config: GPTConfig) -> float:
    """Operations of training on one token of a full block."""
    return sum(step_flops(config, 1, config.block_size).values()) / config.block_size


def training_memory(
    config: GPTConfig, batch_size: int, block_size: int, recompute: bool = False, products: str = "float32"
) -> dict[str, int]:
    """Bytes by purpose at the peak of a float32 training step through the kernels."""
    B, T, C, L = batch_size, block_size, config.n_embd, config.n_layer
    rows, N = B * T, parameters.count(config)
    stream = rows * C * FLOAT32  # one array (B, T, C)
    qkv, heads = rows * config.qkv_columns * FLOAT32, rows * config.heads_width * FLOAT32
    per_row = rows * FLOAT32
    # Kept by a block: both sums, the heads (with one logarithm a row and head), the mean and deviation of each row of both
    # norms; and as operands of products its two normalised inputs, q, k, v and the hidden layer before its activation.
    operands = 2 * stream + config.hidden_columns * per_row + (0 if config.qk_norm else qkv)
    if products == "bfloat16":
        operands //= 2
    block = 2 * stream + heads + operands + 4 * per_row + config.n_head * per_row
    if config.qk_norm:  # normalised queries and keys, with one number a head; what the norms are applied to is float32
        block += qkv + (config.n_head + config.key_heads) * (config.head_size + 1) * per_row
    # Made by a block's backward: dx of four layers, dheads, dq, dk and dv. The block's own dx is in the stream's region.
    backward = 3 * stream + heads + qkv
    return {
        "parameters": N * FLOAT32,
        "gradients": N * FLOAT32,
        "moments of AdamW": 2 * N * FLOAT32,
        "kept for the backward": (block + L * stream if recompute else L * block) + 2 * stream,
        # A branch lives until it is added. A normalised input that is not kept itself lives beside it.
        "made by a branch": stream if products == "float32" else 2 * stream,
        "made by the backward": backward + 4 * stream,
        "scratch of the kernels": _kernel_scratch(config, batch_size, block_size, products),
    }


def _kernel_scratch(config, batch_size, block_size, products):
    """Bytes of the chunks in which the kernels go through the rows of the mlp and of the output head.

    With products in bfloat16, also those of what is rounded to be kept.
    """
    if compiler.missing():
        return 0
    from ..kernels import attention, lm_head, mlp

    rows = batch_size * block_size
    mlp_rows = min(rows, mlp.CHUNK_ROWS)
    logits_rows = min(rows, max(1, lm_head.CHUNK_BYTES // (config.vocab_size * FLOAT32)))
    numbers = mlp_rows * (config.hidden_columns + config.mlp_width) + logits_rows * config.vocab_size
    if products == "bfloat16":
        heads_rows = min(batch_size, max(1, attention.CHUNK_ROWS // block_size)) * block_size
        numbers += 0 if config.qk_norm else heads_rows * config.qkv_columns
        numbers += 0 if config.mlp == "gelu" and config.has_bias("mlp") else mlp_rows * config.hidden_columns
    return numbers * FLOAT32


def expected_seconds(
    config, batch_size, block_size, flops_per_second, bytes_per_second, recompute=False, products="float32"
):
    """Seconds of a training step, from the two figures of ``limits``.

    The sum of the products' time at the machine's rate and the time of moving memory: the optimizer reads four arrays of the
    model's size and writes three, the gradients are cleared, added to and measured, and each array kept for
    the backward is written once and read twice.
    """
    flops = sum(step_flops(config, batch_size, block_size).values()) * (4 / 3 if recompute else 1)
    memory = training_memory(config, batch_size, block_size, recompute, products)
    moved = 11 * memory["parameters"] + 3 * memory["kept for the backward"]
    return flops / flops_per_second + moved / bytes_per_second


def needed_memory(config: GPTConfig, batch_size: int, recompute: bool) -> int:
    """Bytes that training takes at its peak: a step's, and the copy of a checkpoint that is being written."""
    step = training_memory(config, batch_size, config.block_size, recompute)
    return sum(step.values()) + step["parameters"] + step["moments of AdamW"]


def generation_flops_per_token(config: GPTConfig, context: int, logits: bool = True) -> int:
    """Operations of the forward pass of one token with ``context`` tokens before it: two a weight, and attention."""
    L, C = config.n_layer, config.n_embd
    head = 2 * config.vocab_size * C if logits else 0
    weights = C * (config.qkv_columns + config.heads_width + config.hidden_columns + config.mlp_width)
    return 2 * L * weights + 4 * config.heads_width * _keys_read(config, context) + head


def generation_bytes_per_token(config: GPTConfig, weight_bytes: int, context: int) -> int:
    """Bytes read to decode one token: the ``weight_bytes`` of all weights once, and the float32 keys and values."""
    return weight_bytes + 2 * config.key_heads * config.head_size * _keys_read(config, context) * FLOAT32


def _keys_read(config, context):
    """Earlier keys that one token sees, over all blocks: ``context`` each, or a window's."""
    return sum(min(context, config.window(layer) or context) for layer in range(config.n_layer))
