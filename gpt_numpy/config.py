"""The shape of a model: its sizes, the kind of each part, the presets, and the checks that a shape makes sense.

The defaults are GPT-2. Field names are GPT-2's and nanoGPT's, except that Hugging Face's ``config.json`` calls
``block_size`` ``n_positions``; the translation is in ``interop``. Each other field says what one part of a block is;
``parts`` turns the fields into functions.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any

from .architecture.rotation import PAIRINGS, SCALINGS, RopeScaling
from .errors import ConfigError

LARGEST_SIZE = 2**63 - 1  # bound of every field
PLAIN_ACTIVATIONS = (
    *("gelu", "gelu_erf", "gelu_10", "quick_gelu", "silu", "mish", "hardswish", "relu", "relu2", "relu6"),
    *("leaky_relu", "tanh", "sigmoid", "laplace", "linear"),
)
# name of a gated MLP → the activation of its gate
GATED_ACTIVATIONS = types.MappingProxyType(
    {"swiglu": "silu", "geglu": "gelu", "geglu_erf": "gelu_erf", "reglu": "relu"}
)

NORMS = ("layernorm", "rmsnorm")
POSITIONS = ("learned", "rotary")
BIASES = (True, False, "qkv", "attention", "mlp")

# n_layer, n_head, n_embd, block_size, vocab_size
_PRESETS = {
    "gpt2": (12, 12, 768, 1024, 50257),
    "gpt2-medium": (24, 16, 1024, 1024, 50257),
    "gpt2-large": (36, 20, 1280, 1024, 50257),
    "gpt2-xl": (48, 25, 1600, 1024, 50257),
    "distilgpt2": (6, 12, 768, 1024, 50257),
    # Small shapes, for a CPU and for studying. The tokenizer sets their vocabulary.
    "mini": (6, 6, 384, 256, 8192),
    "small-cpu": (4, 4, 128, 64, 1024),
    "tiny": (2, 2, 32, 32, 256),
    # Llama's parts: SmolLM2's smallest shape, and one for studying.
    "llama-135m": (30, 9, 576, 2048, 49152),
    "llama-tiny": (2, 4, 32, 64, 256),
}
_LLAMA: dict[str, Any] = dict(
    norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False, norm_epsilon=1e-5, rope_theta=10_000.0
)
_PRESET_PARTS: dict[str, dict[str, Any]] = {
    "llama-135m": dict(_LLAMA, n_kv_head=3, n_inner=1536, rope_theta=100_000.0),
    "llama-tiny": dict(_LLAMA, n_kv_head=2, n_inner=88),
}


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Sizes of a model, and the kind of each of its parts. The defaults are GPT-2's.

    vocab_size  V, number of token ids
    block_size  longest sequence: the number of learned positions
    n_layer     L, number of transformer blocks
    n_head      attention heads in each block; divides n_embd
    n_embd      C, width of the residual stream
    dropout     probability of dropping an activation while training (embedding, attention, residual)

    mlp         the activation of the feed-forward layer, or a gated one (``layers.activation``)
    n_inner     width of the feed-forward layer between its two products; None: 4 n_embd
    norm        layernorm or rmsnorm
    norm_epsilon  added to the variance under the root of a norm
    positions   learned, added to the token embedding; or rotary, turning queries and keys (``layers.rotary``)
    rope_theta  base of the rotary frequencies
    rope_scaling  a ``architecture.rotation.RopeScaling`` for longer texts, or None
    rope_pairing  which numbers of a head are turned together: halves or neighbours
    n_kv_head   heads of keys and values, a divisor of n_head; None: n_head
    head_dim    width of one head; None: n_embd / n_head
    qk_norm     whether each query and key has an rmsnorm
    sliding_window  how many positions a query sees, its own included; None: all
    window_from  first block with a sliding window
    bias        which products and layernorms have biases: True (all), False (none), qkv (queries, keys and values),
                attention (qkv and the projection back), mlp
    tied        whether the output head is the token embedding
    scale_attn_weights  whether scores are divided by the root of head_size
    scale_attn_by_inverse_layer_idx  whether the scores of block i are divided by i + 1 as well

    Raises ``ConfigError`` for a value that no model can have.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    mlp: str = "gelu"
    n_inner: int | None = None
    norm: str = "layernorm"
    norm_epsilon: float = 1e-5
    positions: str = "learned"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_pairing: str = "halves"
    n_kv_head: int | None = None
    head_dim: int | None = None
    qk_norm: bool = False
    sliding_window: int | None = None
    window_from: int = 0
    bias: bool | str = True
    tied: bool = True
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False

    def __repr__(self) -> str:
        """The sizes, and what differs from GPT-2's own parts; ``eval`` makes the same configuration of it."""
        shown = [
            f
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        ]
        return f"GPTConfig({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            check_integer(name, getattr(self, name), minimum=1)
            if getattr(self, name) > LARGEST_SIZE:
                raise ConfigError(
                    "too large", field=name, found=getattr(self, name), expected=f"at most {LARGEST_SIZE:,}"
                )
        check_number("dropout", self.dropout, minimum=0.0, below=1.0)
        self._check_parts()
        if self.n_embd % self.n_head and self.head_dim is None:
            raise ConfigError(
                "the heads share the width evenly, so n_head must divide n_embd",
                field="n_head",
                found=self.n_head,
                expected=f"a divisor of n_embd = {self.n_embd}",
            )

    def _check_parts(self):
        check_choice("mlp", self.mlp, (*PLAIN_ACTIVATIONS, *GATED_ACTIVATIONS))
        check_choice("norm", self.norm, NORMS)
        check_choice("positions", self.positions, POSITIONS)
        check_choice("rope_pairing", self.rope_pairing, PAIRINGS)
        for name in ("n_inner", "n_kv_head", "head_dim", "sliding_window"):
            value = getattr(self, name)
            if value is not None and check_integer(name, value, minimum=1) > LARGEST_SIZE:
                raise ConfigError("too large", field=name, found=value, expected=f"at most {LARGEST_SIZE:,}")
        check_integer("window_from", self.window_from, minimum=0)
        if self.n_head % self.key_heads:
            expected = f"a divisor of n_head = {self.n_head}"
            raise ConfigError(
                "query heads share key heads evenly", field="n_kv_head", found=self.n_kv_head, expected=expected
            )
        if not any(self.bias is choice or self.bias == choice for choice in BIASES if isinstance(choice, str)):
            check_truth("bias", self.bias)
        self._check_rotary()
        check_number("norm_epsilon", self.norm_epsilon, minimum=0.0, below=1.0)
        for name in ("tied", "qk_norm", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
            check_truth(name, getattr(self, name))

    def _check_rotary(self):
        check_number("rope_theta", self.rope_theta, minimum=1.0)
        if self.positions == "rotary" and self.head_size % 2:
            raise ConfigError("pairs of numbers are turned", field="head_size", found=self.head_size, expected="even")
        scaling = self.rope_scaling
        if scaling is None:
            return
        if not isinstance(scaling, (tuple, list)) or not 2 <= len(scaling) <= 5:
            raise ConfigError("not a scaling", field="rope_scaling", found=scaling, expected="a RopeScaling")
        scaling = RopeScaling(*scaling)
        object.__setattr__(self, "rope_scaling", scaling)
        check_choice("rope_scaling", scaling.kind, SCALINGS)
        check_number("rope_scaling", scaling.factor, minimum=1e-3)
        low = check_number("rope_scaling", scaling.low_freq_factor, minimum=1e-3)
        high = check_number("rope_scaling", scaling.high_freq_factor, minimum=1e-3)
        check_integer("rope_scaling", scaling.original, minimum=1)
        if not low < high:
            raise ConfigError("low_freq_factor is less than high_freq_factor", field="rope_scaling", found=(low, high))

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def key_heads(self) -> int:
        """Heads of keys and of values."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def heads_width(self) -> int:
        """Width of all query heads side by side."""
        return self.n_head * self.head_size

    @property
    def qkv_columns(self) -> int:
        """Columns of the product that makes queries, keys and values."""
        return (self.n_head + 2 * self.key_heads) * self.head_size

    def has_bias(self, what: str) -> bool:
        """Whether ``what`` has a bias: "qkv", "proj" (the projection back), "mlp" or "norm"."""
        biased = {True: ("qkv", "proj", "mlp", "norm"), "qkv": ("qkv",), "attention": ("qkv", "proj"), "mlp": ("mlp",)}
        return what in biased.get(self.bias, ()) and not (what == "norm" and self.norm == "rmsnorm")

    def window(self, layer: int) -> int | None:
        """How many positions a query of block ``layer`` sees; None: all before it."""
        return self.sliding_window if layer >= self.window_from else None

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer has a gate."""
        return self.mlp in GATED_ACTIVATIONS

    @property
    def mlp_width(self) -> int:
        """Width of the feed-forward layer between its two products."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def hidden_columns(self) -> int:
        """Columns of the feed-forward layer's first product: its width, twice where a gate lies beside it."""
        return 2 * self.mlp_width if self.is_gated else self.mlp_width

    def attention_scale(self, layer: int) -> float | None:
        """What block ``layer`` multiplies its scores by; None for 1/√head_size."""
        if self.scale_attn_weights and not self.scale_attn_by_inverse_layer_idx:
            return None
        scale = 1 / math.sqrt(self.head_size) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def canonical(self) -> GPTConfig:
        """The same function in fewest words: a field without effect, or whose value is what None stands for, as its default."""
        unused = []
        if self.sliding_window is None:
            unused += ["window_from"]
        if self.positions != "rotary":
            unused += ["rope_theta", "rope_scaling", "rope_pairing"]
        usual = dict(n_inner=4 * self.n_embd, n_kv_head=self.n_head, head_dim=self.n_embd / self.n_head)
        unused += [name for name, value in usual.items() if getattr(self, name) == value]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return self.replace(**{name: defaults[name] for name in unused})

    def differing(self) -> dict[str, Any]:
        """The fields of the parts that differ in effect from GPT-2's, by name."""
        config = self.canonical()
        parts = [field for field in dataclasses.fields(self) if field.default is not dataclasses.MISSING]
        return {
            field.name: getattr(config, field.name)
            for field in parts
            if field.name != "dropout" and getattr(config, field.name) != field.default
        }

    def parts_in_words(self) -> str:
        """``; norm rmsnorm, positions rotary``: what ``differing`` finds, for the end of a line on sizes, or nothing."""
        parts = ", ".join(f"{name} {value}" for name, value in self.differing().items())
        return f"; {parts}" if parts else ""

    @classmethod
    def preset(cls, name: str, **changes) -> GPTConfig:
        """A published or small shape by name, with fields changed by keyword.

        >>> GPTConfig.preset("gpt2").n_embd
        768
        """
        if name not in _PRESETS:
            raise ConfigError(f"no preset {name!r}{nearest(name, _PRESETS)}", expected=", ".join(_PRESETS))
        n_layer, n_head, n_embd, block_size, vocab_size = _PRESETS[name]
        fields = dict(vocab_size=vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
        fields.update(_PRESET_PARTS.get(name, {}))
        return cls.from_dict({**fields, **changes})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GPTConfig:
        """A config from a mapping; an unknown or missing key is an error that names the nearest known one."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key in fields:
            if key not in known:
                raise ConfigError(f"unknown field {key!r}{nearest(key, known)}", expected=", ".join(known))
        missing = [k for k, f in known.items() if f.default is dataclasses.MISSING and k not in fields]
        if missing:
            raise ConfigError(f"missing field {', '.join(missing)}")
        return cls(**fields)

    def replace(self, **changes) -> GPTConfig:
        """A copy with fields changed."""
        return dataclasses.replace(self, **changes)


def preset_names() -> tuple[str, ...]:
    """The names that ``GPTConfig.preset`` knows."""
    return tuple(_PRESETS)


def nearest(word: object, known: Iterable) -> str:
    """`` (did you mean 'x'?)`` for the closest of ``known``, or nothing."""
    close = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_integer(name: str, value: Any, minimum: int) -> int:
    """``value`` if it is an integer of at least ``minimum``; ``True`` is not an integer here."""
    if not _is_integer(value) or value < minimum:
        fault = "too small" if _is_integer(value) else "not a whole number"
        raise ConfigError(fault, field=name, found=value, expected=f"a whole number, at least {minimum}")
    return value


def _is_integer(value):
    return not isinstance(value, bool) and hasattr(value, "__index__")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise ConfigError(
            f"no such choice{nearest(value, known)}", field=name, found=value, expected=", ".join(map(str, known))
        )
    return value


def check_truth(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ConfigError("not a truth value", field=name, found=value, expected="true or false")
    return value


def check_number(name: str, value: Any, minimum: float = -math.inf, below: float = math.inf) -> float:
    """``value`` if it is a number with minimum <= value < below (never a NaN, an infinity or a bool)."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    valid = valid and abs(value) < math.inf  # also right for an integer that no float holds
    if not valid or not minimum <= value < below:
        bounds = f"a number >= {minimum}" + (f" and < {below}" if math.isfinite(below) else "")
        raise ConfigError("out of range", field=name, found=value, expected=bounds)
    return value
