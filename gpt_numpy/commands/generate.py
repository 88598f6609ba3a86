"""``gpt-numpy generate``: continue a prompt with a trained model, shown while the model writes."""

import argparse
import sys

from ..errors import ConfigError, GenerationError, TokenizerError
from ..products import PRODUCTS, WEIGHT_FORMATS

EXAMPLES = (
    ("gpt-numpy generate --model runs/python-docs-1", "on a terminal: asks for prompts"),
    ('gpt-numpy generate --model runs/python-docs-1 --prompt "The "', "one continuation"),
    ('gpt-numpy generate --model data/gpt2 --prompt "The " --temperature 0 --format int8', ""),
)
WORDS = {
    "pass it in allowed_special to encode it as one id, or disallowed_special=() to encode it as ordinary text": (
        "--allow-special takes it for the token"
    )
}


def configure(parser):
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="the text to continue; - reads it from standard input; '' is the start of a text (unset: a terminal asks)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=200, metavar="N", help="tokens to write at most")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 always takes the most probable token")
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K most probable tokens; 0: among all")
    parser.add_argument("--top-p", type=float, metavar="P", help="only the fewest tokens of total probability P")
    parser.add_argument("--min-p", type=float, metavar="P", help="only tokens P times as probable as the first")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: repeat less")
    parser.add_argument(
        "--logit-bias",
        action="append",
        default=[],
        metavar="ID=X",
        help="add X to the logit of token ID (-inf forbids it); repeatable",
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="continuations of the prompt")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    parser.add_argument("--no-end", action="store_true", help="go on after the model's end-of-text token")
    parser.add_argument("--allow-special", action="store_true", help="let the prompt hold special tokens")
    parser.add_argument(
        "--format",
        choices=WEIGHT_FORMATS,
        help="how the weights are kept: fewer bytes are read faster (default: as saved)",
    )
    parser.add_argument(
        "--products",
        choices=PRODUCTS,
        default="float32",
        help="bfloat16: round operands while reading a prompt, which is faster (default: float32)",
    )
    parser.add_argument(
        "--draft",
        metavar="FOLDER",
        help="a smaller model that proposes tokens, which the model checks: faster, the same text at temperature 0, "
        "otherwise another text of the same distribution",
    )
    parser.add_argument(
        "--figures",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="print the speed on standard error after each text",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same text")


def run(args):
    from ..locating import find_model

    find_model(args.model)  # refused before anything is asked for
    interactive = args.prompt is None and sys.stdin.isatty()
    if args.prompt is None and not interactive:
        raise GenerationError("nothing to continue", field="--prompt", expected="a text")
    if args.draft is not None and args.samples != 1:
        raise ConfigError("--draft writes only one continuation", field="--samples", found=args.samples, expected="1")
    from ..inference.figures import Meter
    from ..inference.loading import load_decoder
    from . import say_checkpoint

    sampling = sampling_options(args)
    say_checkpoint(args.model)
    decoder, tokenizer = load_decoder(args.model, args.format, args.products)
    model = Meter(decoder)
    draft = None if args.draft is None else load_decoder(args.draft, args.format, args.products)[0]
    use_utf8()
    if interactive:
        converse(args, lambda prompt, seed: write(args, model, draft, tokenizer, prompt, {**sampling, "seed": seed}))
    else:
        prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
        write(args, model, draft, tokenizer, prompt, sampling)


def converse(args, answer):
    """Continue each line that is typed, until the end of input; every line is a text of its own."""
    print("type the beginning of a text; end with Ctrl-D", file=sys.stderr)
    seed = args.seed
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        if line:
            try:
                answer(line, seed)
            except (GenerationError, TokenizerError) as error:
                print(error, file=sys.stderr)
            seed += 1


def write(args, model, draft, tokenizer, prompt, sampling):
    """Write ``prompt`` and its continuation."""
    from ..data import read_as_trained
    from ..inference.loading import stop_tokens_of
    from ..inference.speculative import speculate
    from ..inference.text import pieces, start_of_text, stream_text
    from ..locating import find_model
    from ..tokenizer.specials import begun

    read, _ = read_as_trained(find_model(args.model), prompt)
    tokens = tokenizer.encode(read, allowed_special="all" if args.allow_special else ())
    tokens = begun(tokenizer, tokens) or start_of_text(tokenizer)
    if args.figures:  # compile first, so that the figures do not include compiling
        warm_up(model, tokens, sampling)
    stop_tokens = () if args.no_end else stop_tokens_of(args.model, tokenizer)
    sampling = {**sampling, "vocabulary": tokenizer.n_vocab}
    if draft is None:
        found = stream_text(
            model,
            tokenizer,
            [tokens],
            args.max_new_tokens,
            samples=args.samples,
            stop=args.stop,
            stop_tokens=stop_tokens,
            **sampling,
        )
    else:
        new = speculate(model, draft, tokens, args.max_new_tokens, stop_tokens=stop_tokens, **sampling)
        found = pieces(new, tokenizer, 1, args.stop)
    if args.samples == 1:
        write_as_it_comes(prompt, found)
    else:
        write_in_order(prompt, found, args.samples)
    if args.figures:
        print(model.summary(), file=sys.stderr)


def warm_up(model, tokens, sampling):
    """Compile and load every kernel that generation calls; the meter does not count this time."""
    from ..inference import generate

    generate(model, tokens[:4] * 2, 2, **sampling)
    model.forget()


def sampling_options(args):
    """The arguments of ``Sampling`` from the command line."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    return {name: getattr(args, name) for name in names} | {"logit_bias": dict(map(parse_bias, args.logit_bias))}


def parse_bias(text):
    """``(id, bias)`` from ``ID=X``."""
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise ConfigError("not a bias", field="--logit-bias", found=text, expected="ID=X, such as 13=-inf") from None


def use_utf8():
    """Write text to standard output in any encoding."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")


def write_as_it_comes(prompt, pieces):
    """Show the prompt and the text after it, piece by piece, from the first piece on: kernels may compile before it."""
    pieces = iter(pieces)
    first = next(pieces, None)
    print(prompt, end="" if first is None else first.text, flush=True)
    for piece in pieces:
        print(piece.text, end="", flush=True)
    print()


def write_in_order(prompt, pieces, count):
    """Write several texts at the same time; show them one after the other when all have ended."""
    texts = [prompt] * count
    for piece in pieces:
        texts[piece.sequence] += piece.text
    for number, text in enumerate(texts, 1):
        print(f"--- sample {number} of {count}\n{text}")
