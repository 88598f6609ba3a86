"""Two small models with tokenizers of the same size and different merges, and text for both."""

from pathlib import Path

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.tokenizer import Tokenizer

OTHER = "sphinx of black quartz, judge my vow; pack my box with five dozen liquor jugs. " * 40


@pytest.fixture(scope="session")
def texts(text_file):
    return {"own": text_file.read_text(encoding="utf-8"), "other": OTHER}


@pytest.fixture(scope="session")
def tokenizers(texts):
    """{"own": T, "other": U}: 300 ids each."""
    made = {name: Tokenizer.train([text], 300) for name, text in texts.items()}
    assert made["own"].n_vocab == made["other"].n_vocab == 300
    return made


@pytest.fixture
def model_folder(tokenizers, tmp_path):
    """A folder with a model of the sizes of the preset tiny and the tokenizer ``own``."""
    return save_model(tmp_path / "M", tokenizers["own"])


def save_model(folder, tokenizer, vocab_size=None, **changes):
    config = GPTConfig.preset("tiny", vocab_size=vocab_size or tokenizer.n_vocab, **changes)
    model = GPT(config, seed=4, ops=layers)
    model.save(folder)
    tokenizer.save(folder)
    return Path(folder)


@pytest.fixture
def prepared(tokenizers, tmp_path, texts):
    """Make a prepared folder: ``prepared("own", validation_every=5)``."""
    from gpt_numpy.data import Settings, prepare

    def make(name="own", folder="shards", **options):
        documents = tmp_path / f"documents-{name}"
        documents.mkdir(exist_ok=True)
        lines = np.array_split(texts[name].split(" "), 40)
        for i, words in enumerate(lines):
            (documents / f"{i:02}.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
        settings = Settings(**{"validation_every": 5, **options})
        prepare([str(documents)], tokenizers[name], tmp_path / folder, settings)
        return tmp_path / folder

    return make
