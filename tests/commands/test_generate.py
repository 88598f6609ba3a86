import io

import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.tokenizer import END_OF_TEXT, Tokenizer


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with two checkpoints; the newer one has the higher step, not the later time."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = Tokenizer.train(["hello, hello world"], 262, special_tokens=[END_OF_TEXT])
    config = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=16, n_layer=1, n_head=2, n_embd=8)
    for step in (100, 20):
        checkpoint = folder / "checkpoints" / f"step-{step}"
        GPT(config, seed=step, ops=layers).save(checkpoint)
        tokenizer.save(checkpoint)
    return folder


def generate(capsys, *argv):
    code = main(["generate", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_continues_the_prompt(run_folder, capsys):
    arguments = ("--prompt", "hello ", "--max-new-tokens", 30, "--seed", 3)
    code, out, err = generate(capsys, "--model", run_folder, *arguments)
    assert (code, err) == (0, "")
    assert out.startswith("hello ") and len(out) > 20
    assert generate(capsys, "--model", run_folder / "checkpoints" / "step-100", *arguments)[1] == out
    assert generate(capsys, "--model", run_folder / "checkpoints" / "step-20", *arguments)[1] != out


def test_stops_before_a_stop_text(run_folder, capsys):
    arguments = ("--model", run_folder, "--prompt", "hello", "--max-new-tokens", 40, "--seed", 1)
    _, whole, _ = generate(capsys, *arguments)
    stop = whole[12:14]
    _, cut, _ = generate(capsys, *arguments, "--stop", stop)
    assert cut == whole[: whole.index(stop, 5)] + "\n"


def test_prompt_from_standard_input_and_several_samples(run_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    code, out, _ = generate(capsys, "--model", run_folder, "--prompt", "-", "--samples", 3, "--max-new-tokens", 5)
    assert code == 0
    assert out.count("--- sample") == 3 and out.count("\nhello") == 3


@pytest.mark.parametrize(
    "argv, code, message",
    [
        (["--prompt", END_OF_TEXT], 2, "special"),
        (["--prompt", "a", "--temperature", "-1"], 2, "temperature"),
        (["--prompt", "a", "--temperature", "nan"], 2, "temperature"),
        (["--prompt", "a", "--top-k", "-1"], 2, "--top-k"),
        (["--prompt", "a", "--top-p", "1.5"], 2, "--top-p"),
        (["--prompt", "a", "--logit-bias", "x"], 2, "logit-bias"),
        (["--prompt", "a", "--stop", ""], 2, "stop"),
        (["--prompt", "a", "--model", "no/such/folder"], 3, "no/such/folder"),
    ],
)
def test_faults_are_one_line(run_folder, capsys, argv, code, message):
    if "--model" not in argv:
        argv = ["--model", run_folder, *argv]
    found, _, err = generate(capsys, *argv)
    assert found == code and message in err and err.count("\n") == 1


@pytest.mark.parametrize("top_k", [0, 262, 263, 10**9])
def test_top_k_of_0_and_beyond_the_vocabulary_keeps_every_token(run_folder, capsys, top_k):
    arguments = ("--model", run_folder, "--prompt", "hello", "--max-new-tokens", 10, "--seed", 4)
    expected = generate(capsys, *arguments)
    assert expected[0] == 0
    assert generate(capsys, *arguments, "--top-k", top_k) == expected


def test_special_tokens_where_they_are_allowed(run_folder, capsys):
    code, out, _ = generate(
        capsys, "--model", run_folder, "--prompt", END_OF_TEXT, "--allow-special", "--no-end", "--max-new-tokens", 5
    )
    assert code == 0 and out.startswith(END_OF_TEXT)


@pytest.mark.parametrize("format", ["float32", "bfloat16", "int8"])
def test_every_format_writes_and_says_what_it_cost(run_folder, capsys, format):
    code, out, err = generate(
        capsys, "--model", run_folder, "--prompt", "xyzzy", "--max-new-tokens", 3, "--format", format, "--figures"
    )
    assert code == 0 and out.startswith("xyzzy")
    assert err.startswith("prompt 5 tokens at ") and "; new 2 tokens at " in err and err.count("\n") == 1
    assert "of this machine's arithmetic" in err and "of its memory's speed" in err


def test_figures_are_for_those_who_ask_and_count_no_compiling(run_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    arguments = ("--model", run_folder, "--prompt", "xyzzy", "--max-new-tokens", 3)
    assert "prompt 5 tokens" not in generate(capsys, *arguments)[2]
    clock = iter([*range(0, 4000, 1000), *range(5000, 5010)])  # what comes first takes long
    monkeypatch.setattr("gpt_numpy.inference.figures.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("gpt_numpy.inference.figures.machine.peak_flops", lambda: 1e9)
    monkeypatch.setattr("gpt_numpy.inference.figures.machine.read_bandwidth", lambda: 1e9)
    assert "prompt 5 tokens at 5/s" in generate(capsys, *arguments, "--figures")[2]


def test_nothing_to_continue_is_the_start_of_a_text(run_folder, capsys):
    code, out, err = generate(capsys, "--model", run_folder, "--prompt", "", "--max-new-tokens", 5, "--no-end")
    assert code == 0 and len(out) > 1 and err == ""


def test_a_draft_does_not_change_a_greedy_text(run_folder, capsys):
    arguments = ("--model", run_folder, "--prompt", "hello", "--max-new-tokens", 20, "--temperature", 0)
    _, alone, _ = generate(capsys, *arguments)
    code, drafted, _ = generate(capsys, *arguments, "--draft", run_folder / "checkpoints" / "step-20")
    assert code == 0 and drafted == alone
    assert generate(capsys, *arguments, "--draft", run_folder, "--samples", 2)[0] == 2


def test_a_terminal_is_asked_for_prompts(run_folder, capsys, monkeypatch):
    lines = iter(["hello", "", END_OF_TEXT, "world"])

    def typed(question):
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, out, err = generate(capsys, "--model", run_folder, "--max-new-tokens", 4, "--seed", 5)
    assert code == 0 and out.startswith("hello") and "\nworld" in out and "special" in err
    first = generate(capsys, "--model", run_folder, "--prompt", "hello", "--max-new-tokens", 4, "--seed", 5)[1]
    assert out.startswith(first)
