"""The peers' machinery with our own step as the only contender, and with a package that is not there."""

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import peers
from benchmarks.peers import generation, perplexity, worker

SPEC = dict(vocab_size=65, n_layer=1, n_head=2, n_embd=16, batch_size=2, block_size=8)


def test_a_contender_is_timed_in_its_own_process():
    run = peers.Run("tiny", SPEC, {"gpt_numpy": "ours"})
    result = peers.compare(run, rounds=2)["gpt_numpy"]
    assert result["runs"] == 2 and result["median"] > 0
    assert result["peak_bytes"] > 10_000_000
    assert 0 < result["loss"] < 10 and result["ratio_to_ours"] == 1


def test_a_missing_package_is_named_with_its_install_command(capsys):
    run = peers.Run("tiny", SPEC, {"someone": "no_such_module"})
    results = peers.compare(run, rounds=1)
    peers.print_table(results)
    printed = capsys.readouterr().out
    assert "not installed" in printed and "no_such_module" in printed and peers.INSTALL in printed


def test_an_unknown_contender_is_refused(capsys):
    assert command.main(["peers", "train-small", "--only", "gpt_numpy", "--only", "pytorch"]) == 2
    said = capsys.readouterr().err
    assert "--only" in said and "'pytorch'" in said and "pytorch eager" in said


def tiny(new_tokens, **more):
    sizes = dict(vocab_size=65, n_layer=2, n_head=2, n_embd=16, block_size=64, batch_size=2, prompt_tokens=40)
    spec = sizes | dict(new_tokens=new_tokens) | more
    return peers.Run(
        "tiny",
        spec,
        {"gpt_numpy": "generate_ours"},
        "token",
        generation.make_folder,
        lambda name, spec: generation.TOLERANCE["float32"],
    )


@pytest.mark.parametrize("new_tokens", [0, 3])
def test_generation_is_timed_against_its_oracle(new_tokens, capsys):
    results = peers.compare(tiny(new_tokens), rounds=2)
    result = results["gpt_numpy"]
    assert result["runs"] == 2 and 0 < result["median"] < 10 and 0 < result["error"] < 1e-4
    peers.print_table(results, "token")
    printed = capsys.readouterr().out
    assert "a token" in printed and "share of" in printed


def test_a_contender_that_computes_something_else_is_not_timed(capsys):
    run = tiny(3)._replace(make_folder=lambda folder, spec: (generation.make_folder(folder, spec), _spoil(folder)))
    results = peers.compare(run, rounds=1)
    assert "median" not in results["gpt_numpy"] and results["gpt_numpy"]["wrong"] > 0.5
    peers.print_table(results)
    assert "misses its oracle" in capsys.readouterr().out


def test_the_llama_problems_have_its_shape():
    for name in ("llama-decode", "llama-decode-int8", "llama-decode-int4", "llama-prefill"):
        config = generation.config_of(peers.RUNS[name].spec)
        assert (config.n_layer, config.n_embd, config.n_head, config.key_heads) == (30, 576, 9, 3)
        assert config.block_size >= peers.RUNS[name].spec["prompt_tokens"] + peers.RUNS[name].spec["new_tokens"]


def test_perplexity_counts_every_token_but_a_windows_first():
    def logits_of(ids):  # each id is followed by itself with probability 1/2, by others with 1/2 together
        return np.log(np.where(np.eye(5)[ids] > 0, 1 / 2, 1 / 8)) + 7

    found = perplexity.perplexity(logits_of, [[1, 1, 2], [3, 3]])
    assert found == pytest.approx((2 * 8 * 2) ** (1 / 3))


def _spoil(folder):
    path = f"{folder}/logits.npy"
    np.save(path, np.load(path) + 1)


class Pretender:
    """A contender whose step takes ``seconds``, given in place of its module, without anything being run."""

    info = {}

    def __init__(self, name, seconds, spec):
        self.name, self.seconds, self.times = name, seconds, []

    def step(self):
        self.times.append(self.seconds)

    def stop(self):
        return {"peak_bytes": 1, "faults": 0, "loss": 1.0, "warm_up": 0.0}


def test_a_much_slower_contender_is_timed_once(monkeypatch, capsys):
    monkeypatch.setattr(peers, "Contender", Pretender)
    monkeypatch.setattr(peers, "SETTLE_SECONDS", 0)
    run = peers.Run("tiny", SPEC, {"gpt_numpy": 0.1, "snail": 2.0})
    results = peers.compare(run, rounds=3)
    assert results["gpt_numpy"]["runs"] == 3 and results["snail"]["runs"] == 1
    assert results["snail"]["ratio_to_ours"] == 20
    peers.print_table(results)
    assert "timed 1 of 3 times: more than 10 times as slow" in capsys.readouterr().out


@pytest.mark.parametrize("first, expected", [(0.5, (1.0, 4)), (9.0, (9.0, 1))])
def test_short_steps_are_timed_in_a_row_and_a_long_one_by_itself(first, expected, monkeypatch):
    seconds = iter([first, 1.0, 2.0, 1.0])
    monkeypatch.setattr(worker, "TURN", 4.0)
    monkeypatch.setattr(worker, "_timed", lambda step: ({"loss": 0.0}, next(seconds)))
    assert worker._turn(None)[1:] == expected


def test_a_figure_is_compared_with_the_limit_of_its_own_products(capsys):
    run = peers.Run("tiny", SPEC, {}, flops=lambda spec: 3e9)
    common = dict(median=0.5, low=0.5, high=0.5, runs=1, peak_bytes=1, faults=0, loss=1.0, warm_up=0.0)
    names = ("gpt_numpy", "gpt_numpy bfloat16", "pytorch eager", "pytorch bf16")
    results = {name: dict(common) for name in names} | {"gone": {"missing": "no gone"}}
    results["gone"]["install"] = "pip"
    peers.add_shares(results, run, {"gflops": 10.0, "gflops_bfloat16": 20.0, "gbytes": 1.0})
    assert [results[name]["limit"] for name in names] == ["float32", "bfloat16"] * 2
    assert [results[name]["share"] for name in names] == [0.6, 0.3] * 2
    peers.print_table(results)
    printed = capsys.readouterr().out
    assert "of limit" in printed and "60% float32" in printed and "30% bfloat16" in printed


def test_the_operations_of_a_training_run_are_those_of_the_model():
    for name in ("train-124m-short", "train-124m-long", "train-small"):
        run = peers.RUNS[name]
        assert "gpt_numpy bfloat16" in run.contenders and "pytorch bf16" in run.contenders
        weights = {"train-small": 0.79e6}.get(name, 124e6)
        tokens = run.spec["batch_size"] * run.spec["block_size"]
        assert 6 * weights * tokens < run.flops(run.spec) < 8 * weights * tokens
