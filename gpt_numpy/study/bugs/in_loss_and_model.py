"""Bugs in the loss, in the output head, and in how the model puts its layers together."""

from .planting import Bug

BUGS = [
    Bug(
        "cross-entropy-target-not-subtracted",
        "cross_entropy.py",
        "    dlogits[index, targets[index]] -= 1\n",
        "",
        "cross-entropy: differences of logits",
        "Sum a row of the analytic dlogits.",
        "dlogits = softmax − one-hot. Without the one-hot all logits are pushed down and no row sums to 0.",
    ),
    Bug(
        "cross-entropy-sum-for-mean",
        "cross_entropy.py",
        "loss = float(losses.sum(dtype=np.float64)) / max(len(index), 1)",
        "loss = float(losses.sum(dtype=np.float64))",
        "cross-entropy: differences of logits",
        "The analytic gradient is too small by a factor that is a whole number. What is there eight of?",
        "The loss is the sum over the counted targets, the backward that of their mean.",
    ),
    Bug(
        "cross-entropy-mean-over-ignored-rows",
        "cross_entropy.py",
        "dlogits *= (counted * (dloss / max(len(index), 1)))",
        "dlogits *= (counted * (dloss / len(targets)))",
        "cross-entropy: differences of logits",
        "Too small by 8/10. Which targets are counted in each number?",
        "The forward's mean is over the targets that count; the backward divided by all of them. Without an "
        "ignored target in "
        "the check this passes.",
    ),
    Bug(
        "cross-entropy-ignored-rows-learn",
        "cross_entropy.py",
        "dlogits *= (counted * (dloss / max(len(index), 1)))",
        "dlogits *= (np.ones_like(counted) * (dloss / max(len(index), 1)))",
        "cross-entropy: differences of logits",
        "Where is the numeric gradient exactly 0?",
        "An ignored row is not part of the loss and gets no gradient. Here it gets softmax − 0.",
    ),
    Bug(
        "cross-entropy-dloss-ignored",
        "cross_entropy.py",
        "dlogits *= (counted * (dloss / max(len(index), 1)))",
        "dlogits *= (counted * (1 / max(len(index), 1)))",
        "cross-entropy: differences of logits",
        "A check with dout = 1 passes this. What is it good for that dout is random?",
        "The backward starts from dloss, not from 1: accumulation over micro-batches and loss scaling both "
        "come in there.",
    ),
    Bug(
        "lm-head-dwte-transposed",
        "lm_head.py",
        "dwte = dlogits.reshape(-1, V).T @ x.reshape(-1, C)",
        "dwte = x.reshape(-1, C).T @ dlogits.reshape(-1, V)",
        "lm-head: shapes",
        "Shapes alone tell.",
        "wte is (V, C), so dwte = dlogitsᵀ · x. This is (C, V).",
    ),
    Bug(
        "lm-head-dloss-forgotten-at-once",
        "lm_head.py",
        "return loss, *lm_head_cross_entropy_backward(dloss, cache, alloc)",
        "return loss, *lm_head_cross_entropy_backward(1.0, cache, alloc)",
        "lm-head-cross-entropy (gradients at once): differences of x",
        "Loss then backward is right; both at once is wrong by a factor that changes with every seed.",
        "The one-pass form has to take its dloss into account as the two-pass form does.",
    ),
    Bug(
        "model-tied-head-forgotten",
        "model.py",
        'dout, head_cache, into=(self.grads["wte.weight"],), alloc=self._alloc("backward head")',
        'dout, head_cache, alloc=self._alloc("backward head")',
        "model: differences of wte.weight",
        "One parameter only. In how many places does the model use it?",
        "wte is the embedding and the output head. The head's part, by far the larger, is computed and thrown away.",
    ),
    Bug(
        "model-residual-gradient-lost",
        "model.py",
        "        dx += dstream  # x went two ways, into the branch and past it: its gradients add up\n",
        "",
        "model: differences of embedding",
        "In the last block, the MLP's gradients are right and attention's are wrong.",
        "The stream went into the branch and past it; the gradient that came past the MLP is dropped. Early "
        "layers then learn "
        "only through every branch above them: the very thing that residuals were invented against.",
    ),
    Bug(
        "model-wrong-layernorm-cache",
        "model.py",
        'dnormed, cache.ln_1, into=(g[h + "ln_1.weight"]',
        'dnormed, cache.ln_2, into=(g[h + "ln_1.weight"]',
        "model: differences of h.1.ln_1.weight",
        "Both layernorms have the same shapes. The first wrong tensor from the top is in h.1.ln_1.",
        "ln_1's backward is given what ln_2 remembered.",
    ),
    Bug(
        "model-blocks-not-reversed",
        "model.py",
        "for i in reversed(range(self.config.n_layer)):",
        "for i in range(self.config.n_layer):",
        "model: differences of embedding",
        "With a single block there would be nothing to see.",
        "The backward has to visit the blocks from the last to the first.",
    ),
    Bug(
        "model-embedding-dropout-not-passed-back",
        "model.py",
        "            dx = ops.dropout_backward(dx, dropout_cache)\n",
        "            pass\n",
        "model (dropout, documents): differences of wpe.weight",
        "Only with dropout, and only the two embeddings.",
        "The embedding's output was dropped in the forward; its gradient has to pass the same mask on the way back.",
    ),
    Bug(
        "model-recomputed-without-dropout",
        "model.py",
        "_, cache = self._block_forward(i, blocks[i], *context, self._alloc(\"recomputed\"))",
        "_, cache = self._block_forward(i, blocks[i], context[0], None, self._alloc(\"recomputed\"))",
        "model (at once, recomputed): differences of h.0.mlp.c_fc.weight",
        "Only where blocks are recomputed. What has to be the same the second time?",
        "A recomputed block must be computed exactly as the first time, dropout included. Frameworks save "
        "and restore the "
        "generator's state for this; here the mask's coordinates are enough.",
    ),
]
