"""Right solutions of four exercises, each written in another way than the package's own."""

LAYERNORM = [
    """
def layernorm_backward(dout, cache):
    x, mean, rstd, weight, *_ = cache
    C = x.shape[-1]
    centred = x - mean
    dxhat = dout * weight
    drstd = np.sum(dxhat * centred, axis=-1, keepdims=True)
    dvariance = drstd * -0.5 * rstd**3
    dcentred = dxhat * rstd + dvariance * 2 / C * centred
    dmean = -np.sum(dcentred, axis=-1, keepdims=True)
    dx = dcentred + dmean / C
    dweight = np.einsum("btc,btc->c", dout, centred * rstd)
    dbias = np.einsum("btc->c", dout)
    return dx, dweight, dbias
""",
    """
def layernorm_backward(dout, cache):
    x, mean, rstd, weight, *_ = cache
    dx = np.zeros(x.shape)
    dweight = np.zeros(weight.shape)
    dbias = np.zeros(weight.shape)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            xhat = (x[b, t] - mean[b, t]) * rstd[b, t]
            g = dout[b, t] * weight
            dx[b, t] = rstd[b, t] * (g - g.mean() - xhat * (g @ xhat) / len(g))
            dweight += dout[b, t] * xhat
            dbias += dout[b, t]
    return dx, dweight, dbias
""",
    """
def layernorm_backward(dout, cache):
    x, mean, rstd, weight, *_ = cache
    xhat = (x - mean) * rstd
    C = x.shape[-1]
    jacobian = np.eye(C) - 1 / C - xhat[..., :, None] * xhat[..., None, :] / C
    dx = rstd * np.einsum("btij,btj->bti", jacobian, dout * weight)
    return dx, (dout * xhat).sum((0, 1)), dout.sum((0, 1))
""",
    """
def layernorm_backward(dout, cache):
    x, mean, rstd, weight, *_ = cache
    rows, C = dout.reshape(-1, dout.shape[-1]), dout.shape[-1]
    xhat = ((x - mean) * rstd).reshape(-1, C)
    g = rows * weight
    dx = (C * g - g.sum(1, keepdims=True) - xhat * (g * xhat).sum(1, keepdims=True)) / C
    return dx.reshape(x.shape) * rstd, (rows * xhat).sum(0), rows.sum(0)
""",
    """
def layernorm_backward(dout, cache):
    x, mean, rstd, weight, *_ = cache
    xhat = (x - mean) * rstd
    g = dout * weight
    along = np.mean(g * xhat, axis=-1, keepdims=True)
    dc = rstd * (g - xhat * along)
    dx = dc - dc.mean(axis=-1, keepdims=True)
    return {"dx": dx, "dweight": np.tensordot(np.ones(x.shape[:2]), dout * xhat, 2), "dbias": dout.sum(1).sum(0)}
""",
]

GELU = [
    """
def gelu_backward(dout, cache):
    (x,) = cache
    a, b = np.sqrt(2 / np.pi), 0.044715
    t = np.tanh(a * (x + b * x**3))
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * a * (1 + 3 * b * x**2))
""",
    """
def gelu_backward(dout, cache):
    x = cache.x
    a, b = np.sqrt(2 / np.pi), 0.044715
    u = a * (x + b * x**3)
    gate = 1 / (1 + np.exp(-2 * u))
    du = a + 3 * a * b * x * x
    return dout * (gate + x * gate * (1 - gate) * 2 * du)
""",
    """
def gelu_backward(dout, cache):
    x = cache.x
    a, b = np.sqrt(2 / np.pi), 0.044715
    u = a * (x + b * x**3)
    dgate = dout * x
    dtanh = dgate * 0.5
    du = dtanh / np.cosh(u) ** 2
    return dout * 0.5 * (1 + np.tanh(u)) + du * (a + a * b * 3 * x**2)
""",
    """
def gelu_backward(dout, cache):
    h = 1e-30
    z = cache.x + 1j * h
    a, b = np.sqrt(2 / np.pi), 0.044715
    return dout * np.imag(0.5 * z * (1 + np.tanh(a * (z + b * z**3)))) / h
""",
    """
def gelu_backward(dout, cache):
    dx = np.empty(dout.shape)
    for index in np.ndindex(dout.shape):
        x = cache.x[index]
        a, b = math.sqrt(2 / math.pi), 0.044715
        t = math.tanh(a * (x + b * x * x * x))
        dx[index] = dout[index] * (1 + t + x * (1 - t) * (1 + t) * a * (1 + 3 * b * x * x)) / 2
    return dx
""",
]

