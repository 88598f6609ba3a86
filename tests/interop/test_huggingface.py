import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch
from gpt_numpy.files import durable
from gpt_numpy.interop import huggingface
from gpt_numpy.interop.safetensors import float32_to_bfloat16
from gpt_numpy.parameters import Parameters, table

FIXTURE = Path(__file__).parents[1] / "fixtures" / "huggingface_gpt2"
CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12, dropout=0.25)


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / max(np.linalg.norm(expected), 1e-30)


@pytest.fixture
def folder(tmp_path):
    """A folder of our own making that tests may damage."""
    GPT(CONFIG, seed=3, ops=layers).save(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | changes))


def edit_tensors(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


# ---- against transformers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])
def test_logits_loss_and_every_gradient_are_those_of_transformers(ops):
    expected = load_file(FIXTURE / "expected.safetensors")
    model = GPT.load(FIXTURE, dtype=np.float64, ops=ops)
    logits = model.forward(expected["tokens"])
    assert np.abs(logits - expected["logits"]).max() <= 1e-10
    assert abs(model.loss(expected["tokens"], expected["targets"]) - expected["loss"][0]) <= 1e-10
    model.backward()
    compared = 0
    for name, gradient in model.grads.items():
        assert relative_error(gradient, expected["d transformer." + name]) <= 1e-9, name
        compared += 1
    assert compared == len(table(model.config)) == sum(name.startswith("d ") for name in expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transformers_opens_what_we_save(tmp_path, dtype):
    pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    import torch

    model = GPT(CONFIG, seed=5, dtype=dtype, ops=layers)
    model.save(tmp_path)
    peer, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    tokens = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 10, 3]])
    with torch.no_grad():
        peer_logits = peer.eval().double()(torch.from_numpy(tokens)).logits.numpy()
    ours = GPT.load(tmp_path, dtype=np.float64, ops=layers).forward(tokens)
    assert np.abs(ours - peer_logits).max() <= 1e-6


# ---- our own round trip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_save_and_load_give_the_same_bits(tmp_path, dtype):
    model = GPT(CONFIG, seed=7, dtype=dtype, ops=layers)
    model.save(tmp_path / "new" / "folder")
    again = GPT.load(tmp_path / "new" / "folder", dtype=dtype, ops=layers)
    assert again.config == CONFIG
    assert np.array_equal(again.params.flat, model.params.flat)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]


def test_saved_names_and_fields_are_the_published_ones(folder):
    # openai-community/gpt2 on the hub: no prefix, no head of its own, weights (in, out).
    tensors = load_file(folder / "model.safetensors")
    assert set(tensors) == set(table(CONFIG))
    assert tensors["h.1.attn.c_attn.weight"].shape == (12, 36)
    fields = json.loads((folder / "config.json").read_text())
    theirs = json.loads((FIXTURE / "config.json").read_text())
    assert {k: fields[k] for k in ("n_positions", "n_embd", "n_layer", "n_head", "vocab_size", "resid_pdrop")} == {
        "n_positions": 7,
        "n_embd": 12,
        "n_layer": 2,
        "n_head": 3,
        "vocab_size": 11,
        "resid_pdrop": 0.25,
    }
    same = (
        "model_type",
        "architectures",
        "activation_function",
        "n_inner",
        "layer_norm_epsilon",
        "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx",
        "tie_word_embeddings",
    )
    assert {k: fields[k] for k in same} == {k: theirs[k] for k in same}


