"""Added tokens, special and plain, and the prefix space of other people's folders: what `tokenizers` gives."""

import json

import pytest

from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.tokenizer import Tokenizer, load_tokenizer

TEXTS = [
    "buy bitcoin now",
    "bitcoin",
    "bitcoinbitcoin cash bitcoi n",
    " the  theatre\nother",
    "",
    " ",
    "a<|pad|>b bitcoin",
    "\nbitcoin\n the",
    "<|endoftext|>the<|endoftext|> the",
]


@pytest.fixture(scope="module")
def small():
    words = ["the theatre and the other bit of coin in a small box of the old town hall, seen from far"]
    return Tokenizer.train(words * 20, 300)


@pytest.fixture
def folder(small, tmp_path):
    small.save(tmp_path)
    return tmp_path


def change(path, function):
    content = json.loads(path.read_text(encoding="utf-8"))
    function(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def as_theirs(folder):
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def entry(text, i, special):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {"id": i, "content": text, **flags, "special": special}


def with_added(folder, *entries, prefix=False):
    def both(content):
        content["added_tokens"] += entries
        content["pre_tokenizer"]["add_prefix_space"] = prefix

    change(folder / "tokenizer.json", both)
    change(folder / "tokenizer_config.json", lambda c: c.update(add_prefix_space=prefix))
    return Tokenizer.load(folder)


@pytest.mark.parametrize("prefix", [False, True])
def test_plain_tokens_and_the_prefix_space_are_those_of_tokenizers(folder, small, prefix):
    n = small.n_vocab
    tokenizer = with_added(folder, entry("bitcoin", n, False), entry(" cash", n + 1, False), prefix=prefix)
    theirs = as_theirs(folder)
    assert n in tokenizer.encode("buy bitcoin now")
    for text in TEXTS:
        expected = theirs.encode(text).ids
        assert tokenizer.encode(text, allowed_special="all") == expected, text
        assert tokenizer.encode_batch([text, text], allowed_special="all") == [expected] * 2
        assert tokenizer.encode_to_array(text, allowed_special="all").tolist() == expected
        for size in (1, 3, 1000):
            chunks = [text[i : i + size] for i in range(0, len(text), size)]
            parts = tokenizer.encode_stream(chunks, allowed_special="all")
            assert [i for part in parts for i in part.tolist()] == expected, (text, size)
        if "<|endoftext|>" not in text:
            assert tokenizer.encode(text) == tokenizer.encode_ordinary(text) == expected
        if not prefix:
            assert tokenizer.decode(expected) == text


def test_added_tokens_survive_every_form(folder, small, tmp_path):
    n = small.n_vocab
    tokenizer = with_added(folder, entry("bitcoin", n, False), entry("<|pad|>", n + 1, True), prefix=True)
    assert tokenizer.special_tokens == {"<|endoftext|>": n - 1, "<|pad|>": n + 1}
    for form in ("huggingface", "openai", "tiktoken"):
        tokenizer.save(tmp_path / form, form)
        again = Tokenizer.load(tmp_path / form)
        assert again.identity == tokenizer.identity
        assert again.encode("a bitcoin<|pad|>", allowed_special="all") == tokenizer.encode(
            "a bitcoin<|pad|>", allowed_special="all"
        )
    (tmp_path / "huggingface" / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path / "huggingface").identity == tokenizer.identity


def test_a_plain_token_is_refused_where_it_is_named(folder, small):
    tokenizer = with_added(folder, entry("bitcoin", small.n_vocab, False))
    with pytest.raises(TokenizerError, match="'bitcoin'"):
        tokenizer.encode("buy bitcoin", disallowed_special={"bitcoin"})
    assert tokenizer.encode("bitcoin", allowed_special={"bitcoin"}) == [small.n_vocab]


def test_a_plain_token_may_be_one_that_merges_make(folder, small):
    made = next(i for i, token in enumerate(small.vocabulary.tokens) if token.isalpha() and len(token) > 1)
    text = small.decode([made])
    tokenizer = with_added(folder, entry(text, made, False))
    theirs = as_theirs(folder)
    for sample in [*TEXTS, f"x{text}{text}y", f"{text} {text}"]:
        assert tokenizer.encode(sample, allowed_special="all") == theirs.encode(sample).ids


def without_settings(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def test_added_tokens_json(folder, small):
    without_settings(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<|pad|>": 300}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("a<|pad|>b", allowed_special="all") == [97, 300, 98]
    assert tokenizer.eot_id == small.eot_id
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|pad|>"}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.special_tokens == {"<|endoftext|>": 299, "<|pad|>": 300}
    with pytest.raises(TokenizerError, match="special token"):
        tokenizer.encode("a<|pad|>b")
    (folder / "added_tokens.json").write_text(json.dumps({"<|pad|>": 302}))
    with pytest.raises(VocabError, match="is not in the vocabulary: found 302; expected its next id, 300"):
        load_tokenizer(folder)


@pytest.mark.parametrize("form", ["text", "object"])
def test_special_tokens_of_a_byte_level_trainer_are_read_from_their_map(tmp_path, form):
    """The layout of ``ByteLevelBPETokenizer.save_model``: special tokens have the first ids of vocab.json."""
    tokenizers = pytest.importorskip("tokenizers")
    trainer = tokenizers.ByteLevelBPETokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(["the theatre and the other " * 20], vocab_size=290, special_tokens=names)
    trainer.save_model(str(tmp_path))
    with pytest.raises(VocabError, match="special token that nothing declares"):
        load_tokenizer(tmp_path)
    roles = ["bos_token", "pad_token", "eos_token", "unk_token", "mask_token"]
    table = {role: name if form == "text" else {"content": name, "lstrip": False} for role, name in zip(roles, names)}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(table))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens == {name: i for i, name in enumerate(names)}
    for text in ("the theatre<mask> other</s>", "<s>a</s>"):
        assert tokenizer.encode(text, allowed_special="all") == trainer.encode(text).ids
    assert (tokenizer.eot_id, tokenizer.end_of_text) == (2, "</s>")
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").eot_id == 2
    table["mask_token"] = {"content": "<mask>", "lstrip": True}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(table))
    with pytest.raises(VocabError, match="mask_token: lstrip is set"):
        load_tokenizer(tmp_path)


def test_a_name_does_not_make_an_ordinary_token_special(folder, small):
    without_settings(folder)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!", "eos_token": "<|endoftext|>"}))
    assert load_tokenizer(folder).identity == small.identity


def test_a_prefix_space_beside_vocab_json(folder, small):
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", lambda c: c.update(add_prefix_space=True))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("the") == small.encode(" the") != small.encode("the")
    assert tokenizer.identity != small.identity
    change(folder / "tokenizer_config.json", lambda c: c.update(add_prefix_space="yes"))
    with pytest.raises(VocabError, match="add_prefix_space: not a truth value"):
        load_tokenizer(folder)