CROSS_ENTROPY = [
    """
def cross_entropy_backward(dloss, cache):
    logits, maximum, total, targets, counted = cache
    rows = logits.reshape(-1, logits.shape[-1])
    p = np.exp(rows - maximum) / total
    one_hot = np.eye(rows.shape[1])[np.where(counted, targets, 0)]
    return ((p - one_hot) * counted[:, None] * dloss / counted.sum()).reshape(logits.shape)
""",
    """
def cross_entropy_backward(dloss, cache):
    x = cache.logits
    p = np.exp(x)
    p = p / p.sum(-1, keepdims=True)
    d = p.reshape(-1, x.shape[-1]).copy()
    n = int(cache.counted.sum())
    for row, target in enumerate(cache.targets):
        if cache.counted[row]:
            d[row, target] -= 1
        else:
            d[row] = 0
    return d.reshape(x.shape) * dloss / n
""",
    """
def cross_entropy_backward(dloss, cache):
    logits, maximum, total, targets, counted = cache
    rows = logits.reshape(-1, logits.shape[-1])
    dlog_p = np.zeros_like(rows)
    dlog_p[counted, targets[counted]] = -dloss / counted.sum()
    p = np.exp(rows - maximum - np.log(total))
    return (dlog_p - p * dlog_p.sum(axis=1, keepdims=True)).reshape(logits.shape)
""",
    """
def cross_entropy_backward(dloss, cache):
    logits = cache.logits
    out = np.zeros(logits.shape)
    flat, rows = out.reshape(-1, logits.shape[-1]), logits.reshape(-1, logits.shape[-1])
    for i in np.flatnonzero(cache.counted):
        e = np.exp(rows[i] - rows[i].max())
        flat[i] = e / e.sum()
        flat[i, cache.targets[i]] -= 1.0
        flat[i] *= dloss / np.count_nonzero(cache.counted)
    return out
""",
    """
def cross_entropy_backward(dloss, cache):
    logits, maximum, total, targets, counted = cache
    V = logits.shape[-1]
    rows = logits.reshape(-1, V)
    hit = np.arange(V) == targets[:, None]
    d = np.exp(rows - maximum) / total - hit
    d = np.where(counted[:, None], d, 0)
    return (dloss / counted.sum() * d).reshape(logits.shape)
""",
]

_KEPT = """
    def keep(a):
        return a if cache.dropout_cache is None else layers.dropout_backward(a, cache.dropout_cache)
"""
ATTENTION = [
    """
def attention_backward(dout, cache):
    q, k, v, P, *_ = cache
"""
    + _KEPT
    + """
    s = 1 / np.sqrt(q.shape[-1])
    dv = np.einsum("bhij,bihd->bjhd", keep(P), dout)
    dP = keep(np.einsum("bihd,bjhd->bhij", dout, v))
    dS = P * (dP - np.sum(dP * P, axis=-1, keepdims=True))
    dq = s * np.einsum("bhij,bjhd->bihd", dS, k)
    dk = s * np.einsum("bhij,bihd->bjhd", dS, q)
    return dq, dk, dv
""",
    """
def attention_backward(dout, cache):
    q, k, v, P, *_ = cache
"""
    + _KEPT
    + """
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    kept = keep(P)
    dP = keep(np.einsum("bihd,bjhd->bhij", dout, v))
    d = q.shape[-1]
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            dv[b, :, h] = kept[b, h].T @ dout[b, :, h]
            p, g = P[b, h], dP[b, h]
            dS = p * g - p * (p * g).sum(1)[:, None]
            dq[b, :, h] = dS @ k[b, :, h] / d**0.5
            dk[b, :, h] = dS.T @ q[b, :, h] / d**0.5
    return dq, dk, dv
""",
    """
def attention_backward(dout, cache):
    q, k, v, P, *_ = cache
"""
    + _KEPT
    + """
    out = np.einsum("bhij,bjhd->bihd", keep(P), v)
    delta = np.einsum("bihd,bihd->bhi", dout, out)
    dP = keep(np.einsum("bihd,bjhd->bhij", dout, v))
    dS = (dP - delta[..., None]) * P / np.sqrt(q.shape[-1])
    return (
        np.einsum("bhij,bjhd->bihd", dS, k),
        np.einsum("bhij,bihd->bjhd", dS, q),
        np.einsum("bhij,bihd->bjhd", keep(P), dout),
    )
""",
    """
def attention_backward(dout, cache):
    q, k, v, P, *_ = cache
"""
    + _KEPT
    + """
    Q, K, V, D = (a.transpose(0, 2, 1, 3) for a in (q, k, v, dout))
    dV = keep(P).transpose(0, 1, 3, 2) @ D
    dP = keep(D @ V.transpose(0, 1, 3, 2))
    n = P.shape[-1]
    jacobian = P[..., :, None] * (np.eye(n) - P[..., None, :])
    dS = np.einsum("bhijk,bhij->bhik", jacobian, dP) * Q.shape[-1] ** -0.5
    dQ, dK = dS @ K, dS.transpose(0, 1, 3, 2) @ Q
    return tuple(a.transpose(0, 2, 1, 3) for a in (dQ, dK, dV))
""",
    """
def attention_backward(dout, cache):
    q, k, v, P, *_ = cache
"""
    + _KEPT
    + """
    s = q.shape[-1] ** -0.5
    dP = keep(np.einsum("bihd,bjhd->bhij", dout, v))
    weighted = P * dP
    dS = weighted - P * weighted.sum(axis=-1, keepdims=True)
    dq = np.matmul(dS, s * k.swapaxes(1, 2)).swapaxes(1, 2)
    dk = np.matmul(dS.swapaxes(2, 3), s * q.swapaxes(1, 2)).swapaxes(1, 2)
    dv = np.matmul(keep(P).swapaxes(2, 3), dout.swapaxes(1, 2)).swapaxes(1, 2)
    return [dq, dk, dv]
""",
]

SOLUTIONS = {"layernorm": LAYERNORM, "gelu": GELU, "cross-entropy": CROSS_ENTROPY, "attention": ATTENTION}
