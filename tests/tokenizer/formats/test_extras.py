"""Entries and files of other programs beside a tokenizer: kept as they are, and none of them decides an id."""

import copy
import json
import pickle

import pytest

from gpt_numpy.errors import VocabError
from gpt_numpy.tokenizer import Tokenizer, load_tokenizer
from gpt_numpy.tokenizer.formats.folders import FORMATS

FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
SETTINGS = {
    "chat_template": "{% for message in messages %}<|im_start|>{{ message['content'] }}\n{% endfor %}",
    "bos_token": None,
    "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", **FLAGS, "special": True},
    "pad_token": "<|endoftext|>",
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "model_max_length": 32768,
    "padding_side": "left",
    "errors": "replace",
    "nested": {"deep": [1, 2.5, None, {"é": True}]},
}
TEMPLATE = "{{ bos }}\r\n\u2028é".encode()


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer.train(["the theatre and the other"], 280, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    own = json.loads(path.read_text())
    own = {name: value for name, value in own.items() if not name.endswith("_token")}
    path.write_text(json.dumps(own | SETTINGS), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_bytes(TEMPLATE)
    return tmp_path


@pytest.mark.parametrize("form", FORMATS)
def test_they_are_written_again_in_every_form(folder, tmp_path, form):
    first = Tokenizer.load(folder)
    for tokenizer in (first, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        tokenizer.save(tmp_path / form, form)
        again = Tokenizer.load(tmp_path / form)
        assert again.identity == first.identity and again.vocabulary == first.vocabulary
        assert (again.end_of_text, again.special_tokens) == (first.end_of_text, first.special_tokens)
        again.save(tmp_path / "twice", form)
        for place in (tmp_path / form, tmp_path / "twice"):
            written = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
            assert SETTINGS.items() <= written.items()
            assert written["unk_token"] is None  # transformers' GPT2Tokenizer would add a token for a missing name
            assert (place / "chat_template.jinja").read_bytes() == TEMPLATE


def test_roles_of_the_older_file(folder, tmp_path):
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    roles = {name: settings.pop(name) for name in ("bos_token", "eos_token", "pad_token", "additional_special_tokens")}
    path.write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    load_tokenizer(folder).save(tmp_path / "new")
    assert roles.items() <= json.loads((tmp_path / "new" / "tokenizer_config.json").read_text()).items()


def test_they_decide_no_id(folder, tmp_path):
    with_them = Tokenizer.load(folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    names = [name for name in SETTINGS if name not in ("eos_token", "additional_special_tokens")]
    rest = {name: value for name, value in settings.items() if name not in names}
    (folder / "tokenizer_config.json").write_text(json.dumps(rest))
    assert Tokenizer.load(folder).identity == with_them.identity


@pytest.mark.parametrize("adds", [None, False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_a_bos_token_that_is_added(folder, tmp_path, form, adds):
    """Without a tokenizer.json the setting decides; with one, the file itself does, as in transformers."""
    Tokenizer.load(folder).save(tmp_path / form, form)
    path = tmp_path / form / "tokenizer_config.json"
    bos = {"bos_token": {"content": "<|im_start|>"}, "add_bos_token": adds}
    path.write_text(json.dumps(json.loads(path.read_text()) | bos))
    tokenizer = Tokenizer.load(tmp_path / form)
    expected = [tokenizer.special_tokens["<|im_start|>"]] if adds and form != "huggingface" else []
    assert tokenizer.begin_ids == expected
    if form == "huggingface":
        (tmp_path / form / "tokenizer.json").unlink()
        assert len(Tokenizer.load(tmp_path / form).begin_ids) == bool(adds)
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").begin_ids == tokenizer.begin_ids
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": "yes"}))
    with pytest.raises(VocabError, match="add_bos_token"):
        Tokenizer.load(tmp_path / form)


@pytest.mark.parametrize("adds", [None, False, True])
def test_the_bos_token_of_transformers(folder, adds):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    (folder / "tokenizer.json").unlink()
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"bos_token": "<|im_start|>", "add_bos_token": adds}
    if adds is None:
        del settings["add_bos_token"]
    path.write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    assert theirs("the other")["input_ids"] == ours.encode("the other", add_special_tokens=True)
    assert len(ours.begin_ids) == bool(adds)
