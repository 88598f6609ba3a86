"""The rules for pairs of equal counts: the kernels against the reference, and each rule against whose it is."""

import pathlib
import random

import pytest

from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.tokenizer import GPT2_PATTERN, Tokenizer, learning, reference
from gpt_numpy.tokenizer.formats.folders import FORMATS
from gpt_numpy.tokenizer.reference import TIES

pytestmark = pytest.mark.filterwarnings("ignore:the text has only")


def words_that_tie(seed):
    rng = random.Random(seed)
    alphabet = [b"abc", b"\x00\xffa\x80", bytes(range(0x18, 0x30)) + b"\xc3\xa9"][seed % 3]
    return " ".join("".join(map(chr, rng.choices(alphabet, k=rng.randrange(1, 9)))) for _ in range(40))


def merges_by_brute_force(text, n_merges):
    """CS336's rule, from its definition: max((count, pair of bytes))."""
    words = [[bytes([byte]) for byte in word] for word in reference.count_words([text], GPT2_PATTERN).elements()]
    merges = []
    for _ in range(n_merges):
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append((left, right))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == (left, right):
                    word[i : i + 2] = [left + right]
                i += 1
    return merges


@pytest.mark.parametrize("ties", TIES)
def test_kernels_merge_as_the_reference_does(ties):
    differing = 0
    for seed in range(60):
        text = words_that_tie(seed)
        found = learning.learn_merges([text], 60, (), GPT2_PATTERN, ties=ties).tolist()
        counts = reference.count_words([text], GPT2_PATTERN)
        assert [tuple(pair) for pair in found] == reference.train_merges(counts, 60, ties=ties), seed
        differing += found != learning.learn_merges([text], 60, (), GPT2_PATTERN).tolist()
    assert differing == 0 if ties == "lowest" else differing > 20


def test_greatest_is_the_rule_of_cs336():
    for seed in range(30):
        tokenizer = Tokenizer.train([words_that_tie(seed)], 296, (), ties="greatest")
        tokens = tokenizer.vocabulary.tokens
        found = [(tokens[left], tokens[right]) for left, right in tokenizer.vocabulary.merges]
        assert found == merges_by_brute_force(words_that_tie(seed), 40)[: len(found)]


def trained_by_tokenizers(texts, size, specials=()):
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=alphabet, special_tokens=list(specials)
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


@pytest.mark.parametrize("name", ["play", "code", "scripts"])
@pytest.mark.parametrize("specials", [(), ("<|endoftext|>", "<pad>")])
def test_huggingface_is_the_vocabulary_that_tokenizers_trains(name, specials, shakespeare, tmp_path):
    rng = random.Random(1)
    texts = {
        "play": [shakespeare],
        "code": [
            pathlib.Path(module.__file__).read_text(encoding="utf-8")
            for module in (random, pytest, learning, reference)
        ],
        "scripts": [
            "".join(chr(rng.randrange(0x3B1, 0x3C9) + rng.choice((0, 0x80, 0x4B00))) for _ in range(3000)),
            "été 12",
        ],
    }[name]
    size = 6000 if name == "play" else 900
    theirs = trained_by_tokenizers(texts, size, specials)
    ours = Tokenizer.train(texts, size, specials, ties="huggingface")
    ours.save(tmp_path)
    written = type(theirs).from_file(str(tmp_path / "tokenizer.json"))
    assert written.get_vocab() == theirs.get_vocab()
    for text in texts:
        assert written.encode(text).ids == theirs.encode(text).ids == ours.encode(text)


@pytest.mark.parametrize("form", FORMATS)
def test_the_rule_is_recorded(form, tmp_path):
    text = "the cat sat on the mat, the rat sat"
    for ties in TIES:
        tokenizer = Tokenizer.train([text], 280, ties=ties)
        tokenizer.save(tmp_path / ties, form)
        again = Tokenizer.load(tmp_path / ties)
        assert again.vocabulary.ties == tokenizer.vocabulary.ties == ties
        assert again.identity == tokenizer.identity and again.encode(text) == tokenizer.encode(text)


def test_another_rule_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match="no such rule"):
        Tokenizer.train(["abc"], 258, ties="first")
    Tokenizer.train(["abcabc"], 258).save(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"lowest"', '"first"'))
    with pytest.raises(VocabError, match="ties"):
        Tokenizer.load(tmp_path)
