import json

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, Tokenizer, layers
from gpt_numpy.commands import main
from gpt_numpy.errors import ConfigError, DataError, GenerationError
from gpt_numpy.evaluating import continuations, multiple_choice, next_word, perplexity, text_logprobs
from gpt_numpy.evaluating.tasks import encode_pair, read_passages, read_questions
from gpt_numpy.inference.panel_decoder import PanelDecoder

from . import reference

WORDS = "the cat sat on a mat and looked at every dog that ran by the old red barn".split()
BLOCK = 24


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" ".join(WORDS) + "\n"], 280)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Weights so large that probabilities differ."""
    model = GPT(GPTConfig(tokenizer.n_vocab, BLOCK, n_layer=2, n_head=3, n_embd=30), seed=1, ops=layers)
    model.params.flat *= 3
    return model


@pytest.fixture(scope="module")
def forward(model):
    return lambda tokens: model.forward(np.asarray(tokens)[None])[0]


def some_text(count, seed):
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, count))


@pytest.mark.parametrize("stride", [1, 7, 12, 23, 24, None])
@pytest.mark.parametrize("count", [2, BLOCK, BLOCK + 1, 131])
def test_a_text_is_scored_window_by_window(model, forward, tokenizer, stride, count):
    tokens = tokenizer.encode(some_text(200, 3))[:count]
    nats, scored = reference.text_loss(forward, tokens, BLOCK, stride or BLOCK // 2)
    for reader in (model, PanelDecoder.pack(model)):
        found = text_logprobs(reader, tokens, stride)
        assert len(found) == scored and -found.sum() == pytest.approx(nats, rel=1e-5)


def test_continuations_in_batches_of_any_size(model, forward, tokenizer):
    rng = np.random.default_rng(5)
    pairs = []
    for _ in range(23):
        context = rng.integers(0, tokenizer.n_vocab, rng.integers(1, 40)).tolist()
        pairs.append((context, rng.integers(0, tokenizer.n_vocab, rng.integers(1, BLOCK)).tolist()))
        if rng.random() < 0.5:
            pairs.append((context, rng.integers(0, tokenizer.n_vocab, rng.integers(1, 5)).tolist()))
    pairs.append(([3], [int(forward([3])[0].argmax())]))
    expected = [reference.continuation(forward, *pair, BLOCK) for pair in pairs]
    assert expected[-1][1] and not expected[0][1]
    for batch in (1, 5, 64):
        found = list(continuations(PanelDecoder.pack(model), iter(pairs), batch))
        assert [one.total for one in found] == pytest.approx([total for total, _ in expected], rel=1e-4)
        assert [one.greedy for one in found] == [greedy for _, greedy in expected]


def test_the_next_word_and_the_choices(model, forward, tokenizer):
    passages = [some_text(9, seed) for seed in range(30)]
    pairs = [
        encode_pair(tokenizer, *split)
        for split in ((p.rpartition(" ")[0], " " + p.rpartition(" ")[2]) for p in passages)
    ]
    expected = [reference.continuation(forward, *pair, BLOCK) for pair in pairs]
    found = next_word(model, tokenizer, passages)
    assert (found.passages, found.right) == (30, sum(greedy for _, greedy in expected))
    assert found.perplexity == pytest.approx(np.exp(-np.mean([total for total, _ in expected])), rel=1e-4)
    questions = [(some_text(6, s), [some_text(1 + e, 100 + s + 50 * e) for e in range(4)], s % 4) for s in range(20)]
    totals = [
        [reference.continuation(forward, *encode_pair(tokenizer, c, f" {e}"), BLOCK)[0] for e in endings]
        for c, endings, _ in questions
    ]
    choices = multiple_choice(model, tokenizer, questions, batch=7)
    assert choices.right == sum(int(np.argmax(t)) == answer for t, (_, _, answer) in zip(totals, questions))
    per_character = [np.array(t) / [len(e) for e in q[1]] for t, q in zip(totals, questions)]
    assert choices.right_normalised == sum(int(np.argmax(t)) == q[2] for t, q in zip(per_character, questions))
    assert any(np.argmax(t) != np.argmax(n) for t, n in zip(totals, per_character))


def test_a_pair_is_encoded_as_one_text(tokenizer):
    context, following = encode_pair(tokenizer, "the cat ", " sat")
    assert tokenizer.decode(context) == "the cat" and tokenizer.decode(following) == "  sat"
    assert context + following == tokenizer.encode("the cat  sat")


def test_the_command_prints_what_the_library_finds(model, tokenizer, tmp_path, capsys):
    model.save(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    texts = {"a.txt": some_text(60, 1), "b.txt": some_text(30, 2)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "words.txt").write_text("\n".join(some_text(7, seed) for seed in range(5)) + "\n")
    records = [{"ctx": some_text(5, s), "endings": ["the cat", "a dog ran"], "label": str(s % 2)} for s in range(4)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, records)))
    line = ["eval", "--model", str(tmp_path / "model"), "--text", *(str(tmp_path / name) for name in texts)]
    line += ["--next-word", str(tmp_path / "words.txt"), "--choices", str(tmp_path / "questions.jsonl"), "--limit", "3"]
    assert main([*line, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    whole = perplexity(model, tokenizer, texts.values())
    assert figures["all texts"]["loss"] == pytest.approx(whole.loss, rel=1e-5)
    assert figures["all texts"]["tokens"] == whole.tokens
    assert (
        figures[str(tmp_path / "words.txt")]["passages"] == figures[str(tmp_path / "questions.jsonl")]["questions"] == 3
    )
    assert main(line) == 0
    out = capsys.readouterr().out
    assert (
        f"perplexity {figures['all texts']['perplexity']:.5g}" in out
        and "accuracy normalised" in out
        and "3 questions" in out
    )


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("q.jsonl", '{"ctx": "a", "endings": ["b"], "label": 0}', "line 1: not a list of endings"),
        ("q.jsonl", '\n{"ctx": "a", "endings": ["b", "c"], "label": 2}', "line 2, label: no such ending: found 2"),
        ("q.jsonl", '{"ctx": "a", "label": 2}', "line 1: a field is missing: expected endings or choices"),
        ("q.jsonl", "{", "line 1: not JSON"),
        ("q.jsonl", "[]", "line 1: not a JSON object"),
    ],
)
def test_bad_questions(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path / name)


def test_bad_passages_and_arguments(model, tokenizer, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"text": 3}')
    with pytest.raises(DataError, match="line 1: a field is missing: expected text"):
        read_passages(tmp_path / "p.jsonl")
    (tmp_path / "p.txt").write_bytes(b"a\xff")
    with pytest.raises(DataError, match="offset 1: not UTF-8"):
        read_passages(tmp_path / "p.txt")
    with pytest.raises(DataError, match="at least two words"):
        next_word(model, tokenizer, ["word"])
    with pytest.raises(ConfigError, match="stride"):
        text_logprobs(model, [1, 2, 3], 0)
    with pytest.raises(GenerationError, match="nothing to score"):
        list(continuations(model, [([], [1])]))
    with pytest.raises(GenerationError, match="longer than"):
        list(continuations(model, [([1], [1] * (BLOCK + 1))]))
    assert main(["eval", "--model", str(tmp_path)]) == 2
    assert "--next-word" in capsys.readouterr().err


@pytest.mark.parametrize("stride", [5, 12, 24])
def test_every_digit_that_the_command_prints_is_that_of_transformers(stride, model, tokenizer, tmp_path, capsys):
    """Perplexity with a stride, LAMBADA's accuracy, HellaSwag's two accuracies, on the same weights."""
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model.save(tmp_path)
    tokenizer.save(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()

    def forward(tokens):
        with torch.no_grad():
            return theirs(torch.tensor([list(tokens)])).logits[0].numpy()

    def of_pair(context, following):
        return reference.continuation(forward, *encode_pair(tokenizer, context, following), BLOCK)

    text = some_text(300, 8)
    passages = [some_text(9, seed) for seed in range(40)]
    questions = [(some_text(6, s), [some_text(1 + e, 100 + s + 50 * e) for e in range(4)], s % 4) for s in range(20)]
    nats, count = reference.text_loss(forward, tokenizer.encode(text), BLOCK, stride)
    n_bytes = len(text) - len(tokenizer.decode(tokenizer.encode(text)[:1]))
    words = [of_pair(passage.rpartition(" ")[0], " " + passage.rpartition(" ")[2]) for passage in passages]
    totals = [np.array([of_pair(context, f" {ending}")[0] for ending in endings]) for context, endings, _ in questions]
    lengths = [np.array([len(ending) for ending in endings]) for _, endings, _ in questions]
    answers = [answer for *_, answer in questions]
    right = np.mean([total.argmax() == answer for total, answer in zip(totals, answers)])
    normalised = np.mean([(t / n).argmax() == answer for t, n, answer in zip(totals, lengths, answers)])
    expected = [
        f"{count:,} tokens, loss {nats / count:.4f}, perplexity {np.exp(nats / count):.5g}, "
        f"bits per byte {nats / np.log(2) / n_bytes:.4f}",
        f"40 passages, accuracy {np.mean([greedy for _, greedy in words]):.2%}, "
        f"perplexity {np.exp(-np.mean([total for total, _ in words])):.5g}",
        f"20 questions, accuracy {right:.2%}, accuracy normalised {normalised:.2%}",
    ]
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "words.txt").write_text("\n".join(passages))
    records = [{"ctx": context, "endings": endings, "label": answer} for context, endings, answer in questions]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, records)))
    line = ["eval", "--model", str(tmp_path), "--text", str(tmp_path / "a.txt"), "--stride", str(stride)]
    line += ["--next-word", str(tmp_path / "words.txt"), "--choices", str(tmp_path / "questions.jsonl")]
    assert main(line) == 0
    assert capsys.readouterr().out.splitlines()[1::2] == [f"    {figures}" for figures in expected]
