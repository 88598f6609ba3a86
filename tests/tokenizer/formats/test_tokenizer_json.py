import json
import os

import pytest

from gpt_numpy.errors import VocabError
from gpt_numpy.tokenizer import Tokenizer

TEXT = "the theme of the thesis\n"


@pytest.fixture()
def path(tmp_path):
    Tokenizer.train(TEXT, 260).save(tmp_path)
    return tmp_path / "tokenizer.json"


def load_changed(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.load(path)


def split_steps(**changes):
    step = {"type": "Split", "pattern": {"Regex": "a|."}, "behavior": "Isolated", "invert": False, **changes}
    return {"type": "Sequence", "pretokenizers": [step, {"type": "ByteLevel", "use_regex": False}]}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("model"), "model: not a tokenizer.json"),
        (lambda c: c["model"].update(type="Unigram"), "model.type: another kind of model: found 'Unigram'"),
        (lambda c: c["model"].update(dropout=0.1), "model.dropout: is set"),
        (lambda c: c["model"].update(byte_fallback=True), "model.byte_fallback: is set"),
        (lambda c: c["model"].update(end_of_word_suffix="</w>"), "model.end_of_word_suffix: is set"),
        (lambda c: c["model"].update(vocab=[]), "not a table of tokens"),
        (lambda c: c["model"]["vocab"].pop("a"), "no token has the id 97"),
        (lambda c: c["model"]["vocab"].update(zz=260), r"line \d+, id 260: no merge makes the token 'zz'"),
        (lambda c: c["model"].update(merges={}), "merges: not a list"),
        (lambda c: c["model"]["merges"].append("h e"), r"model.merges\[3\]: a merge for the second time, after 0"),
        (
            lambda c: c["model"]["merges"].append("t h"),
            r"model.merges\[3\]: makes 'th', which is not in the vocabulary",
        ),
        (lambda c: c["model"]["merges"].append("th e"), r"model.merges\[3\]: a merge of an unknown token: found 'th'"),
        (lambda c: c["model"]["merges"].append(["h", 3]), r"model.merges\[3\]: a merge of an unknown token: found 3"),
        (lambda c: c["model"]["merges"].append({"h": 1, "t": 2}), r"model.merges\[3\]: not a merge"),
        (lambda c: c["model"]["merges"].append("h"), r"model.merges\[3\]: not a merge"),
        (lambda c: c["model"]["merges"].pop(0), r"model.merges\[0\]: merges 'he', which neither"),
        (lambda c: c.update(normalizer={"type": "NFKC"}), "normalizer: has a normalizer"),
        (lambda c: c.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 2}), "has a normalizer"),
        (lambda c: c.update(normalizer=["NFC"]), "normalizer: has a normalizer"),
        (lambda c: c.update(post_processor={"type": "TemplateProcessing"}), "post_processor: adds tokens"),
        (lambda c: c.update(pre_tokenizer=None), "pre_tokenizer: not byte-level"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer: not byte-level"),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space: tokenizer_config.json beside"),
        (lambda c: c["pre_tokenizer"].update(use_regex=False), "pre_tokenizer: not a split by one pattern"),
        (lambda c: c.update(pre_tokenizer=split_steps(invert=True)), "pre_tokenizer: not a split by one pattern"),
        (
            lambda c: c.update(pre_tokenizer=split_steps(behavior="Removed")),
            "pre_tokenizer: not a split by one pattern",
        ),
        (lambda c: c.update(pre_tokenizer=split_steps(pattern={"String": "a"})), "pre_tokenizer: not a pattern"),
        (lambda c: c.update(pre_tokenizer=split_steps(pattern={"Regex": "("})), "pre_tokenizer: .*does not compile"),
        (lambda c: c.update(added_tokens=3), "added_tokens: not a list"),
        (lambda c: c["added_tokens"].append(3), r"added_tokens\[1\]: not an added token"),
        (lambda c: c["added_tokens"].append({"id": True, "content": "x"}), r"added_tokens\[1\]: not an added token"),
        (
            lambda c: c["added_tokens"].append({"id": 300, "content": "xy"}),
            "special token 'xy' is not in the vocabulary",
        ),
        (lambda c: c["added_tokens"][0].update(id=5), "has another id in the vocabulary"),
        (lambda c: c["added_tokens"][0].update(rstrip=True), r"added_tokens\[0\]: rstrip is set"),
        (lambda c: c.update(added_tokens=[]), "line .*id 259: the token '<.endoftext.>' is neither|no merge makes"),
    ],
)
def test_faults(path, change, message):
    with pytest.raises(VocabError, match=f"tokenizer.json(, |: ).*(?:{message})"):
        load_changed(path, change)


def test_an_added_token_beside_the_model(path):
    def move(content):
        del content["model"]["vocab"]["<|endoftext|>"]

    assert load_changed(path, move).special_tokens == {"<|endoftext|>": 259}


def test_merges_as_pairs(path):
    before = Tokenizer.load(path).vocabulary

    def pairs(content):
        content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]

    assert load_changed(path, pairs).vocabulary == before


def test_another_pattern(path):
    tokenizer = load_changed(path, lambda content: content.update(pre_tokenizer=split_steps()))
    assert tokenizer.vocabulary.pattern == "a|."


def test_every_truncation_is_an_error(path):
    for n in reversed(range(path.stat().st_size)):
        os.truncate(path, n)
        with pytest.raises(VocabError, match=r"tokenizer.json, line \d+: not (JSON|UTF-8)"):
            Tokenizer.load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"[" * 100_000, "line 1: nested deeper than"),
        (b'{"model":\n' * 100_000, "line 65: nested deeper than"),
        (b'{"model": {"vocab": {"a": 0,\n"b": 1,\n"a": 2}}}', "line 3: the same key twice: found 'a'"),
        (b'{"model": NaN}', "NaN is not a JSON value"),
        (b"[]", "model: not a tokenizer.json"),
    ],
)
def test_bad_json(path, content, message):
    path.write_bytes(content)
    with pytest.raises(VocabError, match=f"tokenizer.json.*{message}"):
        Tokenizer.load(path)
