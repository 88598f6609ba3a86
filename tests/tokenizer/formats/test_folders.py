"""Round trips through every form, and the same ids from the programs whose forms they are."""

import json
import os
import subprocess
import sys

import pytest

from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer, load_tokenizer
from gpt_numpy.tokenizer.formats.folders import FORMATS
from gpt_numpy.tokenizer.vocabulary import Vocabulary

TEXT = "the theme of the thesis\n"
SPECIALS = ("<|endoftext|>", "<|ü 🙂|>")
PATTERN = r"\S+|\s+"


def special_first(special_tokens=SPECIALS):
    """A vocabulary numbered as others do it: special tokens first, bytes backwards, merges last."""
    fresh = Tokenizer.train(TEXT, 268, special_tokens=special_tokens).vocabulary
    order = [*fresh.special_tokens.values(), *range(255, -1, -1), *fresh.merged_ids]
    new = {old: i for i, old in enumerate(order)}
    return Tokenizer(
        Vocabulary(
            tuple(fresh.tokens[old] for old in order),
            tuple((new[left], new[right]) for left, right in fresh.merges),
            {text: new[i] for text, i in fresh.special_tokens.items()},
        )
    )


TOKENIZERS = {
    "fresh": lambda: Tokenizer.train(TEXT, 267, special_tokens=SPECIALS),
    "no specials": lambda: Tokenizer.train("<|endoftext|> " * 9, 267, special_tokens=()),
    "own pattern": lambda: Tokenizer.train(TEXT, 266, special_tokens=SPECIALS, pattern=PATTERN),
    "specials first": special_first,
    "bytes only": lambda: Tokenizer.train(TEXT, 256, special_tokens=()),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_round_trips(make, form, tmp_path):
    tokenizer = make()
    tokenizer.save(tmp_path / "a" / "b", form)
    loaded = Tokenizer.load(tmp_path / "a" / "b")
    assert loaded.vocabulary == tokenizer.vocabulary
    assert isinstance(load_tokenizer(tmp_path / "a" / "b"), Tokenizer)
    text = TEXT + "".join(tokenizer.special_tokens)
    assert loaded.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")


def test_each_huggingface_file_is_enough(tmp_path):
    tokenizer = TOKENIZERS["fresh"]()
    tokenizer.save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocabulary == tokenizer.vocabulary
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path).vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize("form", FORMATS)
def test_gpt2_round_trips(gpt2, tmp_path, form):
    gpt2.save(tmp_path, form)
    assert Tokenizer.load(tmp_path).vocabulary == gpt2.vocabulary


def test_openais_own_files_come_back_byte_for_byte(gpt2, test_data, tmp_path):
    gpt2.save(tmp_path, "openai")
    for name, published in zip(("encoder.json", "vocab.bpe"), test_data("gpt2-vocabulary")):
        assert (tmp_path / name).read_bytes() == published.read_bytes()


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_tokenizers_opens_ours(make, tmp_path, awkward_strings):
    tokenizers = pytest.importorskip("tokenizers")
    ours = make()
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == ours.n_vocab
    for text in [TEXT, "".join(ours.special_tokens), f"the{'<|ü 🙂|>' * 2}theme", *awkward_strings(200, 5)]:
        ids = ours.encode(text, allowed_special="all")
        assert theirs.encode(text).ids == ids, ascii(text)
        assert theirs.decode(ids, skip_special_tokens=False) == text
    pair = tokenizers.models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert tokenizers.Tokenizer(pair).get_vocab() == theirs.get_vocab()


def test_we_open_what_tokenizers_trained(tmp_path, awkward_strings):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.train_from_iterator(
        [TEXT * 3],
        tokenizers.trainers.BpeTrainer(
            vocab_size=270,
            special_tokens=["<|a|>", "<|endoftext|>"],
            show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    assert ours.special_tokens == {"<|a|>": 0, "<|endoftext|>": 1}
    for text in [TEXT, "the<|a|>the", *awkward_strings(200, 6)]:
        assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids, ascii(text)


TRANSFORMERS = """
import json, sys, transformers
transformers.logging.set_verbosity_error()
folder, texts = sys.argv[1], json.load(sys.stdin)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
tokenizer.save_pretrained(folder + "/again")
print(json.dumps([len(tokenizer), [tokenizer(text)["input_ids"] for text in texts]]))
"""


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_transformers_opens_ours(make, tmp_path):
    pytest.importorskip("transformers", reason="needs transformers")
    ours = make()
    ours.save(tmp_path)
    texts = [TEXT, "".join(ours.special_tokens), "the 12 thés' don't 🙂"]
    out = subprocess.run(
        [sys.executable, "-c", TRANSFORMERS, tmp_path],
        input=json.dumps(texts),
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ).stdout
    size, ids = json.loads(out)
    assert size == ours.n_vocab
    assert ids == [ours.encode(text, allowed_special="all") for text in texts]
    assert Tokenizer.load(tmp_path / "again").vocabulary == ours.vocabulary


def test_a_save_cut_short_leaves_one_tokenizer(tmp_path):
    """After the rename of each single file the folder is one tokenizer: the old one or the new one."""
    old, new = Tokenizer.train("aab", 258), Tokenizer.train("bba", 258)
    new.save(tmp_path / "new")
    old.save(tmp_path / "both")
    assert Tokenizer.load(tmp_path / "both").vocabulary == old.vocabulary
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        os.replace(tmp_path / "new" / name, tmp_path / "both" / name)
        assert Tokenizer.load(tmp_path / "both").vocabulary == new.vocabulary


def test_no_tokenizer_here(tmp_path):
    for load in (Tokenizer.load, load_tokenizer):
        with pytest.raises(VocabError, match="no tokenizer here: expected tokenizer.json, or vocab.json"):
            load(tmp_path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(VocabError, match="no tokenizer here"):
        load_tokenizer(tmp_path)


def test_an_unknown_form(tmp_path):
    with pytest.raises(TokenizerError, match="form: no such form: found 'pickle'; expected one of huggingface"):
        TOKENIZERS["fresh"]().save(tmp_path, "pickle")
    assert not os.listdir(tmp_path)


def test_the_other_kind_of_tokenizer(tmp_path):
    TOKENIZERS["fresh"]().save(tmp_path)
    with pytest.raises(VocabError, match="not the settings of a character-level tokenizer"):
        CharTokenizer.load(tmp_path)
