import json

import pytest

from gpt_numpy.errors import VocabError
from gpt_numpy.tokenizer import Tokenizer


@pytest.fixture()
def folder(tmp_path):
    Tokenizer.train("the theme", 258, special_tokens=("<|endoftext|>",)).save(tmp_path, form="openai")
    return tmp_path


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pattern": 3}, "pattern: not a pattern: found 3"),
        ({"pattern": "("}, "pattern: .*does not compile"),
        ({"added_tokens_decoder": []}, "added_tokens_decoder: not a table"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "added_tokens_decoder.x: not an id"),
        ({"added_tokens_decoder": {"-1": {"content": "a"}}}, "added_tokens_decoder.-1: not an id"),
        ({"added_tokens_decoder": {"257": "a"}}, "added_tokens_decoder.257: not an added token"),
        ({"added_tokens_decoder": {"257": {"content": ""}}}, "added_tokens_decoder.257: not an added token"),
        (
            {"added_tokens_decoder": {"300": {"content": "<|y|>"}}},
            "is not in the vocabulary: found 300; expected its next",
        ),
        ({"added_tokens_decoder": {"256": {"content": "<|endoftext|>"}}}, "has another id in the vocabulary .257."),
        ({"added_tokens_decoder": {"257": {"content": "<|endoftext|>", "lstrip": True}}}, "257: lstrip is set"),
        (
            {"added_tokens_decoder": {"257": {"content": "a"}, "0257": {"content": "b"}}},
            "same special token or id twice",
        ),
    ],
)
def test_bad_settings(folder, change, message):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
    with pytest.raises(VocabError, match=f"tokenizer_config.json.*{message}"):
        Tokenizer.load(folder)


def test_settings_of_other_programs(folder):
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    assert Tokenizer.load(folder).special_tokens == {"<|endoftext|>": 257}
