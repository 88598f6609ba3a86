import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.data.shards.preparing import prepare
from gpt_numpy.errors import ConfigError, DataError
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer
from gpt_numpy.training import resume, start
from gpt_numpy.training.plan.corpus import load_corpus, read_texts, token_bytes

ROOT = Path(__file__).parents[3]


def test_characters(tiny, text_file):
    corpus = load_corpus(tiny())
    text = corpus.tokenizer.decode(corpus.training) + corpus.tokenizer.decode(corpus.validation)
    assert text == text_file.read_text(encoding="utf-8")
    assert corpus.tokenizer.eot_id is None
    assert 0.05 < len(corpus.validation) / len(text) < 0.15


def test_documents_end_with_end_of_text(tiny, tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(f"document number {i}, ünd möre " * 3, encoding="utf-8")
    corpus = load_corpus(tiny(data=(str(tmp_path),), validation_fraction=0.25))
    eot = corpus.tokenizer.eot_id
    assert (corpus.training == eot).sum() + (corpus.validation == eot).sum() == 9
    assert corpus.training[-1] == corpus.validation[-1] == eot
    assert corpus.token_bytes[eot] == 0


def test_bpe_is_trained_on_the_training_text_and_covers_any(tiny, tmp_path):
    corpus = load_corpus(tiny(tokenizer="bpe", vocab_size=280))
    assert corpus.tokenizer.n_vocab == 280
    corpus.tokenizer.save(tmp_path / "tokenizer")
    again = load_corpus(tiny(tokenizer=str(tmp_path / "tokenizer")))
    assert again.fingerprint() == corpus.fingerprint()


def test_python_docs(tiny):
    corpus = load_corpus(tiny(data=("python-docs",), tokenizer="char"))
    assert len(corpus.training) > 300_000


def test_token_bytes():
    assert token_bytes(CharTokenizer.train(["aü🐈"], special_tokens=("<|endoftext|>",))).tolist() == [1, 2, 4, 0]
    trained = Tokenizer.train(["hello hello é 🐈🐈 🐈🐈"], 265, ["<|endoftext|>", "<|x|>"])
    expected = [len(trained.decode_bytes([i])) for i in range(trained.n_vocab)]
    expected[-2:] = [0, 0]
    assert trained.bytes_of_text().tolist() == expected and max(expected) >= 4
    text = "hello 🐈 é"
    assert trained.bytes_of_text()[trained.encode(text)].sum() == len(text.encode())


def test_what_needs_the_settings_alone_does_not_load_the_trainer():
    program = "import sys, gpt_numpy.commands.info; print('gpt_numpy.training.session' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_fingerprint_sees_every_token_and_the_split(tiny):
    corpus = load_corpus(tiny())
    changed = corpus.training.copy()
    changed[17] ^= 1
    moved = corpus._replace(
        training=np.concatenate([corpus.training, corpus.validation[:1]]), validation=corpus.validation[1:]
    )
    prints = {c.fingerprint() for c in (corpus, corpus._replace(training=changed), moved)}
    assert len(prints) == 3


def test_bad_sources(tiny, tmp_path):
    with pytest.raises(DataError, match="nothing-here"):
        load_corpus(tiny(data=(str(tmp_path / "nothing-here"),)))
    with pytest.raises(ConfigError, match="no such tokenizer"):
        load_corpus(tiny(tokenizer="bpee"))
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good text, then \xff\xfe not, " * 50)
    with pytest.raises(DataError, match="bad.txt"):
        load_corpus(tiny(data=(str(bad),)))
    assert load_corpus(tiny(data=(str(bad),), errors="replace")).training.size


def prepared(tmp_path, text_file, tokenizer, **options):
    from gpt_numpy.data.shards.preparing import Settings, prepare

    documents = tmp_path / "documents"
    documents.mkdir()
    for i, line in enumerate(text_file.read_text(encoding="utf-8").splitlines()[:60]):
        (documents / f"{i:02}.txt").write_text(line * 3, encoding="utf-8")
    prepare([str(documents)], tokenizer, tmp_path / "shards", Settings(validation_every=5, **options))
    return str(tmp_path / "shards")


@pytest.mark.parametrize("options", [{}, {"block_size": 32}])
def test_prepared_shards(tiny, tmp_path, text_file, options):
    tokenizer = Tokenizer.train([text_file.read_text(encoding="utf-8")], 300)
    folder = prepared(tmp_path, text_file, tokenizer, **options)
    settings = tiny(data=(folder,), tokenizer="bpe", order="epochs", documents="apart", max_steps=3)
    corpus = load_corpus(settings)
    assert corpus.tokenizer.n_vocab == 300 and corpus.row_length == (33 if options else 0)
    assert start(settings, tmp_path / "run").validation_loss > 0
    assert resume(tmp_path / "run", {"max_steps": 4}).step == 4
    if options:
        with pytest.raises(ConfigError, match="fitted into rows"):
            start(settings.replace(order="random"), tmp_path / "other")
    shard = next(path for path in sorted((tmp_path / "shards").iterdir()) if path.suffix == ".bin")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=shard.name):
        resume(tmp_path / "run", {"max_steps": 5})


