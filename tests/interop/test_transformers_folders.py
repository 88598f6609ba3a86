"""Random GPT-2s saved by transformers: its own logits, loss and gradients, and a folder that transformers opens again."""

import json
import pathlib
import pickle
import random

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import CheckpointMismatch
from gpt_numpy.interop import huggingface

FIELDS = {
    "activation_function": ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu", "gelu_10", "gelu_python"]
    + ["quick_gelu", "silu", "swish", "mish", "hardswish", "relu", "relu2", "relu6", "leaky_relu", "tanh", "sigmoid"]
    + ["laplace", "linear", "gelu_accurate", "gelu_python_tanh"],
    "layer_norm_epsilon": [1e-5, 1e-6, 1e-3],
    "scale_attn_weights": [True, False],
    "scale_attn_by_inverse_layer_idx": [False, True],
    "n_inner": [None, 7, 64],
    "resid_pdrop": [0, 0.1, 0.3],
    "embd_pdrop": [0, 0.1],
    "attn_pdrop": [0, 0.1],
    "reorder_and_upcast_attn": [False, True],
    "eos_token_id": [None, 0, [0, 1]],
}


def random_model(seed):
    """(random generator, transformers' model) for a seed: any of the fields, sizes and types."""
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    rng = random.Random(seed)
    fields = {name: rng.choice(values) for name, values in FIELDS.items()}
    fields["activation_function"] = FIELDS["activation_function"][seed % len(FIELDS["activation_function"])]
    tied, n_head = rng.random() < 0.6, rng.randint(1, 3)
    sizes = {"vocab_size": rng.randint(5, 40), "n_positions": rng.randint(3, 12), "n_layer": rng.randint(1, 3)}
    sizes |= {"n_head": n_head, "n_embd": n_head * rng.choice([2, 4, 5])}
    config = transformers.GPT2Config(**sizes, **fields, bos_token_id=None, tie_word_embeddings=tied)
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))  # initial values hide what a bias or an epsilon does
    return rng, model.to(rng.choice([torch.float16, torch.bfloat16, torch.float32, torch.float64]))


def check(seed, folder):
    rng, model = random_model(seed)
    import torch

    config = model.config
    model.save_pretrained(folder, max_shard_size=rng.choice(["5GB", "4KB"]))
    ours, theirs = GPT.load(folder, dtype=np.float64, ops=layers), model.to(torch.float64)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (2, config.n_positions))
    expected = compare(ours, theirs, tokens)
    ours.save(folder / "again")
    again, info = type(model).from_pretrained(folder / "again", dtype=torch.float64, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        assert np.abs(again.eval()(torch.tensor(tokens)).logits.numpy() - expected).max() <= 1e-9
    assert GPT.load(folder / "again", ops=layers).config == ours.config


def compare(ours, theirs, tokens):
    """Logits, loss and every gradient of the two; returns the logits."""
    import torch

    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits = theirs(torch.tensor(inputs)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets.ravel()))
    theirs.zero_grad()
    loss.backward()
    assert np.abs(ours.forward(inputs) - logits.detach().numpy()).max() <= 1e-9
    assert abs(ours.loss(inputs, targets) - loss.item()) <= 1e-9
    ours.zero_gradients()
    ours.backward()
    expected = {name.removeprefix("transformer."): p.grad.numpy() for name, p in theirs.named_parameters()}
    for name, gradient in ours.grads.items():
        assert np.abs(gradient - expected[name]).max() <= 1e-9 * max(np.abs(expected[name]).max(), 1e-3), name
    with torch.no_grad():
        return theirs(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("seed", range(21))
def test_a_random_model_of_transformers(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(21, 521))
def test_five_hundred_more(seed, tmp_path):
    check(seed, tmp_path)


# ---- pickled weights ------------------------------------------------------------------------------------------------


class Opened:
    """What a pickle runs when it is opened: it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def save_pickled(model, folder, parts):
    """As transformers saved before safetensors: pytorch_model.bin, or ``parts`` files and their index."""
    import torch

    model.config.save_pretrained(folder)
    tensors = list(model.state_dict().items())
    if parts == 1:
        torch.save(dict(tensors), folder / "pytorch_model.bin")
        return
    names, weight_map = [f"pytorch_model-{i + 1:05}-of-{parts:05}.bin" for i in range(parts)], {}
    for i, name in enumerate(names):
        torch.save(dict(tensors[i::parts]), folder / name)
        weight_map |= dict.fromkeys(dict(tensors[i::parts]), name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def check_pickled(seed, folder):
    rng, model = random_model(seed)
    import torch

    parts = rng.randint(1, 3)
    save_pickled(model, folder, parts)
    name = "pytorch_model.bin" if parts == 1 else "pytorch_model.bin.index.json"
    for call in (lambda: GPT.load(folder, ops=layers), lambda: huggingface.load_views(folder)):
        with pytest.raises(CheckpointMismatch) as caught:
            call()
        message = str(caught.value)
        assert f"no model.safetensors, but {name}" in message and len(message) < 24 * 80
        command = message.partition('python -c "')[2].rpartition('"')[0]
        assert "save_pretrained" in command and str(folder) in command
    if seed % 7 == 0:  # the command does what it says
        exec(command)
        tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, (2, model.config.n_positions))
        with torch.no_grad():
            expected = model.to(torch.float64)(torch.tensor(tokens)).logits.numpy()
        assert np.abs(GPT.load(folder, dtype=np.float64, ops=layers).forward(tokens) - expected).max() <= 1e-9
    for path in folder.glob("*.safetensors"):
        path.unlink()
    for path in folder.glob("*.bin"):  # nothing in them is ever run
        path.write_bytes(pickle.dumps(Opened(folder / "opened")))
    with pytest.raises(CheckpointMismatch):
        GPT.load(folder, ops=layers)
    assert not (folder / "opened").exists()


@pytest.mark.parametrize("seed", range(7))
def test_pickled_weights_are_refused_with_the_command_that_converts_them(seed, tmp_path):
    check_pickled(seed, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(7, 107))
def test_a_hundred_more_pickled_models(seed, tmp_path):
    check_pickled(seed, tmp_path)


@pytest.mark.parametrize("field", ["add_cross_attention", "model_type", "activation_function"])
def test_what_gpt2_does_not_have_is_refused_by_name(field, tmp_path):
    _, model = random_model(3)
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields[field] = {"add_cross_attention": True, "model_type": "gptj", "activation_function": "prelu"}[field]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointMismatch, match=field):
        GPT.load(tmp_path, ops=layers)
