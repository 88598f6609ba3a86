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


def test_names_in_a_legend_are_short():
    assert plots.short_names(["runs/a-1", "runs/b-1"]) == ["a-1", "b-1"]
    assert plots.short_names(["runs/a-1"]) == ["runs/a-1"]
    assert plots.short_names(["s/n_embd=64,seed=1", "s/n_embd=64,seed=2"]) == ["seed=1", "seed=2"]
    assert all(len(name) <= 34 for name in plots.short_names(["x" * 90, "y" * 90]))


def test_ten_runs_have_ten_colours_and_a_legend_beside_the_panels(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    plots.draw(tmp_path / "ten.png", {f"runs/r-{i}": records(3.0 + i) for i in range(10)})
    (figure,) = figures
    (legend,) = figure.legends
    handles = legend.legend_handles
    assert len({handle.get_color() for handle in handles}) == 10
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == [f"r-{i}" for i in range(10)]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_one_run_says_its_figures(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    plots.draw(tmp_path / "one.png", {"run": records(3.0)}, unigram=2.0, title="run: tiny on text", clip=1.0)
    (figure,) = figures
    assert figure.get_suptitle() == "run: tiny on text"
    texts = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    for part in (
        "validation 0.333, best 0.333 at step 29",
        "unigram model 2.000",
        "clipped at 1",
        "median 5",
        "smoothed",
    ):
        assert any(part in text for text in texts), (part, texts)
