"""``gpt-numpy eval``: measures of a trained model on local files, as papers quote them."""

import json
from pathlib import Path

from ..config import check_integer
from ..errors import ConfigError, DataError
from ..host import terminal
from ..products import PRODUCTS, WEIGHT_FORMATS

EXAMPLES = (
    ("gpt-numpy eval --model runs/notes-1 --text chapter.txt", "loss, perplexity, bits per byte"),
    ("gpt-numpy eval --model data/gpt2 --text wiki.txt --stride 512 --json", "as papers do; for a program to read"),
    ("gpt-numpy eval --model data/gpt2 --next-word lambada_test.jsonl", "LAMBADA: the last word of a passage"),
    ("gpt-numpy eval --model data/gpt2 --choices hellaswag_val.jsonl --limit 1000", "HellaSwag: which ending"),
)


def configure(parser):
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a run's or a Hugging Face GPT-2 folder")
    parser.add_argument("--text", nargs="+", type=Path, metavar="FILE", help="UTF-8 texts: loss and perplexity")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="tokens between the windows of a text (default: half the model's context)",
    )
    parser.add_argument(
        "--next-word",
        "--lambada",
        metavar="FILE",
        help='passages whose last word the model predicts: one a line, or .jsonl with a "text"',
    )
    parser.add_argument(
        "--choices",
        "--hellaswag",
        metavar="FILE",
        help='questions, one JSON object a line: "ctx", "endings", "label" (from 0)',
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N passages and questions")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="continuations read at the same time")
    parser.add_argument("--format", choices=WEIGHT_FORMATS, help="how the weights are kept (default: as saved)")
    parser.add_argument(
        "--products",
        choices=PRODUCTS,
        default="float32",
        help="bfloat16: round operands while reading texts, which is faster (default: float32)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args):
    if not (args.text or args.next_word or args.choices):
        raise ConfigError("nothing to evaluate on", expected="--text, --next-word or --choices")
    for name in ("limit", "batch_size"):
        if getattr(args, name) is not None:
            check_integer(name, getattr(args, name), minimum=1)
    from ..data import read_as_trained
    from ..evaluating import tasks
    from ..inference.loading import find_model, load_decoder
    from . import say_checkpoint
    from .score import decode_utf8

    # All files are read before the model works for minutes.
    texts = {str(path): decode_utf8(path) for path in args.text or ()}
    passages = tasks.read_passages(args.next_word)[: args.limit] if args.next_word else ()
    questions = tasks.read_questions(args.choices)[: args.limit] if args.choices else ()
    say_checkpoint(args.model)
    model, tokenizer = load_decoder(args.model, args.format, args.products)
    folder = find_model(args.model)

    def read(text):
        return read_as_trained(folder, text)[0]

    texts = {name: read(text) for name, text in texts.items()}
    passages = [read(passage) for passage in passages]
    questions = [(read(context), [read(ending) for ending in endings], right) for context, endings, right in questions]
    results = {}
    for name, text in texts.items():
        results[name] = _of_file(name, lambda text=text: tasks.perplexity(model, tokenizer, [text], args.stride))
    if len(texts) > 1:
        results["all texts"] = tasks.Perplexity(*map(sum, zip(*results.values())))
    if args.next_word:
        with _bar(len(passages), "next word") as bar:
            results[args.next_word] = _of_file(
                args.next_word, lambda: tasks.next_word(model, tokenizer, passages, args.batch_size, bar.update)
            )
    if args.choices:
        with _bar(len(questions), "choices") as bar:
            results[args.choices] = _of_file(
                args.choices, lambda: tasks.multiple_choice(model, tokenizer, questions, args.batch_size, bar.update)
            )
    if args.json:
        print(json.dumps({"model": str(args.model), **{name: r.figures() for name, r in results.items()}}, indent=2))
        return
    for name, result in results.items():
        print(f"{name}\n    {_line(result)}")


def _of_file(path, measure):
    """The result of ``measure``; its errors about the content get the file's path."""
    from ..errors import GenerationError

    try:
        return measure()
    except (GenerationError, DataError) as error:
        raise DataError(str(error), path=path) from None


def _bar(total, name):
    return terminal.bar(total=total, desc=name, leave=False)


def _line(result):
    """The figures of one result, with their units."""
    texts = []
    for name, value in result.figures().items():
        name = name.replace("_", " ")
        if isinstance(value, int):
            texts.append(f"{value:,} {name}")
        else:
            digits = ".2%" if name.startswith("accuracy") else ".5g" if name == "perplexity" else ".4f"
            texts.append(f"{name} {value:{digits}}")
    return ", ".join(texts)
