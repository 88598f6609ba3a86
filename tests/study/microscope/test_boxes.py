import pathlib

import pytest

from gpt_numpy import layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study.microscope import boxes


def test_every_kind_without_dropout_has_its_box():
    assert boxes.box_name("h.ln_1.xhat") == boxes.box_name("ln_f.xhat") == "layernorm.xhat"
    assert boxes.box_name("h.ln_2") == "layernorm" and boxes.box_name("h.residual_2") == "residual"
    assert boxes.box_name("h.attn.c_attn") == "attn.c_attn" and boxes.box_name("embedding") == "embedding"


@pytest.mark.parametrize("name", boxes.BOXES)
def test_source_lines_and_derivations_are_there(name):
    described = boxes.described(name)
    for side in ("forward", "backward"):
        place = described[side]
        path = pathlib.Path(layers.__file__).parents[1] / place["file"]
        assert path.read_text(encoding="utf-8").splitlines()[place["line"] - 1].strip() == place["code"]
        assert getattr(boxes.BOXES[name], side)[1] in place["code"]
    assert len(described["derivation"]) > 80 and described["formula"] and described["gradient"]


def test_a_source_line_that_is_gone_is_an_error(monkeypatch):
    monkeypatch.setitem(boxes.BOXES, "mlp", boxes.BOXES["mlp"]._replace(forward=("mlp", "no such line")))
    with pytest.raises(ConfigError, match="no such source line"):
        boxes.described("mlp")
