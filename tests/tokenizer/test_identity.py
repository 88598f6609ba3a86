"""The identity of a tokenizer: the same for the same ids, another for any difference; copies, threads and processes."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest

from gpt_numpy.errors import TokenizerError
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer, load_tokenizer
from gpt_numpy.tokenizer.identity import check_same_tokenizer, classes_of

TEXT = "a bad ace added a cab; the theatre and the other bit " * 20


def bpe(text=TEXT, size=277, specials=("<|endoftext|>",), **options):
    return Tokenizer.train([text], size, specials, **options)


def char(text=TEXT, specials=("<|endoftext|>",)):
    return CharTokenizer.train([text], special_tokens=specials)


@pytest.fixture(scope="module", params=[bpe, char], ids=["bpe", "char"])
def used(request):
    tokenizer = request.param()
    tokenizer.encode("a bad ace")
    return tokenizer


def test_it_is_that_of_what_was_saved(used, tmp_path):
    used.save(tmp_path / "one")
    assert load_tokenizer(tmp_path / "one").identity == used.identity
    assert len(used.identity) == 64 and set(used.identity) <= set("0123456789abcdef")


def test_every_difference_is_another_tokenizer():
    identities = [
        bpe().identity,
        bpe(size=276).identity,
        bpe(TEXT[::-1]).identity,
        bpe(specials=("<|end|>",)).identity,
        bpe(specials=(), size=276).identity,
        bpe(pattern=r"\p{L}+|\P{L}").identity,
        char().identity,
        char(specials=()).identity,
        char(TEXT + "!").identity,
    ]
    assert len(set(identities)) == len(identities)


def test_a_change_of_unicode_tables_is_another_tokenizer(monkeypatch):
    from gpt_numpy import unicode
    from gpt_numpy.tokenizer import identity

    pattern = r"\p{Lu}|\P{Lu}"
    before = bpe().identity, bpe(pattern=pattern).identity
    monkeypatch.setattr(identity, "_hash_of_class", lambda name: "other")
    assert (bpe().identity == before[0]) and bpe(pattern=pattern).identity != before[1]
    monkeypatch.setattr(unicode, "VERSION", "0.0.0")
    assert bpe().identity != before[0]
    assert classes_of(r"\p{Lu}[^\s\p{N}]\d\b[[:alpha:]]") == {r"\p{Lu}", r"\s", r"\p{N}", r"\d", r"\w", "[[:alpha:]]"}


def test_two_tokenizers_are_named():
    check_same_tokenizer(bpe().identity, "the shards", bpe().identity, "the model")
    with pytest.raises(TokenizerError, match="the shards in p and the model in m have different tokenizers"):
        check_same_tokenizer(bpe().identity, "the shards in p", char().identity, "the model in m")


def test_ids_that_have_text(used):
    n = used.n_vocab
    assert used.has_text(np.arange(-2, n + 3)).tolist() == [False] * 2 + [True] * n + [False] * 3
    assert bool(used.has_text(0)) and not bool(used.has_text(n))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_used_tokenizer_is_copied(used, again):
    other = again(used)
    assert other.encode("a bad ace") == used.encode("a bad ace")
    assert other.identity == used.identity and other.eot_id == used.eot_id
    assert other.decode(other.encode("a bad")) == "a bad"


def encode_in_a_process(tokenizer, text, answers):
    answers.put(tokenizer.encode(text))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_used_tokenizer_serves_in_another_process(used, method):
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=encode_in_a_process, args=(used, "a bad ace", answers))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert answers.get() == used.encode("a bad ace")


def test_one_tokenizer_serves_many_threads(used):
    texts = [f"a bad ace {'added ' * (n % 7)}cab {'the theatre ' * (n % 5)}" for n in range(40)]
    expected = [used.encode(text) for text in texts]
    wrong = []

    def work(first):
        for n in range(first, first + 200):
            text = texts[n % 40]
            if used.encode(text) != expected[n % 40] or used.decode(expected[n % 40]) != text:
                wrong.append(n)

    fresh = copy.copy(used)  # its tables are made while several threads ask for them
    starts = threading.Barrier(4)

    def begin(first):
        starts.wait()
        if fresh.encode(texts[first]) != expected[first]:
            wrong.append(first)
        work(first)

    threads = [threading.Thread(target=begin, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
