"""The peers' machinery with our own step as the only contender, and with a package that is not there."""

from benchmarks import peers

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
