import builtins

from gpt_numpy.training import plots


def records(scale):
    made = []
    for step in range(1, 30):
        made.append(
            {
                "kind": "train",
                "step": step,
                "loss": scale / step,
                "learning_rate": 1e-3,
                "gradient_norm": 1.0,
                "tokens_per_second": 5.0,
            }
        )
    return [*made, {"kind": "validation", "step": 29, "loss": scale / 9}, {"kind": "other", "step": 3}]


def test_curves_of_several_runs(tmp_path):
    plots.draw(tmp_path / "two.png", {"one": records(3.0), "other": records(4.0)}, unigram=2.0)
    plots.draw(tmp_path / "none.png", {"empty": []})
    for name in ("two.png", "none.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.png", "two.png"]


def test_training_needs_no_matplotlib(monkeypatch, tiny, tmp_path):
    from gpt_numpy.training import start

    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert start(tiny(max_steps=2), tmp_path / "run").step == 2
    assert not (tmp_path / "run" / "loss.png").exists()
