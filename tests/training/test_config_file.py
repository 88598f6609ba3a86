import pytest

from gpt_numpy.errors import ConfigError
from gpt_numpy.training import Settings, config_file


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(data=('with "quotes"', "back\\slash", "new\nline", "del\x7f", "ü🐈"), prompt="# no comment"),
        Settings(n_layer=3, learning_rate=1e-10, epsilon=0.0, recompute=True, decay_groups=("a=1", "b=2")),
    ],
)
def test_file_round_trip(tmp_path, settings):
    path = write(tmp_path, config_file.format(settings))
    assert Settings.from_mapping(config_file.read(path)) == settings


def test_keys_need_no_section(tmp_path):
    path = write(tmp_path, 'max_steps = 7\ndata = ["x"]\n[run]\nseed = 4\n')
    assert config_file.read(path) == {"max_steps": 7, "data": ("x",), "seed": 4}


@pytest.mark.parametrize(
    "text,message",
    [
        ("[optimizer]\nlearning_rat = 1", "did you mean 'learning_rate'"),
        ("[optimiser]\nlearning_rate = 1", "did you mean 'optimizer'"),
        ("[model]\nlearning_rate = 1", r"belongs in \[optimizer\]"),
        ("seed = 1\n[run]\nseed = 2", "set twice"),
        ("seed = = 1", "not TOML"),
        (b"seed = 1 # \xff", "not TOML"),
        ("seed = 1\nseed = 2", "not TOML"),
    ],
)
def test_bad_file_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        config_file.read(write(tmp_path, text))
    assert "run.toml" in str(error.value)
