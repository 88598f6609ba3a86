"""The steps of other models' ``tokenizer.json``: the ids of ``tokenizers``, for files that the library itself wrote."""

import json
import random
import unicodedata

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gpt_numpy.errors import TokenizerError, VocabError
from gpt_numpy.inference.text import encode_prompts, start_of_text
from gpt_numpy.tokenizer import Tokenizer
from gpt_numpy.tokenizer.formats.pipeline import DIGITS
from gpt_numpy.tokenizer.pretokenize import GPT2_PATTERN
from tests.tokenizer.pieces import PIECES
from tests.tokenizer.test_automaton import PATTERNS

KINDS = ("qwen", "llama3", "smollm2", "digits", "nfc")
ALL_PIECES = [
    *PIECES,
    *("e\u0301", "a\u0301\u0323", "\u1100\u1161\u11a8", "\u2003", "\u0301", "\u212b", "\ufb01", "\u2126", "ſ"),
    *("<|x|>", "<tool>", "x>", "\u0c3c", "\u1611e", "\u0d3b"),
]
BLOCKS = [(0x20, 0x250), (0x300, 0x370), (0x900, 0xE00), (0x1100, 0x1200), (0x1E00, 0x2200), (0xAC00, 0xAD00)]


def texts(n, seed):
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        if rng.random() < 0.3:
            codes = [rng.randrange(*rng.choice(BLOCKS)) for _ in range(rng.randint(1, 12))]
            made.append("".join(c for c in map(chr, codes) if unicodedata.category(c) != "Cn"))
        else:
            made.append("".join(rng.choices(ALL_PIECES, k=rng.randint(1, 12))))
    return made


