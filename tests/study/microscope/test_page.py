import base64
import json
import math
import re

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import GenerationError
from gpt_numpy.study import trace
from gpt_numpy.study.microscope import build_page
from gpt_numpy.study.microscope import page as page_module
from gpt_numpy.study.whole_model import unit_scale

T, N_LAYER, N_HEAD, HEAD_SIZE = 6, 2, 3, 4
TEXT = "abcdefg"


class Letters:
    """A tokenizer of letters: enough of the interface for the page."""

    def encode(self, text):
        return [ord(c) - ord("a") if "a" <= c <= "z" else 26 for c in text]

    def decode(self, ids):
        return "".join("</script>" if i == 26 else chr(ord("a") + i) for i in ids)

    def decode_bytes(self, ids):
        return self.decode(ids).encode()


@pytest.fixture(scope="module")
def model():
    model = GPT(GPTConfig(27, 40, N_LAYER, N_HEAD, N_HEAD * HEAD_SIZE), dtype=np.float64, ops=layers)
    unit_scale(model.params, np.random.default_rng(0))
    return model


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def traced(model):
    ids = np.array([Letters().encode(TEXT)])
    with trace(model) as t:
        model.loss(ids[:, :-1], ids[:, 1:])
        model.backward()
    return t


@pytest.fixture(scope="module")
def data(model):
    return data_of(build_page(model, Letters(), TEXT, "letters"))


def decode(picture):
    codes = np.frombuffer(base64.b64decode(picture["codes"]), np.int8).reshape(picture["size"]).astype(float)
    return np.sign(codes) * (codes / 127) ** 2 * picture["peak"]


def test_every_traced_tensor_is_on_the_page_once_in_forward_order(data, traced):
    assert list(data["tensors"]) == list(traced) == [n for s in data["stages"] for n in s["tensors"]]
    assert [s["id"] for s in data["stages"]] == ["embedding", "h.0", "h.1", "ln_f", "lm_head"]
    assert {t["box"] for t in data["tensors"].values()} == set(data["boxes"])


@pytest.mark.parametrize("name", ["h.0.attn.weights", "h.1.attn.q", "h.0.ln_1.mean", "h.1.mlp.gelu", "lm_head.losses"])
@pytest.mark.parametrize("side", ["value", "grad"])
def test_pictures_are_the_numbers_to_one_part_in_a_hundred(data, traced, name, side):
    exact = np.asarray(getattr(traced[name], side))
    if exact.ndim == 4:
        exact = exact[0] if name.endswith("weights") else exact[0].swapaxes(0, 1)
    exact = exact.reshape(data["tensors"][name][side]["size"])
    picture = data["tensors"][name][side]
    shown = decode(picture)
    # a step of the code's square root, at the size of the entry
    step = 0.51 / 127 * 2 * np.sqrt(np.abs(exact) * picture["peak"]) + picture["peak"] / 127**2
    assert np.all(np.abs(shown - exact) <= step)
    assert picture["min"] == exact.min() and picture["max"] == exact.max()
    assert math.isclose(picture["norm"], np.linalg.norm(exact)) and (np.sign(shown) == np.sign(exact))[shown != 0].all()


def test_attention_has_a_panel_for_each_head_and_keys_are_not_pooled(data):
    assert data["tensors"]["h.0.attn.weights"]["value"]["size"] == [N_HEAD, T, T]
    assert data["tensors"]["h.0.attn.k"]["grad"]["size"] == [N_HEAD, T, HEAD_SIZE]
    assert data["tensors"]["h.0.attn.scores"]["columns"] == "key"


def test_wide_tensors_are_pooled_by_largest_magnitude():
    rng = np.random.default_rng(1)
    panels = rng.normal(size=(2, 5, 11))
    shown = decode(page_module._picture(panels, 4))
    assert shown.shape == (2, 5, 3)
    for i, j in np.ndindex(2, 5):
        for column, part in enumerate((panels[i, j, :4], panels[i, j, 4:8], panels[i, j, 8:])):
            np.testing.assert_allclose(shown[i, j, column], part[np.abs(part).argmax()], rtol=0.05, atol=1e-3)


