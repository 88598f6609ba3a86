import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch, ConfigError, GPTNumpyError
from gpt_numpy.interop import llmc
from gpt_numpy.interop.safetensors import float32_to_bfloat16

CONFIG = GPTConfig(vocab_size=11, block_size=5, n_layer=2, n_head=3, n_embd=12)


@pytest.fixture
def model():
    model = GPT(CONFIG, seed=3, ops=layers)
    model.params.flat[:] = np.random.default_rng(0).standard_normal(len(model.params.flat))
    return model


def test_float32_comes_back_in_the_same_bits(model, tmp_path):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params)
    config, params = llmc.load(tmp_path / "model.bin")
    assert config == CONFIG
    assert np.array_equal(params.flat, model.params.flat)
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_bfloat16_comes_back_rounded(model, tmp_path):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params, "bfloat16")
    _, params = llmc.load(tmp_path / "model.bin", np.float64)
    expected = (float32_to_bfloat16(model.params.flat).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(params.flat, expected)


def test_the_layout_is_the_published_one(model, tmp_path):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params)
    raw = (tmp_path / "model.bin").read_bytes()
    assert np.frombuffer(raw, "<i4", 9).tolist() == [20240326, 3, 5, 11, 2, 3, 12, 128, 0]
    numbers = np.frombuffer(raw, "<f4", offset=1024)
    p, C = model.params, 12
    assert np.array_equal(numbers[: 11 * C], p["wte.weight"].ravel()) and not numbers[11 * C : 128 * C].any()
    at = 128 * C + 5 * C
    assert np.array_equal(numbers[at : at + C], p["h.0.ln_1.weight"])
    assert np.array_equal(numbers[at + C : at + 2 * C], p["h.1.ln_1.weight"])
    at += 4 * C  # both layers' ln_1 weights and biases
    assert np.array_equal(numbers[at : at + 3 * C * C], p["h.0.attn.c_attn.weight"].T.ravel())
    assert np.array_equal(numbers[-C:], p["ln_f.bias"])


def test_version_1_has_no_padding(model, tmp_path):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params)
    raw = (tmp_path / "model.bin").read_bytes()
    header = np.frombuffer(raw, "<i4", 256).copy()
    header[1], header[7] = 1, 0
    start, padding = 1024 + 11 * 12 * 4, (128 - 11) * 12 * 4
    (tmp_path / "old.bin").write_bytes(header.tobytes() + raw[1024:start] + raw[start + padding :])
    assert np.array_equal(llmc.load(tmp_path / "old.bin")[1].flat, model.params.flat)


@pytest.mark.parametrize("version", [2, 4])
def test_bfloat16_with_layernorms_in_float32(model, tmp_path, version):
    rows, p = (11 if version == 2 else 128), model.params
    header = np.zeros(256, "<i4")
    header[:8] = 20240326, version, 5, 11, 2, 3, 12, rows
    names = [
        "ln_1.weight",
        "ln_1.bias",
        "attn.c_attn.weight",
        "attn.c_attn.bias",
        "attn.c_proj.weight",
        "attn.c_proj.bias",
        "ln_2.weight",
        "ln_2.bias",
        "mlp.c_fc.weight",
        "mlp.c_fc.bias",
        "mlp.c_proj.weight",
        "mlp.c_proj.bias",
    ]
    parts = [("wte", np.pad(p["wte.weight"], ((0, rows - 11), (0, 0)))), ("wpe", p["wpe.weight"])]
    parts += [(name, p[f"h.{i}.{name}"].T) for name in names for i in range(2)]
    parts += [("ln_f", p["ln_f.weight"]), ("ln_f", p["ln_f.bias"])]
    data = b"".join(
        (np.ascontiguousarray(a) if "ln_" in name else float32_to_bfloat16(np.ascontiguousarray(a))).tobytes()
        for name, a in parts
    )
    (tmp_path / "model.bin").write_bytes(header.tobytes() + data)
    config, params = llmc.load(tmp_path / "model.bin")
    assert config == CONFIG
    for name, values in p.items():
        if "ln_" in name:
            assert np.array_equal(params[name], values), name
        else:
            rounded = (float32_to_bfloat16(values).astype(np.uint32) << 16).view(np.float32)
            assert np.array_equal(params[name], rounded), name


@pytest.mark.parametrize(
    "place, value, error, message",
    [
        (0, 7, CheckpointCorrupt, "not a checkpoint of llm.c"),
        (1, 7, CheckpointMismatch, "unknown version: found 7; expected 1 to 5"),
        (1, 0, CheckpointMismatch, "unknown version: found 0"),
        (1, 4, CheckpointCorrupt, "size is not what"),
        (1, 5, CheckpointCorrupt, "size is not what"),
        (2, 0, CheckpointCorrupt, "block_size"),
        (3, -1, CheckpointCorrupt, "vocab_size"),
        (3, 129, CheckpointCorrupt, "less than the vocabulary"),
        (4, 3, CheckpointCorrupt, "size is not what"),
        (4, 2**31 - 1, CheckpointCorrupt, "size is not what"),
        (5, 5, CheckpointCorrupt, "n_head"),
        (6, 2**30, CheckpointCorrupt, "n_head|size is not what"),
        (7, 256, CheckpointCorrupt, "size is not what"),
    ],
)
def test_headers_that_lie(model, tmp_path, place, value, error, message):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params)
    raw = bytearray((tmp_path / "model.bin").read_bytes())
    raw[4 * place : 4 * place + 4] = value.to_bytes(4, "little", signed=True)
    (tmp_path / "model.bin").write_bytes(raw)
    with pytest.raises(error, match=message):
        llmc.load(tmp_path / "model.bin")


def test_truncated_and_poisoned_files(model, tmp_path):
    llmc.save(tmp_path / "model.bin", CONFIG, model.params)
    raw = (tmp_path / "model.bin").read_bytes()
    for length in (0, 3, 1023, 1024, 1028, len(raw) - 1):
        (tmp_path / "cut.bin").write_bytes(raw[:length])
        with pytest.raises(GPTNumpyError):
            llmc.load(tmp_path / "cut.bin")
    (tmp_path / "nan.bin").write_bytes(raw[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(CheckpointMismatch, match=r"ln_f\.bias"):
        llmc.load(tmp_path / "nan.bin")
    with pytest.raises(ConfigError, match="float16"):
        llmc.save(tmp_path / "x.bin", CONFIG, model.params, "float16")
