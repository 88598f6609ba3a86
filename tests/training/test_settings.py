import dataclasses
import math

import pytest

from gpt_numpy.config import GPTConfig, preset_names
from gpt_numpy.errors import ConfigError
from gpt_numpy.training import Settings
from gpt_numpy.training.settings import BIASES, MODEL_PARTS, PRESET_TRAINING, RESUMABLE, kind_of, sections


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        Settings.from_mapping({"learning_rat": 1.0})


BAD = [
    ("max_steps", 0),
    ("max_steps", -3),
    ("max_steps", True),
    ("max_steps", 2.0),
    ("max_steps", "12"),
    ("batch_size", 0),
    ("n_layer", 0),
    ("dropout", 1.0),
    ("dropout", -0.1),
    ("dropout", math.nan),
    ("dropout", True),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", -1e-3),
    ("learning_rate", "1e-3"),
    ("schedule", "cosin"),
    ("ops", "torch"),
    ("preset", "gpt3"),
    ("data", "file.txt"),
    ("data", ()),
    ("data", (1,)),
    ("recompute", 1),
    ("recompute", "true"),
    ("tokenizer", 3),
    ("validation_fraction", 1.0),
    ("beta2", 1.0),
]


@pytest.mark.parametrize("name,value", BAD)
def test_bad_value_names_the_setting(name, value):
    with pytest.raises(ConfigError, match=name):
        Settings(**{name: value})


def test_contradictions():
    with pytest.raises(ConfigError, match="n_embd"):
        Settings(init_from="folder", n_embd=8)
    with pytest.raises(ConfigError, match="positions"):
        Settings(positions="crop")


def test_every_setting_is_described_and_has_bounds_or_choices():
    for fields in sections().values():
        for field in fields:
            assert len(field.metadata["help"]) > 10
            if kind_of(field) in (int, float):
                assert "minimum" in field.metadata, field.name
    assert set(RESUMABLE) <= {field.name for field in dataclasses.fields(Settings)}


def test_dict_and_back():
    settings = Settings(data=("a", "b"), decay_groups=("x=1",), n_layer=3, micro_batch_size=None)
    assert Settings.from_mapping(settings.to_dict()) == settings


CHOSEN = {
    "norm": "rmsnorm",
    "norm_epsilon": 1e-6,
    "positions": "rotary",
    "rope_theta": 5e5,
    "mlp": "swiglu",
    "n_inner": 20,
    "n_kv_head": 2,
    "head_dim": 6,
    "qk_norm": True,
    "sliding_window": 7,
    "window_from": 1,
    "tied": False,
}


def test_each_part_of_a_new_model_can_be_chosen():
    assert {*CHOSEN, "bias"} == set(MODEL_PARTS)
    for bias in BIASES:
        config = Settings(preset="tiny", n_head=4, bias=bias, **CHOSEN).model_config(99)
        assert {name: getattr(config, name) for name in CHOSEN} == CHOSEN
        assert (config.n_layer, config.n_head, config.n_embd, config.bias) == (2, 4, 32, BIASES[bias])
    assert Settings(preset="tiny").model_config(99).differing() == {}


def test_a_preset_s_parts_can_be_replaced():
    config = Settings(
        preset="llama-tiny", norm="layernorm", positions="learned", bias="all", n_kv_head=4
    ).model_config()
    assert config.differing() == {"mlp": "swiglu", "n_inner": 88}
    assert config.vocab_size == GPTConfig.preset("llama-tiny").vocab_size


@pytest.mark.parametrize("name", CHOSEN)
def test_a_part_beside_a_checkpoint_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: given by the checkpoint"):
        Settings(init_from="folder", **{name: CHOSEN[name]})


@pytest.mark.parametrize(
    "name,value,message",
    [
        ("norm", "rms", "did you mean 'rmsnorm'"),
        ("mlp", "swigly", "did you mean 'swiglu'"),
        ("n_kv_head", 0, "at least 1"),
        ("rope_theta", 0.5, "out of range"),
        ("qk_norm", "yes", "not a truth value"),
        ("bias", True, "not text"),
        ("sliding_window", 1.5, "not a whole number"),
    ],
)
def test_a_wrong_part_is_refused_by_name(name, value, message):
    with pytest.raises(ConfigError, match=f"{name}.*{message}|{message}.*{name}"):
        Settings(**{name: value})


def test_every_preset_has_a_learning_rate_of_its_own():
    assert set(PRESET_TRAINING) == set(preset_names())


def test_model_sizes_come_from_the_preset_unless_given():
    config = Settings(preset="tiny", n_head=4, dropout=0.25).model_config(99)
    assert (config.n_layer, config.n_head, config.n_embd, config.vocab_size) == (2, 4, 32, 99)
    assert config.dropout == 0.25
    with pytest.raises(ConfigError, match="divide"):
        Settings(preset="tiny", n_head=5).model_config(99)
