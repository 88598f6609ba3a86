"""``gpt-numpy data prepare | inspect | verify``: folders of token shards, made, looked at and checked."""

import json
from pathlib import Path

from ..host import terminal
from ..wording import counted

EXAMPLES = (("gpt-numpy data prepare corpus/ --tokenizer vocabulary --out shards --validation-every 100", ""),)


def configure(parser):
    """Add the three actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    options = {"formatter_class": parser.formatter_class}
    text = "normalise, encode and pack text into a folder of token shards; run it again to go on after a kill"
    _configure_prepare(actions.add_parser("prepare", help=text, description=text, **options))
    text = "show counts, lengths of documents, both ways of packing, and decoded examples"
    inspect = actions.add_parser("inspect", help=text, description=text, **options)
    inspect.add_argument("path", metavar="DIR|FILE.bin", help="a prepared folder, or a token file of llm.c or nanoGPT")
    inspect.add_argument(
        "--block-size", type=int, default=None, help="compare packings for this size (default: the folder's, or 1024)"
    )
    inspect.add_argument(
        "--examples", type=int, default=3, metavar="N", help="number of documents whose beginning is shown"
    )
    inspect.add_argument("--tokenizer", metavar="DIR", help="the tokenizer of a single .bin file")
    inspect.add_argument("--dtype", default="uint16", choices=["uint16", "uint32"], help="of nanoGPT's .bin")
    inspect.add_argument("--json", action="store_true", help="print every figure as JSON")
    text = "check every byte of a prepared folder"
    verify = actions.add_parser("verify", help=text, description=text, **options)
    verify.add_argument("path", metavar="DIR", help="a prepared folder")
    verify.add_argument("--json", action="store_true", help="print the folder's hash and counts as JSON")


def _configure_prepare(parser):
    from ..data.shards.preparing import Settings
    from ..data.text.normalizing import DEFAULT_STEPS, STEPS
    from ..data.text.reading import SPLITS
    from ..data.text.special_text import SPECIALS

    default = Settings()
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files (.gz too), folders, globs, - for standard input, or python-docs",
    )
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="folder of a saved tokenizer")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--split",
        default=default.split,
        choices=SPLITS,
        help="unit that is a document; auto: a JSON record in .jsonl, else a file",
    )
    parser.add_argument(
        "--separator", help=r"text between documents, such as '\n\n'; \n and \t stand for newline and tab"
    )
    parser.add_argument("--text-field", default=default.text_field, help="of a JSON record")
    parser.add_argument("--encoding", default=default.encoding, help="of the files")
    parser.add_argument("--errors", default=default.errors, choices=["strict", "replace"], help="at a bad byte")
    parser.add_argument(
        "--normalize",
        default=",".join(DEFAULT_STEPS),
        metavar="STEPS",
        help=f"comma-separated steps, or none; known: {', '.join(STEPS)}",
    )
    parser.add_argument(
        "--specials",
        default=default.specials,
        choices=SPECIALS,
        help="special tokens spelled out in the text: the token (end-of-text ends a document), an error, or text",
    )
    parser.add_argument(
        "--packing",
        default="concat",
        choices=["concat", "fit"],
        help="let documents flow across blocks, or fit them into rows",
    )
    parser.add_argument("--block-size", type=int, help="the rows' block size, for --packing fit")
    parser.add_argument("--shard-tokens", type=int, default=default.shard_tokens, metavar="N", help="tokens a shard")
    parser.add_argument(
        "--validation-every",
        type=int,
        default=default.validation_every,
        metavar="N",
        help="one of N documents goes to validation; 0: none",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed that draws the validation documents")
    parser.add_argument("--threads", type=int, default=None, help="else one a core")
    parser.add_argument("--restart", action="store_true", help="discard what an earlier run left in the folder")


def run(args):
    """Do the action that ``args`` names."""
    {"prepare": _prepare, "inspect": _inspect, "verify": _verify}[args.action](args)


def _prepare(args):
    from ..data.shards.preparing import Settings, prepare
    from ..data.shards.sources import identify
    from ..data.text.opening import STDIN, find_files
    from ..errors import ConfigError
    from ..tokenizer import load_tokenizer

    if (args.packing == "fit") != (args.block_size is not None):
        raise ConfigError("--packing fit and --block-size go together", field="block_size", found=args.block_size)
    settings = Settings(
        split=args.split,
        separator=args.separator,
        text_field=args.text_field,
        encoding=args.encoding,
        errors=args.errors,
        normalize=() if args.normalize == "none" else tuple(args.normalize.split(",")),
        specials=args.specials,
        block_size=args.block_size,
        shard_tokens=args.shard_tokens,
        validation_every=args.validation_every,
        seed=args.seed,
    )
    paths = find_files(args.inputs)
    total = None if STDIN in paths else sum(identify(path)[1] for path in paths)
    tokenizer = load_tokenizer(args.tokenizer)
    with terminal.bar(total=total, unit="B", unit_scale=True, desc="prepare") as bar:
        manifest = prepare(
            args.inputs, tokenizer, args.out, settings, threads=args.threads, restart=args.restart, on_bytes=bar.update
        )
    for line in _summary(manifest):
        print(line)
    print(f"written to {args.out}")


def _verify(args):
    from ..data.shards.dataset import open_dataset

    dataset = open_dataset(args.path)
    shards = sum(len(split["shards"]) for split in dataset.manifest["splits"].values())
    if args.json:
        print(json.dumps({"path": args.path, "shards": shards, "sha256": dataset.sha256}, indent=2))
        return
    print(
        f"{args.path}: {counted(shards, 'shard')}, tokenizer and manifest are as they were written ({dataset.sha256[:16]}…)"
    )


def _inspect(args):
    from ..data.shards.dataset import open_dataset
    from ..data.shards.token_files import read_token_file
    from ..errors import DataError
    from ..tokenizer import load_tokenizer

    if not Path(args.path).exists():
        raise DataError("there is no such file or folder", path=args.path)
    if Path(args.path).is_dir():
        dataset = open_dataset(args.path)
        whole = {name: dataset.manifest[name] for name in ("splits", "vocab_size", "eot_id", "inputs", "settings")}
        for line in [*_summary(dataset.manifest), *_settings(dataset.manifest)] * (not args.json):
            print(line)
        tokenizer = load_tokenizer(dataset.tokenizer)
        tokens, row_length = dataset.train, dataset.manifest["row_length"]
    else:
        if not args.tokenizer:
            raise DataError("a token file does not name its vocabulary", path=args.path, expected="--tokenizer DIR")
        tokenizer, row_length = load_tokenizer(args.tokenizer), 0
        tokens = read_token_file(args.path, tokenizer.n_vocab, args.dtype)
        whole = {"dtype": tokens.dtype.name}
        target = f" in {Path(args.path).resolve()}" if Path(args.path).is_symlink() else ""
        if not args.json:
            print(f"{counted(len(tokens), 'token')} of {tokens.dtype.name}{target}")
    _describe(tokens, tokenizer, row_length, args, whole)


def _describe(tokens, tokenizer, row_length, args, whole):
    from ..data.shards.inspecting import document_lengths, examples, histogram_lines, packing_reports

    lengths = document_lengths(tokens, tokenizer.eot_id, row_length)
    if args.json:
        packings = {} if row_length else packing_reports(lengths, args.block_size or 1024)
        packings = {name: report._asdict() for name, report in packings.items()}
        figures = {"tokens": len(tokens), "documents": len(lengths), "lengths": lengths.tolist(), "packing": packings}
        print(json.dumps({"path": args.path, **whole, **figures}, indent=2))
        return
    what = counted(len(lengths), "piece of a document", "pieces of documents") if row_length else None
    print(f"\nlengths of {what or counted(len(lengths), 'document')} in tokens, end-of-text included (train):")
    for line in histogram_lines(lengths):
        print(line)
    if not row_length:
        block_size = args.block_size or 1024
        print(f"\nblocks of {block_size} from these documents, by either policy:")
        for name, report in packing_reports(lengths, block_size).items():
            print(
                f"  {name:6}  {counted(report.blocks, 'block')}, utilisation {report.utilisation:.2%},"
                f" tokens kept {report.kept:.2%}, {_cut(report.cut_documents, report.cuts)},"
                f" padding {counted(report.padding, 'token')}"
            )
    for number, text in enumerate(
        examples(tokens, tokenizer.eot_id, tokenizer.decode, args.examples, 40, row_length), 1
    ):
        print(f"\nexample {number}: {text!r}")


def _summary(manifest):
    """Lines with the counts of each split."""
    for split, record in manifest["splits"].items():
        tokens, documents = record["tokens"], record["documents"]
        yield (
            f"{split}: {counted(tokens, 'token')} in {counted(len(record['shards']), 'shard')},"
            f" {counted(documents, 'document')},"
            f" {record['text_bytes'] / max(tokens - record['padding'], 1):.3f} bytes a token"
        )
        if manifest["row_length"]:
            yield (
                f"  rows of {manifest['row_length']}: utilisation {1 - record['padding'] / max(tokens, 1):.2%},"
                f" padding {counted(record['padding'], 'token')}, {_cut(record['cut_documents'], record['cuts'])}"
            )


def _cut(documents, cuts):
    return f"{counted(documents, 'document')} cut in {counted(cuts, 'position')}"


def _settings(manifest):
    """Lines with the settings that made the folder."""
    inputs = counted(len(manifest["inputs"]), "input")
    yield f"vocabulary {manifest['vocab_size']:,}, end-of-text {manifest['eot_id']}, {inputs}"
    for name, value in manifest["settings"].items():
        yield f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
