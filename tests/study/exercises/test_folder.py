"""Files of exercises: never overwritten once worked on, states told, and a training run on what is right."""

import pytest

from gpt_numpy.errors import ConfigError
from gpt_numpy.study.exercises import EXERCISES, folder, stubs


def test_a_stub_is_replaced_and_work_is_not(tmp_path):
    exercise = EXERCISES["gelu"]
    path = folder.write(exercise, tmp_path)
    assert path.read_text() == stubs.stub(exercise)
    folder.write(exercise, tmp_path, "blank")
    assert path.read_text() == stubs.stub(exercise, "blank")
    path.write_text("mine = 1\n")
    with pytest.raises(ConfigError, match="worked on"):
        folder.write(exercise, tmp_path)
    assert path.read_text() == "mine = 1\n"
    folder.write(exercise, tmp_path, again=True)
    assert path.read_text() == stubs.stub(exercise)


def test_states_and_training_on_what_is_right(tmp_path):
    with pytest.raises(ConfigError, match="nothing to train with"):
        folder.written(tmp_path)
    for name in ("layernorm", "gelu", "block", "adamw", "sampling"):
        (tmp_path / EXERCISES[name].file_name).write_text(stubs.solution(EXERCISES[name]))
    folder.write(EXERCISES["mlp"], tmp_path)
    (tmp_path / "linear.py").write_text(stubs.solution(EXERCISES["linear"]).replace("weight.T", "-weight.T"))
    found = folder.states(tmp_path)
    assert list(found) == list(EXERCISES)
    assert (found["layernorm"], found["mlp"], found["linear"], found["model"]) == (
        *("right", "untouched", "wrong", "untouched"),
    )
    with pytest.raises(ConfigError, match="linear: a wrong exercise cannot train"):
        folder.written(tmp_path)
    (tmp_path / "linear.py").unlink()
    written = folder.written(tmp_path)
    assert set(written.names) == {"layernorm", "gelu", "block", "adamw"}
    assert written.ops.gelu_backward.__closure__ and written.ops.adamw_update.__module__ == "exercise_adamw"
    losses = folder.train(written, 12, report=lambda line: None)
    assert losses[-1] < 0.7 * losses[0]