def test_a_large_budget_is_kept(model, monkeypatch):
    monkeypatch.setattr(page_module, "BYTES", 12_000)
    data = data_of(build_page(model, Letters(), TEXT))
    total = sum(len(t[s]["codes"]) for t in data["tensors"].values() for s in ("value", "grad"))
    assert total < (12_000 + 2 * 2 * len(data["tensors"])) * 4 / 3  # base64 pads to three bytes
    assert max(t["pooled"] for t in data["tensors"].values()) > 1
    assert data["tensors"]["h.0.attn.weights"]["pooled"] == 1


def test_tokens_carry_loss_target_and_guesses(data, traced):
    losses = traced["lm_head.losses"].value[0]
    assert [t["text"] for t in data["tokens"]] == list("abcdef")
    assert [t["target"] for t in data["tokens"]] == list("bcdefg")
    assert np.allclose([t["loss"] for t in data["tokens"]], losses)
    assert math.isclose(np.mean(losses), data["loss"])
    for t, token in enumerate(data["tokens"]):
        probabilities = [p for _, p in token["top"]]
        assert probabilities == sorted(probabilities, reverse=True) and len(probabilities) == 5
        assert math.isclose(probabilities[0], np.exp(traced["lm_head.log_probabilities"].value[0, t].max()))


def test_gradient_flow_and_parameters(data, traced, model):
    flow = {f["name"]: f for f in data["flow"]}
    assert [f["name"] for f in data["flow"] if f["stream"]] == [
        "embedding",
        "h.0.residual_1",
        "h.0.residual_2",
        "h.1.residual_1",
        "h.1.residual_2",
        "ln_f",
    ]
    assert math.isclose(flow["h.1.mlp"]["grad"], np.linalg.norm(traced["h.1.mlp"].grad))
    assert [name for name, _, _ in data["parameters"]] == list(model.params)


def test_the_page_is_one_file_and_a_text_cannot_break_out_of_it(model):
    page = build_page(model, Letters(), "ab<i>!&/*DATA*/", "<b>name</b>")
    assert page.count("</script>") == 2 and "<b>name" not in page and "/*STYLE*/" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page) and "http" not in page.replace(
        "http://www.w3.org/2000/svg", ""
    )
    assert data_of(page)["model"] == "<b>name</b>"
    assert data_of(page)["tokens"][2]["text"] == "</script>"


def test_length_is_cut_to_what_the_model_and_the_caller_allow(model):
    assert len(data_of(build_page(model, Letters(), "a" * 100))["tokens"]) == 32
    data = data_of(build_page(model, Letters(), "a" * 100, max_tokens=99))
    assert len(data["tokens"]) == 40 and data["cut"]
    assert not data_of(build_page(model, Letters(), "ab"))["cut"]


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_with_nothing_to_predict_is_refused(model, text):
    with pytest.raises(GenerationError, match="two tokens"):
        build_page(model, Letters(), text)


def test_the_logit_lens_ends_at_the_models_own_prediction(data, model, traced):
    assert [row["after"] for row in data["lens"]] == ["embedding", "h.0.residual_2", "h.1.residual_2"]
    last = data["lens"][-1]["tokens"]
    assert np.allclose([row["loss"] for row in last], [token["loss"] for token in data["tokens"]])
    assert [row["top"][0][0] for row in last] == [token["top"][0][0] for token in data["tokens"]]
    first, _ = layers.layernorm_forward(
        traced["embedding"].value, model.params["ln_f.weight"], model.params["ln_f.bias"]
    )
    logits = (first @ model.params["wte.weight"].T)[0]
    assert data["lens"][0]["tokens"][2]["top"][0][0] == Letters().decode([int(logits[2].argmax())])
