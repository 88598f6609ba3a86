from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.tokenizer import CharTokenizer


def make_run(folder):
    tokenizer = CharTokenizer.train(["to be, or not to be"])
    config = GPTConfig(tokenizer.vocab_size, 16, n_layer=1, n_head=2, n_embd=4)
    GPT(config, ops=layers).save(folder)
    tokenizer.save(folder)
    return folder


def test_a_page_is_written(tmp_path, capsys):
    run, out = make_run(tmp_path / "run"), tmp_path / "page.html"
    assert main(["microscope", "--model", str(run), "--text", "to be", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 0.")
    page = out.read_text(encoding="utf-8")
    assert '"model": "run"' in page and "h.0.attn.weights" in page


def test_bad_input_is_one_line(tmp_path, capsys):
    run = str(make_run(tmp_path / "run"))
    assert main(["microscope", "--model", run, "--text", "t", "--out", str(tmp_path / "p.html")]) == 2
    assert "two tokens" in capsys.readouterr().err
    assert main(["microscope", "--model", run, "--text", "to", "--max-tokens", "0"]) == 2
    assert main(["microscope", "--model", str(tmp_path / "nowhere"), "--text", "to be"]) == 3
    assert main(["microscope", "--model", run, "--text", "to be", "--out", str(tmp_path / "no" / "p.html")]) == 3
    assert not (tmp_path / "p.html").exists()
