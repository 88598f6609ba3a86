import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.training import start, trainer, watcher
from gpt_numpy.training.plan.corpus import load_corpus
from gpt_numpy.training.watcher import sample


@pytest.fixture
def parts(tiny):
    corpus = load_corpus(tiny())
    return GPT(tiny().model_config(corpus.tokenizer.n_vocab), seed=2, ops=layers), corpus


def test_continues_the_prompt_and_says_the_same_again(parts):
    text = sample(*parts, "the cat", 9, seed=5)
    assert text.startswith("the cat") and len(text) == len("the cat") + 9
    assert sample(*parts, "the cat", 9, seed=5) == text != sample(*parts, "the cat", 9, seed=6)


def test_outgrows_the_context(parts):
    assert len(sample(*parts, "the", 50, seed=5)) == 53


def test_begins_by_itself(parts):
    assert len(sample(*parts, "", 9, seed=5)) == 10


@pytest.mark.parametrize(
    "final_tokens,windows,said", [(0, 0, "over all "), (262_144, 0, "over all "), (200, 7, "over 224 of the 1,")]
)
def test_the_last_validation_is_bounded_and_announced(tiny, tmp_path, capsys, monkeypatch, final_tokens, windows, said):
    limits, before = [], trainer.evaluate
    monkeypatch.setattr(watcher, "_WORTH_A_WORD", 0.0)
    monkeypatch.setattr(trainer, "evaluate", lambda *args: limits.append(args[3]) or before(*args))
    outcome = start(tiny(max_steps=2, final_tokens=final_tokens), tmp_path / "run")
    printed = capsys.readouterr().out
    assert limits[-1] == windows and said in printed and outcome.validation_loss > 0
    announced = next(line for line in printed.splitlines() if line.startswith("the last validation, on"))
    assert ("--final-tokens 0: all" in announced) == bool(windows) and "takes about" in announced
