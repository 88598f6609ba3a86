# %% [markdown]
# # 5. A nonlinearity, and layers in a chain: GELU and the MLP
#
# GPT-2's activation is the tanh form of the Gaussian error linear unit,
#
#     gelu(x) = ½ x (1 + tanh u),   u = √(2/π) (x + 0.044715 x³).
#
# It multiplies x by a gate between 0 and 1 that opens as x grows. It approximates x · Φ(x).
#
# **Symbols.** x: the input; Φ: the distribution function of the normal distribution, Φ(x) = ½ (1 +
# erf(x/√2)); u: the argument of tanh; t: tanh u; f: any function; h: a small step; i: the imaginary
# unit; O(h²): terms that vanish as fast as h².
#
# **Predict.** What is gelu'(0)? Where does gelu have its minimum, and what is gelu' there? What are
# the slopes far out?

# %%
import math

import numpy as np

from gpt_numpy import layers
from gpt_numpy.study import check_gradients
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.drawing import curves, show

x = np.linspace(-4, 4, 401)
out, cache = layers.gelu_forward(x)
show(curves({"gelu": (x, out), "x": (x, x)}, "GELU, and the identity", x="x"))

# %% [answer]
# **Answer:** gelu'(0) = ½. The minimum is −0.17 at x = −0.75, where the slope is 0. Far to the right
# the slope is 1, far to the left 0.

# %% [proof]
slope = layers.gelu_backward(np.ones_like(x), cache)
print(f"gelu'(0) = {slope[200]}, minimum {out.min():.4f} at {x[out.argmin()]:.2f}")

# %% [markdown]
# ## Derive
#
# x stands twice in ½ x (1 + tanh u(x)), so the product rule gives two terms:
#
#     gelu' = ½ (1 + t) + ½ x · (1 − t²) · u'
#     t = tanh u,   u' = √(2/π) (1 + 3 · 0.044715 x²)
#
# ## By hand, on three numbers: 0, 1, −1
#
# - x = 0: t = 0, so gelu' = ½ + 0 = ½.
# - x = 1: u = 0.797885 · 1.044715 = 0.833562, t = 0.682384, u' = 0.797885 · 1.134145 = 0.904917;
#   gelu' = 0.841192 + ½ · (1 − 0.465648) · 0.904917 = 0.841192 + 0.241772 = 1.082964.
# - x = −1: t changes its sign, the rest does not: 0.158808 − 0.241772 = −0.082964.

# %%
slope = layers.gelu_backward(np.ones_like(x), layers.gelu_forward(x)[1])
show(curves({"gelu": (x, out), "its derivative": (x, slope)}, "GELU and its derivative", x="x"))
three = np.array([0.0, 1.0, -1.0])
_, cache = layers.gelu_forward(three)
found = layers.gelu_backward(np.ones(3), cache)
print(found)
assert np.allclose(found, [0.5, 1.082964, -0.082964], atol=1e-6)

# %% [markdown]
# A slope above 1 and one below 0: as x grows, GELU can fall, and it can grow faster than x.
#
# ## A chain of layers
#
# The MLP is linear → gelu → linear. Its backward is the forward's lines in reverse order; each
# takes the gradient that the line after it produced. Nothing else is needed however long the chain
# is.

# %%
rng = np.random.default_rng(0)
shapes = dict(x=(5, 3), fc_weight=(3, 12), fc_bias=(12,), proj_weight=(12, 3), proj_bias=(3,))
inputs = {name: rng.normal(size=shape) for name, shape in shapes.items()}
dout = rng.normal(size=(5, 3))

hidden, fc_cache = layers.linear_forward(inputs["x"], inputs["fc_weight"], inputs["fc_bias"])
activation, gelu_cache = layers.gelu_forward(hidden)
out, proj_cache = layers.linear_forward(activation, inputs["proj_weight"], inputs["proj_bias"])

dactivation, dproj_weight, dproj_bias = layers.linear_backward(dout, proj_cache)
dhidden = layers.gelu_backward(dactivation, gelu_cache)
dx, dfc_weight, dfc_bias = layers.linear_backward(dhidden, fc_cache)

_, cache = layers.mlp_forward(**inputs)
for a, b in zip((dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias), layers.mlp_backward(dout, cache)):
    assert np.allclose(a, b, rtol=1e-12)

# %% [markdown]
# ## Check
#
# Besides differences there is the *complex step*. If f is analytic (made of sums, products, exp,
# tanh, roots), its Taylor series also holds for a step along the imaginary axis:
#
#     f(x + ih) = f(x) + i h f'(x) − ½ h² f''(x) − …  =  f(x) + i h f'(x) + O(h²)
#     Im f(x + ih) / h = f'(x) + O(h²)
#
# The real terms do not reach the imaginary part, so the error of the quotient is of the order of h²,
# and nothing is subtracted: h may be 1e-30, and the result is exact to the last bits.


# %%
def complex_step(h):
    return np.imag(layers.gelu_forward(three + 1j * h)[0]) / h


exact = complex_step(1e-30)
print("error of the complex step", np.abs(exact - found))
errors = [np.abs(complex_step(h) - found).max() for h in (1e-2, 1e-3)]
print(f"with h = 1e-2 and 1e-3 the errors are {errors[0]:.1e} and {errors[1]:.1e}: a hundredth, as h² says")
assert 80 < errors[0] / errors[1] < 120
assert np.allclose(exact, found, rtol=1e-14)
assert check_gradients(layers.mlp_forward, layers.mlp_backward, inputs).passed

# %% [markdown]
# ## Break it
#
# There is another GELU, x · Φ(x) itself. Its derivative differs from ours by at most 8.7e-4, near x =
# −2.02 and x = 2.02, and by less than 1e-4 on 18 % of the interval from −4 to 4. With a tolerance of
# 1e-2, or in float32, a check would pass it. This is why checks are in float64 and to 1e-6.

# %%
broken, _ = plant(BUGS["gelu-derivative-of-the-exact-form"])
wrong = check_gradients(broken.gelu_forward, broken.gelu_backward, {"x": x})
print(f"error {wrong.tensors[0].error:.1e}, worst at x = {x[wrong.tensors[0].where]:.2f}")
assert not wrong.passed and wrong.tensors[0].error < 1e-2
many = np.linspace(-4, 4, 20001)
of_the_other = broken.gelu_backward(np.ones_like(many), broken.gelu_forward(many)[1])
apart = np.abs(of_the_other - layers.gelu_backward(np.ones_like(many), layers.gelu_forward(many)[1]))
print(f"at most {apart.max():.2e}; below 1e-4 on {100 * (apart < 1e-4).mean():.0f} % of [−4, 4]")
assert abs(apart.max() - 8.7e-4) < 1e-5 and abs((apart < 1e-4).mean() - 0.18) < 0.01

# %% [markdown]
# ## Exercise
#
# Far to the left the gate is 0 in floating point. What would u be for x = −1e200, and what would
# the plain formula return for x = −∞? (And write both backwards yourself: `gpt-numpy study exercise
# gelu`, then `mlp`.)

# %% [answer]
# **Answer:** x³ overflows to −∞, tanh gives −1, and −∞ · 0 is NaN. The layer clips the argument of
# u, and at −∞ returns the limit, 0.

# %% [proof]
with np.errstate(all="raise"):
    ends, _ = layers.gelu_forward(np.array([-np.inf, -1e200, np.inf]))
assert np.array_equal(ends, [0, 0, np.inf]) and math.isinf(ends[2])
assert check_gradients(layers.gelu_forward, layers.gelu_backward, {"x": x}).passed
print("lesson 5 holds")
