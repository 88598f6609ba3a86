"""A trainer's state that was changed and signed anew is refused by name, whatever was changed."""

import hashlib
import json
import shutil

import pytest

from gpt_numpy.errors import CheckpointMismatch, GPTNumpyError
from gpt_numpy.training import resume, start

WRONG = [None, True, -1, 1.5, "text", [], {}, [1], {"a": 1}, 10**400, float("nan"), "../x"]


@pytest.fixture
def run(tiny, tmp_path):
    start(tiny(max_steps=4), tmp_path / "run")
    return tmp_path / "run"


def sign_anew(run, change):
    """The newest checkpoint of ``run`` with ``change(state)`` applied to its state, under a manifest that agrees."""
    folder = run / "checkpoints" / "step-4"
    state = json.loads((folder / "trainer_state.json").read_text())
    change(state)
    content = json.dumps(state).encode()
    (folder / "trainer_state.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["trainer_state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def test_what_was_signed_anew_without_a_change_goes_on(run):
    sign_anew(run, lambda state: None)
    assert resume(run, {"max_steps": 6}).step == 6


@pytest.mark.parametrize(
    "name", ["best_loss", "best_step", "evaluations_since_best", "seconds", "settings", "data_sha256"]
)
def test_a_missing_field_is_named(run, name):
    sign_anew(run, lambda state: state.pop(name))
    with pytest.raises(CheckpointMismatch, match=name):
        resume(run, {"max_steps": 6})


def changes():
    """Every field of the state and every setting, each with values of other kinds."""
    for name in ("best_loss", "best_step", "evaluations_since_best", "seconds", "settings", "data_sha256", "sources"):
        yield from ((name, None, value) for value in WRONG)
    for setting in ("seed", "data", "normalize", "decay_groups", "preset", "learning_rate", "epsilon", "batch_size"):
        yield from (("settings", setting, value) for value in WRONG)


def test_no_changed_value_ends_in_an_error_of_python_s_own(run, tmp_path):
    for name, setting, value in changes():
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)

        def change(state, name=name, setting=setting, value=value):
            if setting is None:
                state[name] = value
            else:
                state[name][setting] = value

        sign_anew(copy, change)
        try:
            resume(copy, {"max_steps": 4})
        except GPTNumpyError as error:
            assert str(error)
        except Exception as error:
            raise AssertionError(f"{name} {setting} {str(value)[:40]}: {type(error).__name__} {error}") from error
        shutil.rmtree(copy)
