"""What all layer functions share: how they are called."""

import inspect

import pytest

from gpt_numpy import layers

FORWARDS = [name for name in layers.__all__ if name.endswith("_forward")]
WITH_PARAMETERS = {
    "embedding",
    "layernorm",
    "rmsnorm",
    "linear",
    "multi_head_attention",
    "mlp",
    "lm_head",
    "lm_head_cross_entropy",
}


def test_every_layer_of_the_model_is_exported():
    assert {name.removesuffix("_forward") for name in FORWARDS} == WITH_PARAMETERS | {
        "gelu",
        "activation",
        "swiglu",
        "rotary",
        "attention",
        "dropout",
        "residual",
        "cross_entropy",
    }
    assert {"adamw_update", "gradient_norm", "lm_head_cross_entropy_gradients"} <= set(layers.__all__)


@pytest.mark.parametrize("forward", FORWARDS)
def test_a_forward_has_its_backward_and_takes_memory_from_alloc(forward):
    layer = forward.removesuffix("_forward")
    backward = getattr(layers, layer + "_backward")
    assert "alloc" in inspect.signature(getattr(layers, forward)).parameters
    parameters = inspect.signature(backward).parameters
    assert list(parameters)[0] == ("dlogits" if layer == "lm_head" else "dloss" if "cross" in layer else "dout")
    assert ("into" in parameters) == (layer in WITH_PARAMETERS)
    if "into" in parameters:
        assert parameters["into"].kind is inspect.Parameter.KEYWORD_ONLY and list(parameters)[-1] == "into"
