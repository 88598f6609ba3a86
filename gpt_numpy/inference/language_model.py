"""``gpt_numpy.load``: a trained model with its tokenizer, text in and text out.

>>> import gpt_numpy
>>> model = gpt_numpy.load("runs/python-docs-1")               # doctest: +SKIP
>>> print(model.generate("The ", max_new_tokens=40))           # doctest: +SKIP
>>> model.score("The cat sat on the mat.").bits_per_byte       # doctest: +SKIP
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import parameters
from ..data import read_as_trained
from ..locating import find_model
from ..model import GPT
from ..wording import counted, in_bytes
from . import packed_file
from .loading import load_decoder, stop_tokens_of
from .panel_decoder import PanelDecoder
from .score import Score, score_text
from .text import encode_prompts, start_of_text, stream_text


def load(path: str | os.PathLike, format: str | None = None, products: str = "float32") -> LanguageModel:
    """The model at ``path``: a run's folder (its best checkpoint), a Hugging Face GPT-2 folder, or a packed one.

    format: number format of the weights for generating and scoring: ``float32``, ``bfloat16``, ``int8`` or ``int4``;
    default: as saved.
    products: "bfloat16" reads prompts, and texts that are scored, with rounded operands (``gpt_numpy.products``): faster.
    Raises ``ModelNotFound`` where there is no model, and the errors of the files for one that is damaged.
    """
    folder = find_model(path)
    decoder, tokenizer = load_decoder(folder, format, products)
    return LanguageModel(folder, decoder, tokenizer)


class LanguageModel:
    """A trained model with its tokenizer.

    folder     the model's folder; of a run, the folder of its best checkpoint
    tokenizer  ``encode`` and ``decode``
    decoder    the packed weights that ``generate`` and ``score`` use
    model      the ``GPT``, with parameters and gradients by name, loaded when first used
    """

    def __init__(self, folder: Path, decoder: PanelDecoder, tokenizer: Any):
        self.folder, self.decoder, self.tokenizer = folder, decoder, tokenizer
        self._stop_tokens = stop_tokens_of(folder, tokenizer)

    @property
    def config(self):
        """The model's ``GPTConfig``."""
        return self.decoder.config

    @functools.cached_property
    def model(self) -> GPT | PanelDecoder:
        """The ``GPT`` in the folder; the decoder, if the folder holds packed weights alone."""
        return self.decoder if os.path.lexists(self.folder / packed_file.NAME) else GPT.load(self.folder)

    def generate(
        self,
        prompt: str = "",
        max_new_tokens: int = 200,
        *,
        samples: int = 1,
        temperature: float = 0.8,
        stop: str | Sequence[str] = (),
        **sampling,
    ) -> str | list[str]:
        """``prompt`` and the text that the model writes after it; with ``samples`` above 1, a list of such texts.

        An empty prompt is the start of a text. temperature 0 always takes the most probable token. sampling: top_k,
        top_p, min_p, repetition_penalty, logit_bias, seed (see ``Sampling``). stop: the text ends before the first of
        these strings. The same arguments give the same text, also that of ``gpt-numpy generate``. Raises
        ``GenerationError``.
        """
        texts = [prompt] * samples
        for piece in self._pieces(prompt, max_new_tokens, samples, stop, temperature=temperature, **sampling):
            texts[piece.sequence] += piece.text
        return texts[0] if samples == 1 else texts

    def stream(
        self, prompt: str = "", max_new_tokens: int = 200, *, temperature: float = 0.8, stop=(), **sampling
    ) -> Iterator[str]:
        """Yield the text that ``generate`` writes after ``prompt``, piece by piece."""
        for piece in self._pieces(prompt, max_new_tokens, 1, stop, temperature=temperature, **sampling):
            yield piece.text

    def score(self, text: str) -> Score:
        """How probable the model finds ``text``: loss, perplexity, bits per byte, and each token's log-probability."""
        return score_text(self.decoder, self.tokenizer, read_as_trained(self.folder, text)[0])

    def _pieces(self, prompt, max_new_tokens, samples, stop, **sampling):
        (tokens,) = encode_prompts(self.tokenizer, [read_as_trained(self.folder, prompt)[0]])
        tokens = tokens or start_of_text(self.tokenizer)
        sampling.setdefault("stop_tokens", self._stop_tokens)
        return stream_text(
            self.decoder, self.tokenizer, [tokens], max_new_tokens, samples=samples, stop=stop, **sampling
        )

    def __repr__(self):
        c, weights = self.config, self.decoder.weights
        sizes = f"{counted(c.n_layer, 'layer')}, {c.n_embd} wide, {counted(c.block_size, 'position')}"
        return (
            f"<LanguageModel {self.folder}: {sizes}, {counted(parameters.count(c), 'parameter')}, "
            f"{weights.format} ({in_bytes(weights.nbytes)}), {self.tokenizer!r}>"
        )
