"""``gpt-numpy info``: the figures it prints, and the arguments it refuses."""

import json
import pathlib

import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import info, main
from gpt_numpy.tokenizer import Tokenizer


def test_the_figures_of_gpt2(capsys):
    assert main(["info", "--preset", "gpt2", "--batch-size", "4", "--block-size", "1024", "--no-measure"]) == 0
    printed = capsys.readouterr().out
    assert "124,439,808" in printed
    assert " GB), without Python's own" in printed and " MB" in printed
    assert "GFLOP" in printed and "moments of AdamW" in printed and "bytes at the peak" in printed


def test_a_shape_of_other_parts(capsys):
    parts = "--norm rmsnorm --positions rotary --mlp swiglu --n-inner 2048 --n-kv-head 4 --bias none --no-tied".split()
    assert main(["info", *parts, "--batch-size", "1", "--no-measure"]) == 0
    assert "norm rmsnorm, positions rotary, n_kv_head 4, bias False, tied False" in capsys.readouterr().out
    assert main(["info", *parts, "--batch-size", "1", "--no-measure", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    width, head = 768, 64
    block = width * (12 + 2 * 4) * head + width * width + 3 * width * 2048 + 2 * width
    assert figures["parameters"] == 2 * 50257 * width + 12 * block + width
    assert figures["parts"]["mlp"] == "swiglu" and figures["parts"]["n_kv_head"] == 4


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--n-kv-head", "5"], "--n-kv-head: query heads share key heads evenly: found 5"),
        (["--rope-theta", "500"], "--rope-theta: has an effect only with rotary positions"),
        (["--positions", "crop"], "--positions: needs --init-from"),
        (["--model", "folder", "--n-layer", "2"], "--n-layer: the model has its own"),
    ],
)
def test_a_shape_that_no_model_has(flags, message, capsys):
    assert main(["info", "--no-measure", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_this_machine_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(info, "others_busy", lambda: 2.5)
    assert main(["info", "--preset", "tiny", "--batch-size", "1"]) == 0
    printed = capsys.readouterr().out
    assert "a step takes about " in printed and "(measured on 1 sequence)" in printed
    assert "at least 0.000 s" not in printed and "other programs keep 2.5 processors busy" in printed
    assert "GFLOP/s" in printed and "GB/s" in printed and "tokens/s" in printed


def test_a_step_is_compared_with_the_limit_of_its_products(capsys):
    shape = ["info", "--preset", "tiny", "--batch-size", "1"]
    assert main([*shape, "--products", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert "float32 multiply-adds" in printed and "bfloat16 multiply-adds" in printed
    assert "the limits of bfloat16 and of memory" in printed and "products in bfloat16)" in printed
    assert "by vdpbf16ps" in printed or "widened to float32" in printed


def test_what_holds_the_machine_back_is_named(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert main(["info", "--preset", "tiny", "--batch-size", "1"]) == 0
    assert "held back: OPENBLAS_CORETYPE=Haswell" in capsys.readouterr().out


def test_every_figure_is_there_for_a_program(capsys):
    assert main(["info", "--preset", "tiny", "--batch-size", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["parameters"] == sum(figures["parameters_by_part"].values())
    assert figures["step"]["batch_size"] == 2 and sum(figures["step"]["memory_bytes"].values()) > 1e5
    machine = figures["machine"]
    assert machine["step_seconds"] >= machine["step_seconds_at_least"] > 0
    assert machine["peak_flops"]["float32"] > machine["read_bandwidth"] / 100 and "held_back" in machine
    assert figures["compiled"][0]["nbytes"] > 0
    assert main(["info", "--preset", "tiny", "--no-measure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"] is None


def test_wrong_arguments(capsys):
    assert main(["info", "--preset", "gpt3"]) == 2
    assert "did you mean 'gpt2'" in capsys.readouterr().err
    assert main(["info", "--batch-size", "0"]) == 2
    assert "--batch-size" in capsys.readouterr().err
    assert main(["info", "--block-size", "2000"]) == 2
    assert "at most 1024" in capsys.readouterr().err
    assert main(["info", "--format", "int8"]) == 2
    assert "--model" in capsys.readouterr().err


def test_a_model_is_run_and_measured(tmp_path, capsys):
    tokenizer = Tokenizer.train(["hello, hello world"], 262)
    GPT(GPTConfig(tokenizer.n_vocab, block_size=9, n_layer=1, n_head=2, n_embd=8), ops=layers).save(tmp_path)
    tokenizer.save(tmp_path)
    assert main(["info", "--model", str(tmp_path), "--format", "int8"]) == 0
    out = capsys.readouterr().out
    assert "weights in int8" in out and "prefill 5 tokens" in out and "decode  4 tokens" in out
    assert "of peak" in out and "memory limits decode" in out
    assert main(["info", "--model", str(tmp_path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["n_embd"] == 8 and figures["decode"]["tokens_per_second"] > 0 and figures["weights_bytes"] > 0


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A folder of compiled code with two functions."""
    from gpt_numpy.kernels.runtime import code_files

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(code_files, "_warned", set())
    code_files._writable_folder.cache_clear()
    yield code_files
    code_files._writable_folder.cache_clear()


def test_the_compiled_kernels_place_size_and_state(compiled, capsys):
    folder = compiled.folders()[0]
    assert main(["info", "--preset", "tiny", "--no-measure"]) == 0
    assert f"compiled kernels: none yet; they will be kept in {folder}" in capsys.readouterr().out
    for name in ("one", "two"):
        compiled.CodeFiles(name, "version", "stamp").save("key", b"x" * 1000)
    sizes = sum(path.stat().st_size for path in folder.iterdir())
    assert main(["info", "--preset", "tiny", "--no-measure"]) == 0
    out = capsys.readouterr().out
    assert f"compiled kernels in {folder}" in out and "2 functions, 2 files of code" in out
    assert f"{sizes:,} bytes, all sound" in out
    next(folder.glob("*.nbc")).write_bytes(b"")
    assert main(["info", "--preset", "tiny", "--no-measure"]) == 0
    assert "1 damaged, which will be compiled anew" in capsys.readouterr().out


def test_compiled_kernels_that_can_only_be_read(compiled, capsys, monkeypatch):
    compiled.CodeFiles("one", "version", "stamp").save("key", b"x")
    compiled._writable_folder.cache_clear()
    plain = pathlib.Path.mkdir

    def refuse(path, *arguments, **options):
        if path == compiled.folders()[0]:
            raise PermissionError(13, "Permission denied")
        plain(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.warns(RuntimeWarning, match="Permission denied") as given:
        assert main(["info", "--preset", "tiny", "--no-measure"]) == 0
    assert len(given) == 1
    out = capsys.readouterr().out
    assert "1 function, 1 file of code" in out and "read only: new code cannot be kept" in out
