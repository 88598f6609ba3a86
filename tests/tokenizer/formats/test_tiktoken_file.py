import base64
import os

import pytest

from gpt_numpy.errors import VocabError
from gpt_numpy.tokenizer import Tokenizer
from gpt_numpy.tokenizer.formats.tiktoken_file import format_tiktoken
from gpt_numpy.tokenizer.vocabulary import Vocabulary, from_merges

TEXT = "the theme of the thesis\n"


@pytest.fixture()
def folder(tmp_path):
    Tokenizer.train(TEXT, 262).save(tmp_path, "tiktoken")
    return tmp_path


def row(token, rank):
    return base64.b64encode(token).decode() + f" {rank}\n"


def test_tiktoken_reads_it(folder):
    load = pytest.importorskip("tiktoken.load")
    tokenizer = Tokenizer.load(folder)
    ranks = load.load_tiktoken_bpe(str(folder / "ranks.tiktoken"))
    assert ranks == {token: i for i, token in enumerate(tokenizer.vocabulary.tokens[:261])}


def test_every_truncation_is_an_error(folder):
    path = folder / "ranks.tiktoken"
    for n in reversed(range(path.stat().st_size)):
        os.truncate(path, n)
        with pytest.raises(
            VocabError,
            match=r"ranks.tiktoken, line \d+: (the last line does not end|empty)|"
            r"ranks.tiktoken(, line \d+|): no token|have the same id",
        ):
            Tokenizer.load(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.replace("\n", "\r\n"), "line 1: not a rank"),
        (lambda s: "\ufeff" + s, "line 1: begins with a byte-order mark"),
        (lambda s: s + "\n", "line 262: not a rank"),
        (lambda s: s + "YQ==\n", "line 262: not a rank"),
        (lambda s: s + "Y!Q== 261\n", "line 262: not a rank"),
        (lambda s: s + "YWE -1\n", "line 262: not a rank"),
        (lambda s: s + " 261\n", "line 262: not a rank"),
        (lambda s: s + "YWE= " + "9" * 30 + "\n", "line 262: not a rank"),
        (lambda s: s + row(b"a", 262), "line 262: the token of line 98 again: found 'a'"),
        (
            lambda s: s + row(b"zz", 262).replace("262", "1"),
            r"line 262: '\\u0101'|line 262: 'ā' and 'zz' have the same id",
        ),
        (lambda s: s + row(b"zz", 1000), "line 262: no token has the id 262, yet 'zz' has 1000"),
        (lambda s: s + row(b"zzz", 262), "line 262, id 262: lower ranks leave 3 parts of 'zzz'"),
        (lambda s: s.replace(row(b"a", 97), row(b"zz", 97)), "no token for the byte 0x61"),
    ],
)
def test_faults(folder, change, message):
    path = folder / "ranks.tiktoken"
    path.write_bytes(change(path.read_bytes().decode()).encode())
    with pytest.raises(VocabError, match=f"ranks.tiktoken.*(?:{message})"):
        Tokenizer.load(folder)


def test_ranks_without_settings(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(VocabError, match="expected tokenizer_config.json with added_tokens_decoder"):
        Tokenizer.load(folder)


def test_merges_that_ranks_cannot_express():
    fresh = from_merges([(97, 98), (98, 99)], (), "a|.")
    tokens = (*fresh.tokens[:256], b"bc", b"ab")
    swapped = Vocabulary(tokens, fresh.merges, {}, "a|.")
    with pytest.raises(VocabError, match="do not follow from the order of ids"):
        format_tiktoken(swapped)
