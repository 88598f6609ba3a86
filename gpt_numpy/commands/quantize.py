"""``gpt-numpy quantize``: keep a model's weights in fewer bytes, and measure the loss of quality."""

import json
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..products import WEIGHT_FORMATS
from ..wording import counted

EXAMPLES = (
    ("gpt-numpy quantize --model runs/notes-1 --text chapter.txt", "how much quality int8 would lose"),
    ("gpt-numpy quantize --model runs/notes-1 --format int4 --calibrate book.txt --out small", "4 bits a weight"),
    ("gpt-numpy quantize --model runs/notes-1 --format bfloat16 --out small", "write a model of half the size"),
)


def configure(parser):
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    parser.add_argument("--format", default="int8", choices=WEIGHT_FORMATS[1:], help="type of the written weights")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="with int4, a UTF-8 text: errors of weights whose inputs are large on it count more"
        " (default: the weights of the norms say which)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the model here; without it, only measure")
    parser.add_argument("--text", type=Path, metavar="FILE", help="measure the change on this UTF-8 text")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument(
        "--max-tokens", type=int, default=4096, metavar="N", help="tokens of a text to read (default: 4096)"
    )


def run(args):
    from ..data import copy_reading
    from ..inference.comparing import importance_on
    from ..inference.loading import find_model
    from ..inference.packed import PackedWeights
    from ..inference.panel_decoder import PanelDecoder
    from ..interop import huggingface
    from ..interop.beside import beside_of
    from ..model import GPT
    from ..tokenizer import load_tokenizer
    from . import say_checkpoint

    folder = find_model(args.model)
    say_checkpoint(args.model)
    if args.max_tokens < 2:
        raise ConfigError("too few to measure on", field="--max-tokens", found=args.max_tokens, expected="at least 2")
    if args.calibrate is not None and args.format != "int4":
        raise ConfigError("only int4 is calibrated", field="--calibrate", found=args.format, expected="--format int4")
    if args.out is not None and args.out.resolve() == Path(folder).resolve():
        raise ConfigError("--out is the folder of the model itself", field="--out", found=str(args.out))
    config, params = huggingface.load_views(folder)
    tokenizer = load_tokenizer(folder)
    importance = None
    if args.calibrate is not None:
        text = read_text(args.calibrate, args, tokenizer)
        importance = importance_on(GPT.load(folder), text, tokenizer.begin_ids)
    exact = PanelDecoder(PackedWeights.pack(config, params, "float32"))
    other = PanelDecoder(PackedWeights.pack(config, params, args.format, importance))
    before, after = exact.weights.nbytes, other.weights.nbytes
    figures = {"format": args.format, "float32_bytes": before, "bytes": after}
    figures |= measure(exact, other, *read_tokens(args, tokenizer, config))
    if args.json:
        print(json.dumps({**figures, "out": None if args.out is None else str(args.out)}, indent=2))
    else:
        print(f"float32 {before:,} bytes, {args.format} {after:,} bytes: {before / after:.2f} times smaller")
        report(figures)
    if args.out is not None:
        from ..inference.packed_file import save_packed

        end = huggingface.end_of_text_field(folder, tokenizer)
        save_packed(args.out, other.weights, end, beside_of(folder, tokenizer))
        tokenizer.save(args.out)
        copy_reading(folder, args.out)
        if not args.json:
            print(f"written to {args.out}")


def read_tokens(args, tokenizer, config):
    """The tokens to measure on, and whether they are a text: without a text, random tokens are used, for the logits only."""
    if args.text is None:
        return np.random.default_rng(0).integers(0, config.vocab_size, config.block_size), False
    return read_text(args.text, args, tokenizer), True


def read_text(path, args, tokenizer):
    """The first tokens of the text in a file, read as the model's own training text, with the tokenizer's begin in front."""
    from ..data import read_as_trained
    from ..locating import find_model
    from ..tokenizer.specials import begun
    from .score import decode_utf8

    text, _ = read_as_trained(find_model(args.model), decode_utf8(path))
    ids = tokenizer.encode_ordinary(text)[: args.max_tokens]
    if not ids:
        raise ConfigError("the text is empty", path=path, expected="at least one token")
    return np.array(begun(tokenizer, ids), np.int64)


def measure(exact, other, tokens, is_text) -> dict:
    """How far the logits move, and on a text the perplexity of either decoder."""
    from ..inference.comparing import logit_difference, perplexities

    figures = {"logits": logit_difference(exact, other, tokens[: min(exact.config.block_size, 256)])._asdict()}
    if is_text:
        before, after = perplexities(exact, other, tokens)
        figures |= {"tokens": len(tokens), "float32_perplexity": before, "perplexity": after}
    return figures


def report(figures: dict) -> None:
    """Print what ``measure`` found, in sentences."""
    moved = figures["logits"]
    print(
        f"logits move by {moved['rms']:.4f} (root mean square), at most {moved['largest']:.4f}; their spread"
        f" is {moved['spread']:.3f}; the most probable token stays in {moved['same_choice']:.1%}"
    )
    if "perplexity" in figures:
        before, after = figures["float32_perplexity"], figures["perplexity"]
        print(
            f"perplexity on {counted(figures['tokens'], 'token')}: {before:.4f} in float32, {after:.4f} after:"
            f" {after / before - 1:+.3%}"
        )