def test_a_failed_save_leaves_the_old_model(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(durable, "sync_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        GPT(CONFIG, seed=99, ops=layers).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ---- what others write -------------------------------------------------------------------------------------


def test_prefix_mask_buffers_and_equal_head_are_understood(folder):
    original = GPT.load(folder, ops=layers)

    def as_published(tensors):
        for name in list(tensors):
            tensors["transformer." + name] = tensors.pop(name)
        for i in range(2):
            tensors[f"transformer.h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), np.uint8))
            tensors[f"transformer.h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()

    edit_tensors(folder, as_published)
    assert np.array_equal(GPT.load(folder, ops=layers).params.flat, original.params.flat)


def test_half_precision_is_widened_exactly(folder):
    original = GPT.load(folder, ops=layers).params
    edit_tensors(folder, lambda t: t.update({k: v.astype(np.float16) for k, v in t.items()}))
    assert np.array_equal(GPT.load(folder, ops=layers).params.flat, original.flat.astype(np.float16).astype(np.float32))


def test_bfloat16_is_widened_exactly(folder):
    params = GPT.load(folder, ops=layers).params
    rounded = float32_to_bfloat16(params.flat)
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    stored = Parameters(CONFIG, flat=rounded)
    data = b""
    for name, entry in header.items():
        if name != "__metadata__":
            start = len(data)
            data += stored[name].tobytes()
            entry.update(dtype="BF16", data_offsets=[start, len(data)])
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    for dtype in (np.float32, np.float64):
        loaded = GPT.load(folder, dtype=dtype, ops=layers).params.flat
        assert np.array_equal(loaded, (rounded.astype(np.uint32) << 16).view(np.float32))
    assert np.abs(loaded - params.flat).max() <= np.abs(params.flat).max() * 2**-8


def test_shards_are_read_through_their_index(folder):
    original = GPT.load(folder, ops=layers)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for place, name in enumerate(tensors):
        weight_map[name] = f"model-0000{place % 3 + 1}-of-00003.safetensors"
    for shard in set(weight_map.values()):
        save_file({k: v for k, v in tensors.items() if weight_map[k] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert np.array_equal(GPT.load(folder, ops=layers).params.flat, original.params.flat)

    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match="model-00002-of-00003.safetensors.*missing"):
        GPT.load(folder, ops=layers)
    for elsewhere in ("../model.safetensors", "/etc/passwd", ".."):
        index.write_text(json.dumps({"weight_map": {"wte.weight": elsewhere}}))
        with pytest.raises(CheckpointCorrupt, match="beside its index"):
            GPT.load(folder, ops=layers)


# ---- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda t: t.pop("h.1.mlp.c_fc.bias"), r"missing tensors: h\.1\.mlp\.c_fc\.bias$"),
        (lambda t: t.update({"h.2.ln_1.bias": np.zeros(12, "f4")}), r"unexpected tensors: h\.2\.ln_1\.bias$"),
        (lambda t: t.update({"wpe.weight": np.zeros((12, 7), "f4")}), r"wpe\.weight is \[12, 7\] instead of \[7, 12\]"),
        (lambda t: t.update({"ln_f.bias": np.zeros(12, "i4")}), r"ln_f\.bias: .*floating-point.*'I32'"),
        (lambda t: t["h.0.attn.c_proj.weight"].__setitem__((3, 5), np.nan), r"c_proj\.weight\[3, 5\].*finite.*nan"),
        (lambda t: t["ln_f.weight"].__setitem__(4, -np.inf), r"ln_f\.weight\[4\].*finite.*-inf"),
        (lambda t: t.update({"lm_head.weight": t["wte.weight"] * 2}), r"lm_head\.weight: the output head differs"),
        (lambda t: t.update({"transformer.ln_f.bias": np.zeros(12, "f4")}), r"transformer\.ln_f\.bias.*twice"),
    ],
)
def test_sound_file_of_another_model(folder, edit, message):
    edit_tensors(folder, edit)
    with pytest.raises(CheckpointMismatch, match=message):
        GPT.load(folder, ops=layers)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_layer": 3}, "missing tensors: h.2.ln_1.weight"),
        ({"n_layer": 10**12}, "do not fit"),
        ({"vocab_size": 12}, r"wte\.weight is \[11, 12\] instead of \[12, 12\]"),
        ({"vocab_size": 10**15}, r"wte\.weight is"),
        ({"n_head": 5}, "n_head"),
        ({"n_positions": None}, "n_positions"),
        ({"n_embd": "12"}, "n_embd"),
        ({"n_inner": 40}, "n_inner"),
        ({"activation_function": "relu"}, "activation_function.*relu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse"),
        ({"model_type": "bert"}, "model_type.*bert"),
        ({"model_type": "llama"}, "max_position_embeddings: is missing"),
        ({"attn_pdrop": 1.5}, "attn_pdrop"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"activation_function": "xielu"}, "activation_function.*xielu.*gelu_new"),
    ],
)
def test_config_of_another_model(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(CheckpointMismatch, match=message):
        GPT.load(folder, ops=layers)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000, '{"n_layer": 1' + "0" * 5000 + "}"])
def test_damaged_config(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointCorrupt, match="config.json"):
        GPT.load(folder, ops=layers)


def test_missing_files_are_ordinary_errors(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        GPT.load(folder, ops=layers)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        GPT.load(folder, ops=layers)


def test_views_are_the_parameters(folder):
    config, params = huggingface.load(folder)
    found_config, views = huggingface.load_views(folder)
    assert found_config == config and list(views) == list(params)
    assert all(np.array_equal(views[name], params[name]) for name in params)
