"""JAX: the whole training step as one jitted function with donated buffers."""

from . import problem


def prepare(name, spec):
    import jax
    import jax.numpy as jnp
    import numpy as np

    C, n_head, L = spec["n_embd"], spec["n_head"], spec["n_layer"]
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32) * 0.02)

    def block():
        return dict(
            ln_1=(jnp.ones(C), jnp.zeros(C)),
            ln_2=(jnp.ones(C), jnp.zeros(C)),
            attn=(normal(C, 3 * C), jnp.zeros(3 * C)),
            proj=(normal(C, C), jnp.zeros(C)),
            fc=(normal(C, 4 * C), jnp.zeros(4 * C)),
            out=(normal(4 * C, C), jnp.zeros(C)),
        )

    params = dict(
        wte=normal(spec["vocab_size"], C),
        wpe=normal(spec["block_size"], C),
        blocks=[block() for _ in range(L)],
        ln_f=(jnp.ones(C), jnp.zeros(C)),
    )

    def layernorm(x, weight, bias):
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weight + bias

    def run_block(x, p):
        B, T, _ = x.shape
        qkv = layernorm(x, *p["ln_1"]) @ p["attn"][0] + p["attn"][1]
        q, k, v = (part.reshape(B, T, n_head, C // n_head) for part in jnp.split(qkv, 3, axis=-1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.reshape(B, T, C) @ p["proj"][0] + p["proj"][1]
        hidden = jax.nn.gelu(layernorm(x, *p["ln_2"]) @ p["fc"][0] + p["fc"][1], approximate=True)
        return x + hidden @ p["out"][0] + p["out"][1]

    def loss_of(p, tokens, targets):
        x = p["wte"][tokens] + p["wpe"][: tokens.shape[1]]
        for block_params in p["blocks"]:
            x = run_block(x, block_params)
        logits = layernorm(x, *p["ln_f"]) @ p["wte"].T
        picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - picked).mean()

    def update(p, m, v, t, tokens, targets):
        loss, g = jax.value_and_grad(loss_of)(p, tokens, targets)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)))
        g = jax.tree.map(lambda leaf: leaf * jnp.minimum(1.0, problem.CLIP / (norm + 1e-6)), g)
        m = jax.tree.map(lambda a, b: problem.BETA1 * a + (1 - problem.BETA1) * b, m, g)
        v = jax.tree.map(lambda a, b: problem.BETA2 * a + (1 - problem.BETA2) * b * b, v, g)
        c1, c2 = 1 - problem.BETA1**t, 1 - problem.BETA2**t

        def move(w, a, b):
            decay = problem.WEIGHT_DECAY if w.ndim == 2 else 0.0
            return w - problem.LEARNING_RATE * (a / c1 / (jnp.sqrt(b / c2) + problem.EPSILON) + decay * w)

        return jax.tree.map(move, p, m, v), m, v, loss

    jitted = jax.jit(update, donate_argnums=(0, 1, 2))
    first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    tokens, targets = map(jnp.asarray, problem.batch(spec))
    state = [params, first, second, 0]

    def step():
        state[3] += 1
        *state[:3], loss = jitted(*state[:3], float(state[3]), tokens, targets)
        return float(loss)

    return step
