"""Folders of models that somebody else wrote, damaged or changed: opened as they are meant, or one line that says why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpt_numpy
from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.commands import main
from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch, DataError, GPTNumpyError, ModelNotFound
from gpt_numpy.inference.loading import load_decoder, stop_tokens_of
from gpt_numpy.inference.packed import PackedWeights
from gpt_numpy.inference.packed_file import NAME as PACKED
from gpt_numpy.inference.packed_file import save_packed
from gpt_numpy.interop import huggingface
from gpt_numpy.interop.safetensors import SafetensorsFile
from gpt_numpy.tokenizer import CharTokenizer

FIXTURE = Path(__file__).parents[1] / "fixtures" / "huggingface_gpt2"
CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=4, n_embd=12)
SCREEN = 24 * 80


@pytest.fixture
def folder(tmp_path):
    GPT(CONFIG, seed=3, ops=layers).save(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    fields = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))


def rename_tensors(folder, new_name, metadata=None):
    tensors = load_file(folder / "model.safetensors")
    save_file({new_name(name): value for name, value in tensors.items()}, folder / "model.safetensors", metadata)


def message_of(call, kind=GPTNumpyError):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert len(message) <= SCREEN and "\n" not in message
    return message


def load(folder):
    return GPT.load(folder, ops=layers)


# ---- other names for the same thing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.transformer.", "model.transformer."]
)
def test_prefixes_of_compiled_and_wrapped_models(folder, prefix):
    expected = load(folder).params.flat.copy()
    rename_tensors(folder, lambda name: prefix + name)
    np.testing.assert_array_equal(load(folder).params.flat, expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_only_the_head_is_kept_of_two_tied_tensors(tmp_path, prefix):
    shutil.copytree(FIXTURE, tmp_path / "copy")
    expected = load(FIXTURE).params.flat
    rename_tensors(tmp_path / "copy", lambda name: prefix + name.replace("transformer.wte.weight", "lm_head.weight"))
    assert not any("wte" in name for name in load_file(tmp_path / "copy" / "model.safetensors"))
    np.testing.assert_array_equal(load(tmp_path / "copy").params.flat, expected)
    decoder_config, views = huggingface.load_views(tmp_path / "copy")
    np.testing.assert_array_equal(views["wte.weight"], load(FIXTURE).params["wte.weight"])
    edit_config(tmp_path / "copy", tie_word_embeddings=False)
    assert "wte.weight" in message_of(lambda: load(tmp_path / "copy"), CheckpointMismatch)


@pytest.mark.parametrize("name", ["gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"])
def test_one_activation_under_several_names(folder, name):
    expected = load(folder).params.flat.copy()
    edit_config(folder, activation_function=name)
    np.testing.assert_array_equal(load(folder).params.flat, expected)


def test_sizes_under_the_names_that_transformers_takes_for_the_same(folder):
    fields = json.loads((folder / "config.json").read_text())
    given = {name: fields[name] for name in ("n_positions", "n_layer", "n_head", "n_embd")}
    names = ("max_position_embeddings", "num_hidden_layers", "num_attention_heads", "hidden_size")
    edit_config(folder, **dict.fromkeys([*given, "n_ctx"], ...), **dict(zip(names, given.values())))
    assert load(folder).config == CONFIG
    edit_config(folder, n_head=2)
    assert "num_attention_heads" in message_of(lambda: load(folder), CheckpointMismatch)


def test_three_dropouts(folder):
    expected = load(folder).params.flat.copy()
    edit_config(folder, resid_pdrop=0.1, embd_pdrop=0.2, attn_pdrop=0)
    model = load(folder)
    np.testing.assert_array_equal(model.params.flat, expected)
    assert model.config.dropout == 0.1


def test_links_are_followed(folder, tmp_path):
    expected = load(folder).params.flat.copy()
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    np.testing.assert_array_equal(load(folder).params.flat, expected)
    (blobs / "model.safetensors").unlink()
    message_of(lambda: load(folder), ModelNotFound)


# ---- what is not there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", ""])
def test_missing_files(folder, missing):
    shutil.rmtree(folder) if not missing else (folder / missing).unlink()
    for call in (lambda: load(folder), lambda: huggingface.load_views(folder)):
        message = message_of(call)
        assert str(folder) in message and (missing in message or not missing)


@pytest.mark.parametrize(
    "name, word",
    [
        ("pytorch_model.bin", "save_pretrained"),
        ("pytorch_model.bin.index.json", "save_pretrained"),
        ("tf_model.h5", "from_tf"),
        ("flax_model.msgpack", "from_flax"),
        ("adapter_model.safetensors", "merge"),
        ("model.ckpt.index", "transformers-cli"),
    ],
)
def test_weights_in_another_form_are_named_with_what_converts_them(folder, capsys, name, word):
    (folder / "model.safetensors").rename(folder / name)
    message = message_of(lambda: load(folder), CheckpointMismatch)
    assert name in message and word in message and str(folder) in message
    for command in ("score", "generate"):
        given = ["text"] if command == "score" else ["--prompt", "text"]
        assert main([command, *given, "--model", str(folder)]) == 3
        assert capsys.readouterr().err.count("\n") == 1


# ---- config.json ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["n_head", "n_embd", "n_layer", "vocab_size"])
def test_a_size_that_is_missing(folder, field):
    edit_config(folder, **{field: ...})
    assert f"{field} is missing" in message_of(lambda: load(folder), CheckpointMismatch)


@pytest.mark.parametrize(
    "old, new", [('"n_head": 4', '"n_head": 2, "n_head": 4'), ("1e-05", "NaN"), ("1e-05", "Infinity")]
)
def test_config_is_read_strictly(folder, old, new):
    text = (folder / "config.json").read_text()
    assert text.count(old) == 1
    (folder / "config.json").write_text(text.replace(old, new))
    message_of(lambda: load(folder), CheckpointCorrupt)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 10**4000, 1e308, [1] * 100_000, "x" * 1_000_000, {"a": 1}, True, None]
)
@pytest.mark.parametrize(
    "fields",
    [("attn_pdrop", "embd_pdrop", "resid_pdrop"), ("n_layer",), ("n_head",), ("n_embd",), ("vocab_size",), ("n_inner",)]
    + [("activation_function",), ("layer_norm_epsilon",), ("eos_token_id",)],
    ids=lambda fields: fields[0],
)
def test_values_that_no_model_has(folder, fields, value):
    edit_config(folder, **dict.fromkeys(fields, value))
    if fields == ("eos_token_id",):
        if value is not None and value != [1] * 100_000:
            message_of(lambda: huggingface.end_of_text_ids(folder))
    elif not (fields == ("n_inner",) and value is None):
        message_of(lambda: load(folder))


def test_an_unchanged_weights_file_with_another_config_is_noticed(folder, tmp_path):
    edit_config(folder, n_head=2)
    assert "n_head" in message_of(lambda: load(folder), CheckpointMismatch)
    message_of(lambda: huggingface.load_views(folder), CheckpointMismatch)
    edit_config(folder, n_head=4)
    assert load(folder).config == CONFIG
    # Weights that somebody else wrote say nothing, and are taken at their config's word.
    rename_tensors(folder, str, {"format": "pt"})
    edit_config(folder, n_head=2)
    assert load(folder).config.n_head == 2


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"n_head": 4}', "[" * 100_000])
def test_a_damaged_identity(folder, kept):
    rename_tensors(folder, str, {"format": "pt", "gpt_numpy_config": kept})
    message_of(lambda: load(folder), CheckpointCorrupt)


# ---- files that are none ------------------------------------------------------------------------------------------


def put_special(path, kind):
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only on systems with FIFOs")
@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "loop"])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json", "shard", "llm.bin"]
)
def test_special_files_are_refused_at_once(folder, name, kind):
    if name == "shard":
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {"wte.weight": "shard"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif "index" in name:
        (folder / "model.safetensors").unlink()
    put_special(folder / name, kind)
    call = "from gpt_numpy.interop import llmc; llmc.load(path)" if name == "llm.bin" else "GPT.load(path.parent)"
    code = f"""
