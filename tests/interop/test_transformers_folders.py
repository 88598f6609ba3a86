"""Random GPT-2s saved by transformers: the same logits as its own, or a refusal that names the field."""

import random

import numpy as np
import pytest

from gpt_numpy import GPT, layers
from gpt_numpy.errors import GPTNumpyError

FIELDS = {
    "activation_function": ["gelu_new"] * 4 + ["gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu", "relu"],
    "layer_norm_epsilon": [1e-5] * 6 + [1e-6],
    "scale_attn_weights": [True] * 6 + [False],
    "scale_attn_by_inverse_layer_idx": [False] * 6 + [True],
    "n_inner": [None] * 5 + [7],
}
HARMLESS = {
    "resid_pdrop": [0, 0.1, 0.3],
    "embd_pdrop": [0, 0.1],
    "attn_pdrop": [0, 0.1],
    "reorder_and_upcast_attn": [False, True],
    "eos_token_id": [None, 0, [0, 1]],
}
KNOWN = ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh")


def check(seed, folder):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    rng = random.Random(seed)
    fields = {name: rng.choice(values) for name, values in {**FIELDS, **HARMLESS}.items()}
    tied, n_head = rng.random() < 0.8, rng.randint(1, 3)
    sizes = {"vocab_size": rng.randint(5, 40), "n_positions": rng.randint(3, 12), "n_layer": rng.randint(1, 3)}
    sizes |= {"n_head": n_head, "n_embd": n_head * rng.choice([2, 4, 5])}
    config = transformers.GPT2Config(**sizes, **fields, bos_token_id=None, tie_word_embeddings=tied)
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(config).eval()
    model = model.to(rng.choice([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    model.save_pretrained(folder, max_shard_size=rng.choice(["5GB", "4KB"]))
    other = [n for n, values in FIELDS.items() if fields[n] != values[0] and fields[n] not in KNOWN]
    other += [] if tied else ["lm_head.weight"]
    if other:
        with pytest.raises(GPTNumpyError) as caught:
            GPT.load(folder, ops=layers)
        assert any(name in str(caught.value) for name in other) and len(str(caught.value)) < 24 * 80
        return
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (2, config.n_positions))
    found = GPT.load(folder, dtype=np.float64, ops=layers).forward(tokens)
    with torch.no_grad():
        expected = model.to(torch.float64)(torch.tensor(tokens)).logits.numpy()
    assert np.abs(found - expected).max() <= 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_a_random_model_of_transformers(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(12, 512))
def test_five_hundred_more(seed, tmp_path):
    check(seed, tmp_path)
