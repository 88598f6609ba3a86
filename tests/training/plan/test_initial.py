"""The values that a new model starts from."""

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.training import Settings
from gpt_numpy.training.plan.initial import initial_model
from gpt_numpy.training.plan.resolving import plan_run
from gpt_numpy.training.ranks.distributed import Alone


def settings(**changes):
    sizes = dict(n_layer=4, n_head=2, n_embd=64, block_size=32)
    return Settings(**sizes, ops="layers", seed=5, **changes)


def test_they_are_gpt2s_unless_told():
    model = initial_model(settings(), 65)
    assert (model.params.flat == GPT(model.config, 5, ops=layers).params.flat).all()


def test_the_standard_deviation_is_a_setting():
    usual, wider = (initial_model(settings(init_std=std), 65).params for std in (0.02, 0.05))
    for name, view in wider.items():
        if view.ndim == 2:
            expected = 0.05 / np.sqrt(8) if name.endswith("c_proj.weight") else 0.05
            assert view.std() == pytest.approx(expected, rel=0.05), name
            np.testing.assert_allclose(view, usual[name] * 2.5, rtol=1e-5)
        else:
            assert (view == usual[name]).all()


@pytest.mark.parametrize("std", [0.0, -0.02, float("nan")])
def test_a_model_without_spread_is_refused(std):
    with pytest.raises(ConfigError, match="init_std"):
        settings(init_std=std)


def test_too_large_for_float32(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 50)
    with pytest.raises(ConfigError, match="init_std"):
        plan_run(settings(data=(str(tmp_path / "text.txt"),), tokenizer="char", init_std=1e39), Alone())


def test_a_checkpoint_has_its_own(model_folder):
    with pytest.raises(ConfigError, match="init_std"):
        plan_run(Settings(init_from=str(model_folder), init_std=0.05), Alone())