import resource, sys
from pathlib import Path
from gpt_numpy import GPT
from gpt_numpy.errors import GPTNumpyError
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    {call}
except (GPTNumpyError, OSError) as error:
    print(len(str(error)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / name)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and int(done.stdout) < SCREEN, done.stderr


# ---- messages and time --------------------------------------------------------------------------------------------


def write_header(path, header):
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_no_message_is_longer_than_a_screen(tmp_path):
    path = tmp_path / "w.safetensors"
    entry = {"dtype": "F32", "shape": [1] * 1_000_000, "data_offsets": [0, 4]}
    for header in (
        {"w": entry},
        {"w" * 1_000_000: {**entry, "shape": [1]}},
        {"w": {**entry, "dtype": "F" * 1_000_000}},
        {"w": {**entry, "shape": [10**4000]}},
    ):
        write_header(path, json.dumps(header))
        message = message_of(lambda: SafetensorsFile(path))
        assert str(path) in message
    for kind in (CheckpointCorrupt, DataError):
        assert (
            len(str(kind("m" * 10**6, path="p" * 10**6, field="f" * 10**6, found=["x"] * 10**6, expected="e" * 10**6)))
            <= SCREEN
        )
        assert "too long to write" in str(kind("m", found=10**5000))
    assert str(CheckpointCorrupt("m", path="p", field="f", found=[1], expected="e")) == "p, f: m: found [1]; expected e"


def test_forty_thousand_names_are_refused_in_time_proportional_to_the_file(tmp_path):
    """The square of 200,000 names would be minutes."""
    names = ", ".join(f'"w{i}": 0' for i in range(200_000))
    write_header(tmp_path / "w", f'{{{names}, "w199999": 0}}')
    assert "w199999" in message_of(lambda: SafetensorsFile(tmp_path / "w"), CheckpointCorrupt)


# ---- the end of a text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, generation, expected",
    [
        (None, ..., ()),
        (65, ..., (65,)),
        ([65, 7], ..., (65, 7)),
        (65, 66, (66,)),
        (65, None, (65,)),
        (..., [66, 67], (66, 67)),
    ],
)
def test_the_folder_says_where_a_text_ends(folder, config, generation, expected):
    edit_config(folder, eos_token_id=config)
    if generation is not ...:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert huggingface.end_of_text_ids(folder) == expected


