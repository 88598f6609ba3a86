"""``gpt-numpy score``: how probable a model finds a text, as a whole and token by token."""

import codecs
import json
import math
import sys
from pathlib import Path

from ..errors import DataError, GenerationError
from ..files.regular import read_regular
from ..host import terminal
from ..products import PRODUCTS, WEIGHT_FORMATS

EXAMPLES = (
    ('gpt-numpy score --model runs/notes-1 "The cat sat on the mat."', "a text"),
    ("gpt-numpy score --model runs/notes-1 --file chapter.txt --tokens", "a file, token by token"),
)


def configure(parser):
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text; - reads it from standard input")
    parser.add_argument("--file", type=Path, help="score this UTF-8 file instead")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    parser.add_argument(
        "--format",
        choices=WEIGHT_FORMATS,
        help="how the weights are kept (default: as saved, float32 where the file leaves the choice)",
    )
    parser.add_argument(
        "--products",
        choices=PRODUCTS,
        default="float32",
        help="bfloat16: round operands while reading the text, which is faster (default: float32)",
    )
    parser.add_argument("--json", action="store_true", help="print all figures, token by token, as JSON")
    parser.add_argument("--tokens", action="store_true", help="list every token with its probability")
    parser.add_argument(
        "--colour",
        choices=["auto", "always", "never"],
        default="auto",
        help="show the text coloured by surprise: auto does so on a terminal",
    )


def run(args):
    text = read_text(args)
    from ..data import read_as_trained
    from ..inference.loading import find_model, load_decoder
    from ..inference.score import score_text
    from . import say_checkpoint
    from .generate import use_utf8

    say_checkpoint(args.model)
    model, tokenizer = load_decoder(args.model, args.format, args.products)
    text, steps = read_as_trained(find_model(args.model), text)
    if steps:
        print(f"normalised as the model's training text was: {', '.join(steps)}", file=sys.stderr)
    score = score_text(model, tokenizer, text)
    use_utf8()
    if args.json:
        figures = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}
        ids = score.tokens[1:].tolist()
        listed = [{"id": i, "text": tokenizer.decode([i]), "logprob": p} for i, p in zip(ids, score.logprobs.tolist())]
        print(json.dumps({"tokens": len(ids), "bytes": score.n_bytes, **figures, "listed": listed}, indent=1))
        return
    if args.tokens:
        print(*token_lines(score, tokenizer), sep="\n")
    if terminal.wants_colour(args.colour, sys.stdout):
        escapes = sys.stdout.isatty()
        print(coloured(score, tokenizer, terminal.printable if escapes else str), file=terminal.unescaped(sys.stdout))
    print(f"tokens {len(score.logprobs)}, bytes {score.n_bytes}")
    print(
        f"loss {score.loss:.4f} nats a token, perplexity {score.perplexity:.3f},"
        f" bits per byte {score.bits_per_byte:.4f}"
    )


def read_text(args):
    """The text that the arguments name."""
    if (args.text is None) == (args.file is None):
        raise GenerationError("exactly one of TEXT and --file", field="TEXT")
    if args.file is None:
        return sys.stdin.read() if args.text == "-" else args.text
    return decode_utf8(args.file)


def decode_utf8(path):
    """The text of a UTF-8 file, or a ``DataError`` with the offset of a byte that is not UTF-8."""
    try:
        return read_regular(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", path=path, offset=error.start) from None


def token_lines(score, tokenizer):
    """A line a token: probability, bits, the token's text, or its bytes where they are part of a character."""
    yield "probability    bits  token"
    for token, logprob in zip(score.tokens[1:].tolist(), score.logprobs):
        data = tokenizer.decode_bytes([token])
        try:
            shown = repr(data.decode("utf-8"))
        except UnicodeDecodeError:
            shown = repr(data)
        yield f"{math.exp(logprob):11.6f} {-logprob / math.log(2):7.2f}  {shown}"


def whole_characters(score, tokenizer):
    """Pairs (text, log-probability): of one token, or of the fewest tokens in a row that end with a whole character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, together = "", 0.0
    for token, logprob in zip(score.tokens[1:].tolist(), score.logprobs):
        text, together = text + decoder.decode(tokenizer.decode_bytes([token])), together + logprob
        if not decoder.getstate()[0]:
            yield text, together
            text, together = "", 0.0
    if text := text + decoder.decode(b"", final=True):
        yield text, together


def coloured(score, tokenizer, shown=str):
    """The text, each token on a background from green (expected) over yellow to red (10 bits of surprise or more).

    Tokens that share a character share one background, for their surprise together. ``shown`` makes a token's text printable.
    """
    pieces = []
    for text, logprob in whole_characters(score, tokenizer):
        surprise = min(1.0, -logprob / math.log(2) / 10)
        red, green = round(200 * min(1, 2 * surprise)), round(160 * min(1, 2 - 2 * surprise))
        pieces.append(f"\x1b[30;48;2;{55 + red};{60 + green};70m{shown(text)}\x1b[0m")
    return "".join(pieces)
