"""The settings of a training run in one table: name, section, default, bounds, condition, one line of help.

The command line's flags, the TOML file's keys and the run folder's ``config.toml`` are all made from the fields of
``Settings``. Later sources win: defaults, then ``--config FILE.toml``, then flags. A size of the model that is
not set comes from the preset, or from the checkpoint in ``init_from``.

Some settings matter in some combinations only. ``when`` names the condition, one of ``plan.relevance.CONDITIONS``. The
help text, the comments in ``config.toml`` and the check before a run are made from the condition.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ..config import (
    GATED_ACTIVATIONS,
    LARGEST_SIZE,
    NORMS,
    PLAIN_ACTIVATIONS,
    POSITIONS,
    GPTConfig,
    check_integer,
    check_number,
    nearest,
    preset_names,
)
from ..data import DEFAULT_STEPS, STEPS
from ..data.text.normalizing import check_steps
from ..data.text.reading import SPLITS
from ..data.text.special_text import DEFAULT_SPECIALS, SPECIALS
from ..errors import ConfigError
from ..parameters import INITIAL_STD
from ..products import PRODUCTS
from .schedule import SCHEDULES

MODEL_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
# settings that choose a part of a new model; but for ``positions``, None stands for the preset's
MODEL_PARTS = (
    *("norm", "norm_epsilon", "positions", "rope_theta", "mlp", "n_inner", "n_kv_head", "head_dim", "qk_norm"),
    *("sliding_window", "window_from", "bias", "tied"),
)
BIASES = {"all": True, "none": False, "qkv": "qkv", "attention": "attention", "mlp": "mlp"}  # setting → GPTConfig's
LEAST_DEFAULT_VOCABULARY = 512  # 256 bytes, an end-of-text token and some merges; presets for characters have fewer
# preset → learning rate, sequences an update, updates. The rates of the published sizes are those of Brown et al. 2020,
# table 2.1. The batch and the number of updates suit a CPU.
PRESET_TRAINING = {
    "gpt2": (6e-4, 8, 2000),
    "gpt2-medium": (3e-4, 8, 2000),
    "gpt2-large": (2.5e-4, 4, 2000),
    "gpt2-xl": (2e-4, 4, 2000),
    "distilgpt2": (6e-4, 8, 2000),
    "mini": (1e-3, 12, 2000),
    "small-cpu": (2e-3, 12, 2000),
    "tiny": (2e-3, 12, 2000),
    "llama-135m": (6e-4, 8, 2000),
    "llama-tiny": (2e-3, 12, 2000),
}
FINETUNING_RATE = 5e-5  # learning rate of a run that starts from a model
PATHS = ("data", "tokenizer", "init_from")
# Settings that a resumption may change: none of them changes a step that was already taken.
RESUMABLE = (
    "max_steps",
    "eval_every",
    "eval_windows",
    "final_tokens",
    "sample_every",
    "sample_tokens",
    "prompt",
    "patience",
    "log_every",
    "save_every",
    "keep",
    "max_minutes",
    "micro_batch_size",
    "ops",
    "recompute",
    "zero",
    "gradient_sums",
)


def _setting(section, default, help, **rules):
    metadata = {"section": section, "help": help, **rules}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: tuple(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _of_model(help, when="new model", **rules):
    return _setting("model", None, help, when=when, **rules)


@dataclasses.dataclass(frozen=True, repr=False)
class Settings:
    """One training run. ``ConfigError`` for a value of the wrong type or out of its range."""

    data: tuple[str, ...] = _setting(
        "data", ["python-docs"], "text files and folders, a folder of `gpt-numpy data prepare`, or python-docs"
    )
    split: str = _setting(
        "data",
        "auto",
        "what is a document; auto: a JSON record in .jsonl, else a file, or the text between separators",
        choices=SPLITS,
        when="files",
    )
    separator: str = _setting("data", "", "text between documents inside a file; empty: none", when="separable files")
    specials: str = _setting(
        "data",
        DEFAULT_SPECIALS,
        "special tokens spelled out in the text: the token (end-of-text ends a document), an error, or text",
        choices=SPECIALS,
        when="plain text",
    )
    text_field: str = _setting("data", "text", "the field of a JSON record that is the text", when="JSON files")
    encoding: str = _setting("data", "utf-8", "encoding of the files in Python's names: utf-16, cp1252", when="files")
    errors: str = _setting(
        "data", "strict", "bytes that are not text in this encoding", choices=("strict", "replace"), when="files"
    )
    normalize: tuple[str, ...] = _setting(
        "data", list(DEFAULT_STEPS), f"steps that normalise the text, of {', '.join(STEPS)}", when="plain text"
    )
    order: str = _setting(
        "data", "random", "windows at random positions, or every block once an epoch", choices=("random", "epochs")
    )
    documents: str = _setting(
        "data", "joined", "whether a block reads on from one document into the next", choices=("joined", "apart")
    )
    validation_fraction: float = _setting(
        "data", 0.1, "share of the text that is kept for validation", minimum=0.0, below=1.0, when="no validation split"
    )
    split_seed: int = _setting(
        "data", 1, "draws the validation text; runs that share it can be compared", minimum=0, when="plain text"
    )
    tokenizer: str = _setting(
        "data", "bpe", "bpe or char, trained on the data; or a folder with a tokenizer's files", when="plain text"
    )
    vocab_size: int | None = _setting(
        "data", None, "tokens of a bpe tokenizer (default: the preset's, but 512 at least)", minimum=1, when="new bpe"
    )
    ties: str = _setting(
        "data",
        "lowest",
        "the pair of several of equal count that a bpe tokenizer merges first: of the lowest ids, as tokenizers does, or of "
        "the greatest bytes",
        choices=("lowest", "huggingface", "greatest"),
        when="new bpe",
    )

    preset: str = _setting(
        "model", "small-cpu", "the sizes and parts not given below", choices=preset_names(), when="new model"
    )
    n_layer: int | None = _of_model("blocks (default: the preset's)", minimum=1)
    n_head: int | None = _of_model("attention heads a block (default: the preset's)", minimum=1)
    n_embd: int | None = _of_model("width of the residual stream (default: the preset's)", minimum=1)
    block_size: int | None = _of_model("tokens a sequence (default: the preset's)", minimum=1, when=None)
    dropout: float = _setting("model", 0.0, "probability of dropping an activation", minimum=0.0, below=1.0)
    norm: str | None = _of_model("kind of the norms (default: the preset's)", choices=NORMS)
    norm_epsilon: float | None = _of_model(
        "added to the variance under the root of a norm (default: the preset's)", minimum=0.0, below=1.0
    )
    positions: str = _setting(
        "model",
        "keep",
        "a new model's: learned or rotary; a checkpoint's learned ones: crop or extend them to --block-size; keep: as "
        "the preset or the checkpoint has them",
        choices=("keep", *POSITIONS, "crop", "extend"),
        when="other positions",
    )
    rope_theta: float | None = _of_model(
        "base of the rotary frequencies (default: the preset's)", minimum=1.0, when="rotary positions"
    )
    mlp: str | None = _of_model(
        "activation of the feed-forward layer; swiglu, geglu, geglu_erf and reglu have a gate (default: the preset's)",
        choices=(*PLAIN_ACTIVATIONS, *GATED_ACTIVATIONS),
    )
    n_inner: int | None = _of_model(
        "width of the feed-forward layer (default: the preset's, or four times --n-embd)", minimum=1
    )
    n_kv_head: int | None = _of_model(
        "heads of keys and of values, which query heads share (default: the preset's, or --n-head)", minimum=1
    )
    head_dim: int | None = _of_model("width of a head (default: --n-embd divided by --n-head)", minimum=1)
    qk_norm: bool | None = _of_model("an rmsnorm of each query and key (default: the preset's)")
    sliding_window: int | None = _of_model("positions that a query sees, its own included (default: all)", minimum=1)
    window_from: int | None = _of_model("first block with a sliding window (default: 0)", minimum=0, when="window")
    bias: str | None = _of_model("products and layernorms that have biases (default: the preset's)", choices=BIASES)
    tied: bool | None = _of_model("the output head is the token embedding (default: the preset's)")
    init_std: float = _setting(
        "model",
        INITIAL_STD,
        "standard deviation of the matrices before training; models less than 768 wide learn sooner from a larger one, "
        "0.02 times the root of 768 / width",
        minimum=1e-6,
        when="new model",
    )
    init_from: str = _setting("model", "", "a Hugging Face folder to start from, sizes, parts and tokenizer included")

    max_steps: int = _setting("optimizer", None, "updates of the parameters; by default the preset's", minimum=1)
    batch_size: int = _setting("optimizer", None, "sequences an update; by default the preset's", minimum=1)
    micro_batch_size: int | None = _setting(
        "optimizer", None, "sequences at a time; the update accumulates over them (default: all at once)", minimum=1
    )
    learning_rate: float = _setting(
        "optimizer", None, "the schedule's highest; by default the preset's, or a low one with --init-from", minimum=0.0
    )
    schedule: str = _setting("optimizer", "cosine", "shape of the learning rate", choices=tuple(SCHEDULES))
    warmup_steps: int = _setting("optimizer", 100, "steps of linear rise at the start", minimum=0)
    final_fraction: float = _setting(
        "optimizer", 0.1, "the last learning rate, as a share of the highest", minimum=0.0, below=math.inf, when="decay"
    )
    decay_steps: int | None = _setting(
        "optimizer", None, "steps of the final decay (default: a fifth of all)", minimum=1, when="wsd"
    )
    weight_decay: float = _setting("optimizer", 0.1, "decoupled decay of the matrices", minimum=0.0)
    decay_groups: tuple[str, ...] = _setting(
        "optimizer", [], "decay of tensors by name: PATTERN=VALUE, such as 'wpe.*=0'; the last match counts"
    )
    beta1: float = _setting("optimizer", 0.9, "decay rate of AdamW's first moment", minimum=0.0, below=1.0)
    beta2: float = _setting("optimizer", 0.99, "decay rate of AdamW's second moment", minimum=0.0, below=1.0)
    epsilon: float = _setting("optimizer", 1e-8, "added to AdamW's denominator", minimum=0.0)
    clip: float = _setting(
        "optimizer", 1.0, "a longer gradient, in Euclidean norm, is scaled down to this; 0: never", minimum=0.0
    )

    eval_every: int = _setting("evaluation", 250, "steps between validations", minimum=1)
    eval_windows: int = _setting("evaluation", 256, "windows of a validation, spread over the text; 0: all", minimum=0)
    final_tokens: int = _setting(
        "evaluation", 262_144, "tokens of the validation after the last step, spread over the text; 0: all", minimum=0
    )
    patience: int = _setting(
        "evaluation", 0, "validations without a new best before the run stops; 0: never stop", minimum=0
    )
    sample_every: int = _setting("evaluation", 500, "steps between samples; 0: none", minimum=0)
    sample_tokens: int = _setting("evaluation", 100, "tokens of a sample", minimum=1, when="samples")
    prompt: str = _setting("evaluation", "", "what samples start with; empty: the start of a text", when="samples")

    seed: int = _setting("run", 1, "seed of initial values, batches, dropout and samples", minimum=0)
    ops: str = _setting("run", "kernels", "the readable layers or the fast kernels", choices=("layers", "kernels"))
    products: str = _setting(
        "run", "float32", "type to which matrix products round their operands (gpt_numpy/products.py)", choices=PRODUCTS
    )
    recompute: bool = _setting("run", False, "compute activations twice to hold fewer of them")
    zero: bool = _setting("run", False, "divide the optimizer's state over the ranks (ZeRO-1)", when="ranks")
    gradient_sums: str = _setting(
        "run",
        "float32",
        "type in which ranks send each other the gradients that are summed",
        choices=PRODUCTS,
        when="ranks",
    )
    max_minutes: float = _setting("run", 0.0, "minutes after which to save and stop; 0: never", minimum=0.0)
    log_every: int = _setting("run", 10, "steps between lines of metrics.jsonl", minimum=1)
    save_every: int = _setting("run", 500, "steps between checkpoints; a new best and the end are saved too", minimum=1)
    keep: int = _setting("run", 2, "newest checkpoints to keep, beside the best", minimum=1)

    def __post_init__(self):
        if not isinstance(self.preset, str):
            raise ConfigError("not text", field="preset", found=self.preset, expected="a string")
        _, batch_size, max_steps = PRESET_TRAINING.get(self.preset, PRESET_TRAINING["small-cpu"])
        usual = {"learning_rate": self.usual_learning_rate, "batch_size": batch_size, "max_steps": max_steps}
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        if not self.data:
            raise ConfigError("no data", field="data", expected="a built-in corpus, files or folders")
        check_steps(self.normalize)
        for group in self.decay_groups:
            parse_decay_group(group)
        fixed = [name for name in ("n_layer", "n_head", "n_embd", *self.parts) if getattr(self, name) is not None]
        if self.init_from and fixed:
            raise ConfigError("given by the checkpoint in init_from", field=fixed[0], found=getattr(self, fixed[0]))
        if self.positions in ("crop", "extend") and not (self.init_from and self.block_size):
            raise ConfigError("needs --init-from and --block-size", field="positions", found=self.positions)

    @classmethod
    def from_mapping(cls, values: Mapping):
        """Settings from name → value; an unknown name is an error that names the nearest known one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}{nearest(name, known)}")
        return cls(**values)

    @property
    def usual_learning_rate(self) -> float:
        """The learning rate of the preset, or of a run that starts from a model."""
        if self.init_from:
            return FINETUNING_RATE
        return PRESET_TRAINING.get(self.preset, PRESET_TRAINING["small-cpu"])[0]

    def __repr__(self):
        """The call that makes these settings, with the values that differ from the defaults."""
        usual = Settings(preset=self.preset, init_from=self.init_from)
        own = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(usual, field.name)
            or (field.name in ("preset", "init_from") and getattr(self, field.name) != field.default)
        ]
        return f"Settings({', '.join(own)})"

    def replace(self, **changes):
        """A copy with fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        """Name → value in JSON's types; the inverse of ``from_mapping``."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def parts(self) -> dict[str, Any]:
        """The parts of a new model that are not the preset's: field of ``GPTConfig`` → value."""
        given = {name: getattr(self, name) for name in MODEL_PARTS if getattr(self, name) is not None}
        if self.positions not in POSITIONS:
            del given["positions"]
        return {name: BIASES[value] if name == "bias" else value for name, value in given.items()}

    def model_config(self, vocab_size: int | None = None) -> GPTConfig:
        """The ``GPTConfig`` of a new model, whose tokenizer has ``vocab_size`` ids (None: as many as the preset)."""
        given = {name: getattr(self, name) for name in MODEL_SIZES[:4] if getattr(self, name) is not None}
        given |= {**self.parts, "dropout": self.dropout}
        return GPTConfig.preset(self.preset, **given, **({} if vocab_size is None else {"vocab_size": vocab_size}))

    @property
    def wanted_vocab_size(self):
        """The vocabulary to train a bpe tokenizer to."""
        return self.vocab_size or max(GPTConfig.preset(self.preset).vocab_size, LEAST_DEFAULT_VOCABULARY)