def library(kind, size=700):
    """A tokenizer of ``tokenizers`` with the steps of a published one, trained on ``texts``."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first = {
        "qwen": pre_tokenizers.Split(Regex(PATTERNS["qwen2"]), "isolated"),
        "llama3": pre_tokenizers.Split(Regex(PATTERNS["llama3"]), "isolated"),
        "smollm2": pre_tokenizers.Digits(individual_digits=True),
        "digits": pre_tokenizers.Digits(individual_digits=False),
        "nfc": None,
    }[kind]
    if kind in ("qwen", "llama3"):
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = byte_level if first is None else pre_tokenizers.Sequence([first, byte_level])
    made.decoder = decoders.ByteLevel()
    if kind in ("qwen", "nfc"):
        made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|begin|>", "<|x|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    made.train_from_iterator(texts(2000, 1), trainer)
    made.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("x>", normalized=True)])
    if kind == "llama3":
        begin = processors.TemplateProcessing(
            single="<|begin|> $A",
            pair="<|begin|> $A <|begin|> $B",
            special_tokens=[("<|begin|>", made.token_to_id("<|begin|>"))],
        )
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    return made


def load(made, folder):
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def compare(theirs, ours, samples):
    expected = [row.ids for row in theirs.encode_batch(samples, add_special_tokens=False)]
    assert ours.encode_batch(samples, allowed_special="all") == expected
    assert [ids.tolist() for ids in ours.encode_batch_to_arrays(samples, allowed_special="all")] == expected
    assert ours.encode_batch([text.encode() for text in samples], allowed_special="all") == expected
    for text, ids in zip(samples[:300], expected):
        assert ours.encode(text, allowed_special="all") == ids
        assert ours.encode_to_array(text, allowed_special="all").tolist() == ids
        assert ours.encode(text, allowed_special="all", add_special_tokens=True) == theirs.encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids_and_the_same_file_again(kind, tmp_path):
    theirs = library(kind)
    ours = load(theirs, tmp_path / "one")
    samples = texts(1500, 2)
    compare(theirs, ours, samples)
    ours.save(tmp_path / "two")
    again = Tokenizer.load(tmp_path / "two")
    assert again.vocabulary == ours.vocabulary and again.identity == ours.identity
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "two" / "tokenizer.json"))
    expected = [row.ids for row in theirs.encode_batch(samples)]
    assert [row.ids for row in written.encode_batch(samples)] == expected
    assert written.decode(expected[0]) == theirs.decode(expected[0])


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_many_texts(kind, tmp_path):
    compare(theirs := library(kind, 900), load(theirs, tmp_path), texts(100_000, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_the_folder(kind, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    theirs = library(kind)
    load(theirs, tmp_path / "one").save(tmp_path / "two")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "two")
    for text in texts(200, 4):
        assert opened(text)["input_ids"] == theirs.encode(text).ids, text


@pytest.mark.parametrize("kind", ["qwen", "llama3"])
@pytest.mark.parametrize("form", ["openai", "tiktoken"])
def test_other_forms_keep_the_steps(kind, form, tmp_path):
    ours = load(library(kind), tmp_path / "one")
    ours.save(tmp_path / "two", form)
    again = Tokenizer.load(tmp_path / "two")
    assert again.identity == ours.identity and again.begin_ids == ours.begin_ids


def test_every_step_is_part_of_the_identity(tmp_path):
    plain = library("nfc")
    plain.normalizer = normalizers.Sequence([])
    found = {load(plain, tmp_path / "plain").identity}
    for n, change in enumerate(
        [
            lambda c: c.update(normalizer={"type": "NFC"}),
            lambda c: c["model"].update(ignore_merges=True),
            lambda c: c["pre_tokenizer"].update(add_prefix_space=True),
            lambda c: c.update(
                pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits"}, c["pre_tokenizer"]]}
            ),
            lambda c: c.update(post_processor=json.loads(library("llama3").to_str())["post_processor"]),
        ]
    ):
        content = json.loads(plain.to_str())
        change(content)
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        found.add(Tokenizer.load(tmp_path).identity)
        assert len(found) == n + 2


def pairs_of_all_tokens(content):
    """As in Llama 3's file: all pairs of tokens that make a token, in the order of ids."""
    vocab = content["model"]["vocab"]
    merges = []
    for token in sorted(vocab, key=vocab.get):
        found = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in vocab and token[i:] in vocab]
        merges += sorted(found, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    content["model"]["merges"] = [list(pair) for pair in merges]


def without_some_merges(content):
    """Merges whose token is no part of another one, every other of them: their tokens are made by none."""
    merges = [tuple(merge) for merge in content["model"]["merges"]]
    used = {part for merge in merges for part in merge}
    content["model"]["merges"] = [m for n, m in enumerate(merges) if "".join(m) in used or n % 2]


@pytest.mark.parametrize("change, whole", [(pairs_of_all_tokens, False), (without_some_merges, True)])
def test_llama_3s_merges(change, whole, tmp_path):
    content = json.loads(library("llama3").to_str())
    before = len(content["model"]["merges"])
    change(content)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    ours = load(theirs, tmp_path)
    assert bool(ours.whole_words) == whole and len(content["model"]["merges"]) != before
    if change is pairs_of_all_tokens:
        assert len(ours.vocabulary.merges) == before
    compare(theirs, ours, texts(1500, 5))
    ours.save(tmp_path / "again")
    compare(tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json")), ours, texts(300, 6))
    content["model"]["ignore_merges"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    if whole:
        with pytest.raises(VocabError, match="no merge makes the token"):
            Tokenizer.load(tmp_path)
    else:
        compare(tokenizers.Tokenizer.from_str(json.dumps(content)), Tokenizer.load(tmp_path), texts(300, 7))


def test_streams_are_normalised_as_a_whole(tmp_path):
    theirs = library("nfc")
    theirs.save(str(tmp_path / "all.json"))
    content = json.loads(theirs.to_str())
    content["added_tokens"] = [entry for entry in content["added_tokens"] if not entry["normalized"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours, rng = Tokenizer.load(tmp_path), random.Random(8)
    text = "".join(texts(400, 9))
    chunks = []
    while (at := sum(map(len, chunks))) < len(text):
        chunks.append(text[at : at + rng.choice([1, 1, 2, 5, 40])])
    expected = ours.encode(text, allowed_special="all")
    assert [i for ids in ours.encode_stream(chunks, allowed_special="all") for i in ids.tolist()] == expected
    assert len(list(ours.encode_stream(chunks, allowed_special="all"))) > 20  # in bounded memory
    with pytest.raises(TokenizerError, match="stream"):
        list(Tokenizer.load(tmp_path / "all.json").encode_stream(["a"]))
    with pytest.raises(TokenizerError, match="merges alone"):
        ours.encode_bytes(b"a")


def test_positions_are_those_of_the_text_itself(tmp_path):
    ours = load(library("qwen"), tmp_path)
    with pytest.raises(TokenizerError, match=r"offset 4: .*<\|x\|>"):
        ours.encode("e\u0301e\u0301<|x|>")
    with pytest.raises(TokenizerError, match="offset 4"):
        ours.encode("e\u0301e\u0301\ud800")


def test_what_stands_in_front_of_a_text(tmp_path):
    ours = load(library("llama3"), tmp_path / "one")
    begin = ours.special_tokens["<|begin|>"]
    assert ours.begin_ids == start_of_text(ours) == [begin]
    assert ours.encode("the") == ours.encode("the", add_special_tokens=True)[1:]
    assert encode_prompts(ours, ["the", [5, 6]]) == [[begin, *ours.encode("the")], [5, 6]]
    assert load(library("qwen"), tmp_path / "two").begin_ids == []


@pytest.mark.parametrize("single, pattern", DIGITS.items())
def test_digits_are_a_pattern(single, pattern):
    words = pre_tokenizers.Sequence([pre_tokenizers.Digits(single), pre_tokenizers.ByteLevel(False)])
    from gpt_numpy.tokenizer.pretokenize import split

    for text in texts(2000, 10):
        spans = [span for _, span in words.pre_tokenize_str(text)]
        assert split(text, pattern) == [text[start:stop] for start, stop in spans], text
    assert pattern != GPT2_PATTERN


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["post_processor"]["single"].reverse(), "post_processor: adds tokens elsewhere"),
        (lambda c: c["post_processor"].update(single=3), "post_processor: adds tokens elsewhere"),
        (lambda c: c["post_processor"].update(special_tokens={}), "special_tokens: not a special token of the file"),
        (lambda c: c["post_processor"]["special_tokens"]["<|begin|>"].update(ids=[5]), "not a special token"),
        (lambda c: c["post_processor"].update(type="RobertaProcessing"), "post_processor: is unknown"),
        (lambda c: c.update(post_processor=3), "post_processor: is unknown"),
        (lambda c: c["model"].update(byte_fallback=True), "a vocabulary of SentencePiece"),
        (lambda c: c.update(normalizer={"type": "Prepend", "prepend": "_"}), "has a normalizer that is not supported"),
        (
            lambda c: (c.update(normalizer={"type": "NFC"}), c["added_tokens"][0].update(normalized=True)),
            "normalised text",
        ),
        (lambda c: c["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits"}), "not a split by one pattern"),
    ],
)
def test_steps_that_are_refused(change, message, tmp_path):
    content = json.loads(library("llama3", 300).to_str())
    content["post_processor"] = content["post_processor"]["processors"][1]
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(VocabError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_removed_split_that_keeps_its_matches(tmp_path):
    content = json.loads(library("llama3", 300).to_str())
    content["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed", invert=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    compare(tokenizers.Tokenizer.from_str(json.dumps(content)), Tokenizer.load(tmp_path), texts(300, 11))