def chars(folder, model):
    tokenizer = CharTokenizer("abcdefghi")
    model.save(folder)
    tokenizer.save(folder)
    return tokenizer


@pytest.mark.parametrize("eos", [4, [9, 4]])
def test_generation_stops_at_the_folders_end(tmp_path, capsys, eos):
    tokenizer = chars(tmp_path, GPT(CONFIG, seed=1, ops=kernels))
    arguments = ["generate", "--model", str(tmp_path), "--prompt", "abc", "--temperature", "0", "--logit-bias", "4=100"]
    arguments += ["--max-new-tokens", "6"]
    assert main(arguments) == 0 and capsys.readouterr().out == "abceeeeee\n"
    edit_config(tmp_path, eos_token_id=eos)
    assert set(stop_tokens_of(tmp_path, tokenizer)) == {4, *np.atleast_1d(eos)}
    assert main(arguments) == 0 and capsys.readouterr().out == "abc\n"
    assert gpt_numpy.load(tmp_path).generate("abc", 6, temperature=0, logit_bias={4: 100}) == "abc"
    assert main([*arguments, "--no-end"]) == 0 and capsys.readouterr().out == "abceeeeee\n"
    for made in ("converted", "packed"):
        command = ["convert", str(tmp_path), str(tmp_path / made)]
        if made == "packed":
            command = ["quantize", "--model", str(tmp_path), "--out", str(tmp_path / made)]
        assert main(command) == 0
        capsys.readouterr()
        assert main([*arguments[:2], str(tmp_path / made), *arguments[3:]]) == 0
        assert capsys.readouterr().out == "abc\n"


def test_ids_without_text_are_never_written(tmp_path, capsys):
    model = GPT(CONFIG, seed=1, ops=kernels)
    model.params["wte.weight"][9:] *= 1000  # two ids more than the tokenizer has characters
    tokenizer = chars(tmp_path, model)
    for options in ([], ["--temperature", "0"], ["--top-k", "3"], ["--samples", "2"], ["--draft", str(tmp_path)]):
        argv = ["generate", "--model", str(tmp_path), "--prompt", "abc", "--max-new-tokens", "20", *options]
        assert main(argv) == 0
        text = capsys.readouterr().out.strip()
        assert set(text.split("\n")[-1]) <= set("abcdefghi") and len(text) >= 23
    from gpt_numpy.inference.text import stream_text

    assert sum(len(piece.text) for piece in stream_text(model, tokenizer, "abc", 20)) == 20


# ---- packed folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8", "int4"])
def test_a_flipped_bit_of_a_packed_folder_is_refused(folder, tmp_path, format):
    made = PackedWeights.pack(*huggingface.load_views(folder), format)
    save_packed(tmp_path, made)
    CharTokenizer("abcdefghi").save(tmp_path)
    load_decoder(tmp_path)
    whole = (tmp_path / PACKED).read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*rng.integers(0, header, 100), *rng.integers(header, len(whole), 100), len(whole) - 1]
    for place, bit in zip(places, rng.integers(0, 8, len(places))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        (tmp_path / PACKED).write_bytes(damaged)
        try:
            decoder, _ = load_decoder(tmp_path)
        except GPTNumpyError:
            continue
        assert all(
            np.array_equal(getattr(decoder.weights, n), getattr(made, n)) for n in ("data", "vectors", "positions")
        )
        assert place < header and decoder.config == made.config, f"byte {place} was not noticed"
    (tmp_path / PACKED).write_bytes(whole)
    for changed in ({"n_head": 2}, {"n_head": 4, "scale_attn_weights": False}, {"activation_function": "relu"}):
        edit_config(tmp_path, **changed)
        assert list(changed)[-1] in message_of(lambda: load_decoder(tmp_path), CheckpointMismatch)
