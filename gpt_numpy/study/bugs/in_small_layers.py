"""Bugs in the layers without a mixing of positions: layernorm, linear, gelu, mlp, dropout, residual, embedding."""

from .planting import Bug

BUGS = [
    Bug(
        "layernorm-mean-term-forgotten",
        "layernorm.py",
        "    dx -= shift\n",
        "",
        "layernorm: differences of x",
        "Sum the numeric dx over a row; then the analytic one.",
        "The mean depends on every entry of the row, so −mean(dxhat) belongs in dx. Shifting a row changes nothing, "
        "therefore every row of dx sums to 0; this one does not.",
    ),
    Bug(
        "layernorm-variance-term-forgotten",
        "layernorm.py",
        "    xhat *= stretch\n    dx -= xhat\n",
        "",
        "layernorm: differences of x",
        "The rows of dx sum to 0, as they must. Now multiply each row by xhat and sum.",
        "rstd depends on every entry too: −xhat · mean(dxhat ∘ xhat) is missing. Stretching a row changes (almost) "
        "nothing, so dx has to be orthogonal to xhat.",
    ),
    Bug(
        "layernorm-sample-variance",
        "layernorm.py",
        "variance = np.mean(centred * centred, axis=-1, keepdims=True)",
        "variance = np.sum(centred * centred, axis=-1, keepdims=True) / (x.shape[-1] - 1)",
        "layernorm: differences of x",
        "The backward is the correct one. The variance is divided by a number: by which one, forward and backward?",
        "The forward divides by C − 1, as for a sample; GPT-2 and the derivation divide by C. For C = 768 the "
        "outputs differ by 0.07 %, far too little to notice by looking.",
    ),
    Bug(
        "layernorm-dweight-from-x",
        "layernorm.py",
        "dweight = (dout * xhat).sum(axis=rows)",
        "dweight = (dout * x).sum(axis=rows)",
        "layernorm: differences of weight",
        "Only dweight is wrong. Which array did the forward multiply by the weight?",
        "out = xhat · weight + bias: the weight multiplies the normalised row, not x.",
    ),
    Bug(
        "layernorm-weight-forgotten",
        "layernorm.py",
        "dxhat = np.multiply(dout, weight, out=alloc(x.shape, x.dtype))",
        "dxhat = np.multiply(dout, 1, out=alloc(x.shape, x.dtype))",
        "layernorm: differences of x",
        "In a freshly initialised model the gradients are right. Which parameters are all 1 there?",
        "dxhat = dout · weight. At initialisation every weight is 1 and the bug is invisible: a check must use "
        "parameters that are not neutral.",
    ),
    Bug(
        "layernorm-epsilon-outside-the-root",
        "layernorm.py",
        "rstd = 1 / np.sqrt(variance + x.dtype.type(epsilon))",
        "rstd = 1 / (np.sqrt(variance) + x.dtype.type(epsilon))",
        "layernorm (large ε): differences of x",
        "The error is largest where rows are nearly constant. What is as large as the variance there?",
        "ε belongs under the root. The derivative r³ was derived for (v + ε)^(−1/2). With variances near 1 the "
        "error is 1e-5 of the gradient: the case with small rows is there for this.",
    ),
    Bug(
        "layernorm-bias-gradient-averaged",
        "layernorm.py",
        "dbias = dout.sum(axis=rows)",
        "dbias = dout.mean(axis=rows)",
        "layernorm: differences of bias",
        "dbias is wrong by one factor. Which product of sizes is it?",
        "The bias is added to every row, so its gradient is the sum over the B · T rows, not their mean.",
    ),
    Bug(
        "linear-bias-added-twice",
        "linear.py",
        "    out += bias\n",
        "    out += bias\n    out += bias\n",
        "linear: differences of bias",
        "One tensor is wrong, by a factor of exactly ½. Is the mistake in the backward?",
        "The forward adds the bias twice (fused kernels with an epilogue make this easy). The backward is right for "
        "the forward that was meant.",
    ),
    Bug(
        "linear-bias-gradient-averaged",
        "linear.py",
        "dbias = rows_of(dout).sum(axis=0)",
        "dbias = rows_of(dout).mean(axis=0)",
        "linear: differences of bias",
        "The factor between numeric and analytic is a product of two sizes of the input.",
        "A mean for a sum: the bias reached all B · T rows, and each hands its gradient back in full.",
    ),
    Bug(
        "linear-last-sequence-only",
        "linear.py",
        "dweight = rows_of(x).T @ rows_of(dout)",
        "dweight = rows_of(x[-1]).T @ rows_of(dout[-1])",
        "linear: differences of weight",
        "With a batch of one sequence the gradient would be right.",
        "The weight was used by every row of every sequence; its gradient sums over all of them. Only the last "
        "sequence's rows are in this one. A check with B = 1 would have passed it.",
    ),
    Bug(
        "linear-weight-not-transposed",
        "linear.py",
        "dx = np.matmul(dout, weight.T, out=alloc(x.shape, x.dtype))",
        "dx = np.matmul(dout, weight, out=alloc(x.shape, x.dtype))",
        "linear: runs",
        "It does not even run here. In which layer of GPT-2 would it have run?",
        "dx = dout · weightᵀ. With a square weight, as in attention's output projection, the shapes fit and the "
        "numbers are wrong: inputs of pairwise different sizes turn the silent bug into a loud one.",
    ),
    Bug(
        "gelu-derivative-of-the-exact-form",
        "gelu.py",
        "slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du_dx",
        "slope = np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2"
        " + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi))(x)",
        "gelu: differences of x",
        "The error is at most 8.7e-4, near x = −2.02 and 2.02, and under 1e-4 on 18 % of [−4, 4]. Which two functions are "
        "called GELU?",
        "The forward is GPT-2's tanh form, the backward the derivative of x · Φ(x). They differ by at most "
        "8.7e-4: a loose tolerance, or float32, lets this through.",
    ),
    Bug(
        "gelu-product-rule-forgotten",
        "gelu.py",
        "slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du_dx",
        "slope = 0.5 * (1 + t)",
        "gelu: differences of x",
        "At x = 0 it is right. Where is it most wrong?",
        "x occurs twice in ½ x (1 + tanh u(x)). The second term of the product rule is missing.",
    ),
    Bug(
        "gelu-cubic-factor-forgotten",
        "gelu.py",
        "du_dx = SCALE * (1 + 3 * CUBIC * x * x)",
        "du_dx = SCALE * (1 + CUBIC * x * x)",
        "gelu: differences of x",
        "Small x are nearly right, larger ones are not, far tails are right again.",
        "d(x³)/dx = 3x². The error grows with x² until 1 − t² takes it away.",
    ),
    Bug(
        "gelu-tanh-derivative-not-squared",
        "gelu.py",
        "0.5 * x * (1 - t * t) * du_dx",
        "0.5 * x * (1 - t) * du_dx",
        "gelu: differences of x",
        "For large positive x the gradient is right. And for large negative x?",
        "tanh' = 1 − tanh². With 1 − tanh, negative x get a slope that does not vanish.",
    ),
    Bug(
        "mlp-gelu-derivative-at-the-wrong-place",
        "mlp.py",
        "dhidden = activate_backward(dactivated, cache, alloc)",
        "dhidden = activate_backward(dactivated, cache._replace(gelu=type(cache.gelu)(cache.proj.x)), alloc)",
        "mlp: differences of fc_weight",
        "gelu alone passes. The second projection's gradients are right. At which point is the derivative taken?",
        "gelu' has to be taken at gelu's input. It was taken at its output, which happens to lie in a cache of the "
        "right shape.",
    ),
    Bug(
        "mlp-gelu-skipped",
        "mlp.py",
        "dhidden = activate_backward(dactivated, cache, alloc)",
        "dhidden = dactivated",
        "mlp: differences of x",
        "Everything before the activation is wrong, everything after it right.",
        "The backward of the MLP jumps over the activation: three lines forward need three lines backward.",
    ),
    Bug(
        "dropout-not-rescaled-in-backward",
        "dropout.py",
        "return dropout_forward(dout, cache.dropout, alloc)[0]",
        "return np.multiply(dout, keep_mask(dout.shape, cache.dropout), out=alloc(dout.shape, dout.dtype))",
        "dropout: differences of x",
        "The zeros are at the right positions, and the rest is wrong by one factor.",
        "Kept values were multiplied by 1/(1−p) in the forward; so is their gradient.",
    ),
    Bug(
        "dropout-another-mask-in-backward",
        "dropout.py",
        "return dropout_forward(dout, cache.dropout, alloc)[0]",
        "return dropout_forward(dout, cache.dropout._replace(first_sequence=0), alloc)[0]",
        "dropout: differences of x",
        "The gradient is right where the batch begins at sequence 0.",
        "The mask belongs to the sequence's index in the global batch. The backward forgot where its micro-batch "
        "began, so its mask is that of other sequences.",
    ),
    Bug(
        "residual-stream-dropped",
        "residual.py",
        "return dout, dbranch",
        "return dbranch, dbranch",
        "residual (dropout): differences of x",
        "Without dropout the two are the same array anyway.",
        "The stream passes the addition untouched: dx = dout. Only the branch went through dropout.",
    ),
    Bug(
        "residual-dropout-not-passed-back",
        "residual.py",
        "        dbranch = dropout_backward(dout, cache.dropout_cache, alloc)\n",
        "        dbranch = dout\n",
        "residual (dropout): differences of branch",
        "Which elements of the branch never reached the sum?",
        "Dropped elements of the branch get no gradient, kept ones 1/(1−p) times it.",
    ),
    Bug(
        "embedding-overwrites-repeated-tokens",
        "embedding.py",
        "np.add.at(dwte, cache.tokens, dout)",
        "dwte[cache.tokens] += dout",
        "embedding: differences of wte",
        "The rows of tokens that occur once are right.",
        "``array[index] += value`` reads, adds and writes once for each row, so of a token's several gradients only "
        "the last survives. np.add.at adds them all. With random tokens from a large vocabulary, a small check "
        "would rarely repeat one.",
    ),
    Bug(
        "embedding-positions-of-the-first-sequence",
        "embedding.py",
        "np.add.at(dwpe, np.broadcast_to(cache.positions, cache.tokens.shape), dout)",
        "np.add.at(dwpe, np.broadcast_to(cache.positions, cache.tokens.shape)[0], dout[0])",
        "embedding: differences of wpe",
        "dwte is right. How often was row 0 of wpe used?",
        "Every sequence of the batch added the same row of wpe, so its gradient is the sum over the batch.",
    ),
    Bug(
        "accumulation-overwrites",
        "accumulate.py",
        "            accumulated += gradient\n",
        "            accumulated[...] = gradient\n",
        "linear: accumulation",
        "Every gradient of every layer is right when asked for alone. One parameter of the model is wrong. Which is "
        "used twice?",
        "``into`` has to add. With ``=`` the second micro-batch replaces the first, and wte, which the head and the "
        "embedding share, keeps only the embedding's half.",
    ),
]
