import shutil

import numpy as np
import pytest

import gpt_numpy
from gpt_numpy import GPT, GPTConfig, KVCache, Tokenizer, layers
from gpt_numpy.commands import main
from gpt_numpy.errors import GenerationError, ModelNotFound
from gpt_numpy.inference.panel_decoder import PanelDecoder
from gpt_numpy.study import trace
from gpt_numpy.tokenizer import StreamDecoder
from gpt_numpy.training import Settings, start
from gpt_numpy.workspace import Workspace

TEXT = "the cat sat on the mat and looked at the dog.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run, ``run``, and its model packed in int8, ``packed``."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "text.txt").write_text(TEXT * 50, encoding="utf-8")
    settings = Settings(data=(str(folder / "text.txt"),), tokenizer="char", preset="tiny", batch_size=4)
    start(settings.replace(max_steps=30, eval_windows=2, learning_rate=1e-2, ops="layers"), folder / "run")
    assert main(["quantize", "--model", str(folder / "run"), "--out", str(folder / "packed")]) == 0
    return folder


def test_a_run_a_folder_and_a_packed_one_load(folder):
    run = gpt_numpy.load(folder / "run")
    other = gpt_numpy.load(next((folder / "run" / "checkpoints").iterdir()))
    packed = gpt_numpy.load(folder / "packed")
    text = run.generate("the ", max_new_tokens=40)
    assert text.startswith("the ") and len(text) == 44 and text == other.generate("the ", 40)
    assert isinstance(run.model, GPT) and run.model is run.model and isinstance(packed.model, PanelDecoder)
    assert packed.decoder.weights.format == "int8" and packed.tokenizer.decode(packed.tokenizer.encode("cat")) == "cat"
    assert run.score(TEXT).loss == pytest.approx(packed.score(TEXT).loss, abs=0.05)
    assert gpt_numpy.load(str(folder / "run"), "bfloat16").decoder.weights.format == "bfloat16"


def test_the_text_is_that_of_the_command(folder, capsys):
    capsys.readouterr()
    main(["generate", "--model", str(folder / "run"), "--prompt", "the ", "--max-new-tokens", "12", "--seed", "3"])
    model = gpt_numpy.load(folder / "run")
    text = model.generate("the ", 12, seed=3)
    assert capsys.readouterr().out == text + "\n"
    assert "the " + "".join(model.stream("the ", 12, seed=3)) == text
    several = model.generate("the ", 12, samples=2, seed=3)
    assert several[0] == text != several[1]
    assert model.generate("the ", 12, stop="zzz", temperature=0).startswith("the ")
    assert len(model.generate(max_new_tokens=5)) == 5
    with pytest.raises(GenerationError, match="temperature"):
        model.generate("the", temperature=-1)


def test_no_model_there(tmp_path):
    with pytest.raises(ModelNotFound, match="no such folder"):
        gpt_numpy.load(tmp_path / "none")


def test_every_object_says_in_one_line_what_it_is(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    run = gpt_numpy.load(folder / "run")
    told = repr(run)
    assert "run/checkpoints/step-" in told and "2 layers" in told and "float32" in told and "CharTokenizer" in told
    cache = KVCache(run.config, 2)
    with trace(GPT(GPTConfig.preset("tiny"), ops=layers)) as traced:
        assert repr(traced) == "<Trace: no forward pass yet>"
        traced.model.loss(*np.ones((2, 1, 3), int))
    vocabulary = Tokenizer.train(["aa aa"], 257, special_tokens=()).vocabulary
    half_a_character = StreamDecoder(run.tokenizer)
    half_a_character._decoder.decode(b"\xc3")
    run.decoder.extend(np.zeros((2, 3), int), cache)
    for thing, words in (
        (GPT(GPTConfig.preset("tiny")), ("2 layers", "34,688 parameters", "float32", "kernels")),
        (run.tokenizer, ("CharTokenizer", "ids", "0 special")),
        (cache, ("2 sequences of 3, 3 of 32 tokens", "2 layers", "kB")),
        (run.score(TEXT), ("45 tokens", "perplexity", "bits per byte")),
        (run.decoder, ("PanelDecoder", "float32", "kB")),
        (run.model.params, ("tensors", "float32")),
        (GPTConfig.preset("tiny"), ("n_layer=2",)),
        (vocabulary, ("<Vocabulary: 257 ids: 1 merge, 0 special>",)),
        (half_a_character, ("StreamDecoder", "1 byte held back")),
        (Workspace(), ("Workspace", "0 regions")),
        (traced, ("Trace", "values", "no backward pass yet")),
        (traced["h.0.attn.weights"], ("Traced", "(1, 2, 3, 3)", "no gradient")),
    ):
        told = repr(thing)
        assert all(word in told for word in words) and "\n" not in told and len(told) < 200, told