def test_documents_apart_need_an_end_of_text(tiny, tmp_path):
    with pytest.raises(ConfigError, match="no end-of-text"):
        start(tiny(documents="apart"), tmp_path / "run")


def test_a_document_in_both_splits_is_told(tiny, tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text("the same words over and over again " * 3, encoding="utf-8")
    said = []
    load_corpus(tiny(data=(str(tmp_path),)), say=said.append)
    assert [line for line in said if "1 document of the validation text also in the training text" in line]


def test_stories_that_spell_out_end_of_text_are_documents(tiny, tmp_path):
    (tmp_path / "stories.txt").write_text("one story\n<|endoftext|>\nanother story\n" * 500)
    for tokenizer in ("bpe", "char"):
        corpus = load_corpus(tiny(data=(str(tmp_path / "stories.txt"),), tokenizer=tokenizer, vocab_size=300))
        tokens = np.concatenate([corpus.training, corpus.validation])
        assert (tokens == corpus.tokenizer.eot_id).sum() > 400
        text = load_corpus(
            tiny(data=(str(tmp_path / "stories.txt"),), tokenizer=tokenizer, vocab_size=300, specials="text")
        )
        assert "<|endoftext|>" in text.tokenizer.decode(text.training.tolist())


def test_a_separator_means_the_same_as_in_prepare(tiny, tmp_path):
    (tmp_path / "poems.txt").write_text("\n\n".join(f"poem {n}" for n in range(200)))
    for separator in ("\n\n", r"\n\n"):
        assert len(read_texts(tiny(data=(str(tmp_path / "poems.txt"),), separator=separator))) == 200


def test_the_split_has_its_own_seed(tiny, tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"document {number} of some words\n" * (number % 5 + 3))
    options = {"data": (str(tmp_path),), "tokenizer": "char"}
    first, other = (load_corpus(tiny(seed=seed, **options)) for seed in (1, 2))
    assert np.array_equal(first.validation, other.validation)
    assert not np.array_equal(first.validation, load_corpus(tiny(split_seed=2, **options)).validation)


def test_the_same_file_twice_is_refused(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("text " * 100)
    with pytest.raises(DataError, match="the same file"):
        read_texts(tiny(data=(str(tmp_path / "a.txt"), str(tmp_path))))


def test_a_prepared_folder_without_validation_gives_its_end(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("some words of text " * 300)
    prepare([tmp_path / "a.txt"], Tokenizer.train(["some words of text "], 260), tmp_path / "out")
    corpus = load_corpus(tiny(data=(str(tmp_path / "out"),), validation_fraction=0.1))
    share = len(corpus.validation) / (len(corpus.training) + len(corpus.validation))
    assert 0.09 < share < 0.12


def test_two_prepared_folders_or_one_without_its_manifest_are_refused(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("some words of text " * 300)
    for name in ("one", "two"):
        prepare([tmp_path / "a.txt"], Tokenizer.train(["some words of text "], 260), tmp_path / name)
    with pytest.raises(DataError, match="one: the folder of token shards is not text"):
        load_corpus(tiny(data=(str(tmp_path / "one"), str(tmp_path / "two"))))
    (tmp_path / "one" / "manifest.json").unlink()
    with pytest.raises(DataError, match="one: the folder of token shards lacks manifest.json"):
        load_corpus(tiny(data=(str(tmp_path / "one"),)))