def sections():
    """Ordered dict section → list of ``Settings``' fields."""
    result = {}
    for field in dataclasses.fields(Settings):
        result.setdefault(field.metadata["section"], []).append(field)
    return result


def is_default(name, value):
    """Whether ``value`` is the default of the setting ``name``."""
    (field,) = [field for field in dataclasses.fields(Settings) if field.name == name]
    return value == (field.default_factory() if field.default is dataclasses.MISSING else field.default)


def parse_decay_group(text):
    """``PATTERN=VALUE`` as (pattern, value)."""
    pattern, _, value = text.partition("=")
    try:
        return pattern, check_number("decay_groups", float(value), minimum=0.0)
    except ValueError:
        raise ConfigError("not a decay group", field="decay_groups", found=text, expected="PATTERN=VALUE") from None


def kind_of(field):
    """The type of a field's value: str, int, float, bool or tuple (of str), whether or not it may be None."""
    annotation = field.type.removesuffix(" | None")
    return {"str": str, "int": int, "float": float, "bool": bool, "tuple[str, ...]": tuple}[annotation]


def _checked(field, value):
    rules, kind = field.metadata, kind_of(field)
    if value is None and field.type.endswith("| None"):
        return None
    if kind is int:
        if check_integer(field.name, value, rules["minimum"]) > LARGEST_SIZE:
            raise ConfigError("too large", field=field.name, found=value, expected=f"at most {LARGEST_SIZE:,}")
        return value
    if kind is float:
        try:
            return float(check_number(field.name, value, rules["minimum"], rules.get("below", math.inf)))
        except OverflowError:
            raise ConfigError(
                "out of range", field=field.name, found=value, expected="a number that fits a float"
            ) from None
    if kind is bool and not isinstance(value, bool):
        raise ConfigError("not a truth value", field=field.name, found=value, expected="true or false")
    if kind is str and not isinstance(value, str):
        raise ConfigError("not text", field=field.name, found=value, expected="a string")
    if kind is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ConfigError("not a list of text", field=field.name, found=value, expected="a list of strings")
        return tuple(value)
    if "choices" in rules and value not in rules["choices"]:
        raise ConfigError(
            f"unknown choice{nearest(value, rules['choices'])}",
            field=field.name,
            found=value,
            expected=", ".join(rules["choices"]),
        )
    return value
