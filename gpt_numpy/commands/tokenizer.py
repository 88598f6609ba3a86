"""``gpt-numpy tokenizer``: train a byte-level BPE vocabulary, encode and decode with it, look at it, compare two."""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

from ..errors import ConfigError, TokenizerError
from ..files.regular import open_regular
from ..host import terminal
from ..wording import counted

EXAMPLES = (
    ("gpt-numpy tokenizer train notes/ --vocab-size 2048 --out vocabulary", ""),
    ('gpt-numpy tokenizer encode --tokenizer vocabulary "The cat sat"', ""),
    ('gpt-numpy tokenizer show --tokenizer runs/notes-1 "The cat sat"', "coloured by token"),
)
WORDS = {
    "pass it in allowed_special to encode it as one id, or disallowed_special=() to encode it as ordinary text": (
        "--specials allow takes it for the token, --specials text for ordinary text"
    ),
    "another encoding, or errors=replace": "another --encoding, or --errors replace",
    "choose the encoding": "choose it with --encoding",
}


def configure(parser):
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (summary, configure_action, _) in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary, formatter_class=parser.formatter_class)
        configure_action(action)
        # The parser above has it too; this default must not undo a --debug that stood before ACTION.
        action.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def run(args):
    _, _, run_action = ACTIONS[args.action]
    return run_action(args)


# --- train and convert: what writes a vocabulary -----------------------------------------------------------------


def configure_train(parser):
    from ..tokenizer import END_OF_TEXT, GPT2_PATTERN
    from ..tokenizer.reference import TIES

    parser.add_argument("files", nargs="+", metavar="FILE", help="text files, folders, globs; - is standard input")
    parser.add_argument(
        "--vocab-size", type=int, required=True, metavar="N", help="number of ids, special tokens included"
    )
    parser.add_argument(
        "--special", action="append", metavar="TOKEN", help=f"a special token; may be repeated (unset: {END_OF_TEXT})"
    )
    parser.add_argument(
        "--pattern", default=GPT2_PATTERN, help="pattern that cuts text into words, in the syntax of `regex`"
    )
    parser.add_argument(
        "--ties",
        choices=TIES,
        default="lowest",
        help="which of several pairs of equal count is merged first: that of the lowest ids, the one that Hugging Face's "
        "tokenizers takes (with its numbering of ids), that of the greatest bytes",
    )
    parser.add_argument("--encoding", default="utf-8", help="of the files")
    parser.add_argument(
        "--errors", choices=("strict", "replace"), default="strict", help="what to do with bytes that are not text"
    )
    _add_output(parser)


def configure_convert(parser):
    _add_tokenizer(parser)
    _add_output(parser)


def _add_output(parser):
    from ..tokenizer.formats.folders import FORMATS

    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, made if missing")
    parser.add_argument("--form", choices=tuple(FORMATS), default="huggingface", help="format of the files to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is in DIR")


def train(args):
    from ..data.text.opening import find_files
    from ..tokenizer import END_OF_TEXT, Tokenizer

    _check_output(args)
    specials = args.special or [END_OF_TEXT]
    started = time.perf_counter()
    with _Bars(find_files(args.files)) as bars, warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        tokenizer = Tokenizer.train(
            _texts(args, specials, bars), args.vocab_size, specials, args.pattern, progress=bars.merged, ties=args.ties
        )
    for note in notes:
        print(f"gpt-numpy tokenizer: {note.message}", file=sys.stderr)
    tokenizer.save(args.out, args.form)
    n_merges = len(tokenizer.vocabulary.merges)
    print(
        f"{counted(tokenizer.n_vocab, 'id')}: 256 bytes, {counted(n_merges, 'merge')}, {len(specials)} special; from "
        f"{counted(bars.n_characters, 'character')} in {time.perf_counter() - started:.1f} s"
    )
    _print_output(args)


def convert(args):
    from ..locating import find_tokenizer
    from ..tokenizer import Tokenizer

    _check_output(args)
    Tokenizer.load(find_tokenizer(args.tokenizer)).save(args.out, args.form)
    _print_output(args)


def _texts(args, specials, bars):
    """The text of all files, in pieces that divide no word."""
    from ..data.text.reading import read_documents, read_pieces
    from ..tokenizer import GPT2_PATTERN

    # Pieces end before white space, which divides no word of GPT-2's pattern. Other patterns and special tokens may differ.
    whole = args.pattern != GPT2_PATTERN or any(c.isspace() for token in specials for c in token)
    for path in bars.paths:
        if whole:
            yield from map(bars.read, read_documents([path], "file", encoding=args.encoding, errors=args.errors))
        else:
            pieces = read_pieces(path, "file", encoding=args.encoding, errors=args.errors)
            yield from (bars.read(piece.text) for piece in pieces)
        bars.reading.update()
    bars.reading.close()


class _Bars:
    """Two bars on standard error: files read, then merges made."""

    def __init__(self, paths):
        self.paths, self.n_characters = paths, 0
        self.reading = terminal.bar(total=len(paths), desc="reading", unit="file")
        self.merging = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reading.close()
        if self.merging is not None:
            self.merging.close()

    def read(self, text):
        self.n_characters += len(text)
        self.reading.set_postfix_str(f"{self.n_characters / 1e6:.1f} M characters", refresh=False)
        return text

    def merged(self, done, total):
        if self.merging is None:
            self.merging = terminal.bar(total=total, desc="merging", unit="merge")
        self.merging.update(done - self.merging.n)


def _check_output(args):
    """Check the output folder before the work begins."""
    from ..tokenizer.formats.folders import present

    out = Path(args.out)
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError("not a folder that can be written to", path=nearest, field="--out")
    if (found := present(out)) and not args.overwrite:
        raise ConfigError(
            "the folder holds a tokenizer already",
            path=found[0],
            field="--out",
            expected="another folder, or --overwrite",
        )


def _print_output(args):
    from ..tokenizer.formats.folders import present

    for path in present(Path(args.out)):
        print(f"  {path}  {path.stat().st_size:,} bytes")


# --- encode and decode -------------------------------------------------------------------------------------------


def _add_tokenizer(parser):
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="DIR",
        help="folder with the vocabulary (or a tokenizer.json or .tiktoken file)",
    )


def _add_json(parser, text):
    parser.add_argument("--json", action="store_true", help=text)


def _add_text(parser):
    parser.add_argument("text", nargs="?", help="the text itself (unset: --file)")
    parser.add_argument("--file", metavar="FILE", default="-", help="read the text from FILE; - is standard input")
    parser.add_argument(
        "--specials",
        choices=tuple(SPECIALS),
        default="refuse",
        help="special tokens in the text: an error, their ids, or ordinary text",
    )


SPECIALS = {"refuse": {}, "allow": {"allowed_special": "all"}, "text": {"disallowed_special": ()}}


def configure_encode(parser):
    _add_tokenizer(parser)
    _add_text(parser)
    parser.add_argument("--out", metavar="FILE.npy", help="write the ids as a NumPy array (unset: print them)")
    _add_json(parser, "print the ids as a JSON list")


def configure_decode(parser):
    _add_tokenizer(parser)
    parser.add_argument("ids", nargs="*", metavar="ID", help="token ids (none: from standard input)")


def encode(args):
    import numpy as np

    from ..data import token_dtype
    from ..tokenizer import load_tokenizer

    tokenizer = load_tokenizer(args.tokenizer)
    arrays = _encoded(tokenizer, args)
    if args.json and args.out is None:
        print(json.dumps([i for ids in arrays for i in ids.tolist()]))
        return
    if args.out is None:
        for n, ids in enumerate(arrays):
            print(" " * (n > 0) + " ".join(map(str, ids.tolist())), end="")
        print()
        return
    dtype = token_dtype(tokenizer.n_vocab)
    ids = np.concatenate([np.empty(0, dtype), *(array.astype(dtype) for array in arrays)])
    with open(args.out, "wb") as file:
        np.save(file, ids)
    print(f"{counted(len(ids), 'id')} ({ids.dtype}) in {args.out}")


def _encoded(tokenizer, args):
    """The ids of the text that the arguments name, in arrays: as a stream where the tokenizer can."""
    import numpy as np

    from ..tokenizer import GPT2_PATTERN, Tokenizer

    if isinstance(tokenizer, Tokenizer) and tokenizer.vocabulary.pattern == GPT2_PATTERN:
        return tokenizer.encode_stream(_chunks(args), **SPECIALS[args.specials])
    return [np.array(tokenizer.encode("".join(_chunks(args)), **SPECIALS[args.specials]), np.int64)]


def decode(args):
    from ..tokenizer import load_tokenizer

    tokenizer = load_tokenizer(args.tokenizer)
    ids = []
    for position, word in enumerate(args.ids or sys.stdin.read().replace(",", " ").split()):
        try:
            ids.append(int(word.strip("[],")))
        except ValueError:
            raise TokenizerError("not a token id", field=f"position {position}", found=word) from None
    data = tokenizer.decode_bytes(ids)
    if sys.stdout.isatty():
        print(data.decode("utf-8", "replace"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _chunks(args):
    """The text that the arguments name, in chunks."""
    from ..tokenizer.streaming import read_chunks

    if args.text is not None:
        yield args.text
    elif args.file == "-":
        yield from read_chunks(sys.stdin.buffer, "standard input")
    else:
        with open_regular(args.file, expected="a file, or - for standard input") as file:
            yield from read_chunks(file, args.file)


# --- show and compare --------------------------------------------------------------------------------------------


def configure_show(parser):
    _add_tokenizer(parser)
    _add_text(parser)
    parser.add_argument("--html", metavar="FILE", help="write a self-contained page instead")
    parser.add_argument("--colour", choices=("auto", "always", "never"), default="auto", help="in the terminal")
    _add_json(parser, "print every token as JSON: its id, its bytes in hexadecimal, its text")


def configure_compare(parser):
    parser.add_argument("first", metavar="A", help="folder of one tokenizer")
    parser.add_argument("second", metavar="B", help="folder of the other")
    parser.add_argument("--text", required=True, action="append", metavar="FILE", help="text to cut; may be repeated")
    _add_json(parser, "print the figures as JSON")


def show(args):
    from ..tokenizer import load_tokenizer, rendering

    tokenizer = load_tokenizer(args.tokenizer)
    ids = tokenizer.encode("".join(_chunks(args)), **SPECIALS[args.specials])
    tokens = {i: tokenizer.decode_bytes([i]) for i in set(ids)}
    if args.json:
        listed = [{"id": i, "bytes": tokens[i].hex(), "text": tokens[i].decode("utf-8", "replace")} for i in ids]
        print(json.dumps({"tokens": len(ids), "bytes": sum(len(tokens[i]) for i in ids), "listed": listed}, indent=1))
        return
    if args.html:
        title = args.text if args.text is not None else args.file
        page = rendering.html_page(ids, tokens, tokenizer.n_vocab, f"{title[:60]} by {args.tokenizer}")
        Path(args.html).write_text(page, encoding="utf-8")
        print(f"{counted(len(ids), 'token')} in {args.html}")
        return
    colour = terminal.wants_colour(args.colour, sys.stdout)
    for line in rendering.terminal_lines(ids, tokens, terminal.columns(), colour):
        print(line, file=terminal.unescaped(sys.stdout))
    n_bytes = sum(len(tokens[i]) for i in ids)
    per_token = f", {n_bytes / len(ids):.2f} bytes per token" if ids else ""
    print(f"{counted(len(ids), 'token')}, {counted(n_bytes, 'byte')}{per_token}")


def compare(args):
    from ..data import read_documents
    from ..tokenizer import load_tokenizer

    texts = list(read_documents(args.text, "file"))
    n_bytes, n_words = sum(len(text.encode("utf-8")) for text in texts), sum(len(text.split()) for text in texts)
    columns, figures = [], []
    for name in (args.first, args.second):
        tokenizer = load_tokenizer(name)
        ids = [i for text in texts for i in tokenizer.encode_ordinary(text)]
        used = set(ids)
        longest = max((tokenizer.decode([i]) for i in sorted(used)), key=len, default="")
        counts = {"ids": tokenizer.n_vocab, "tokens": len(ids), "ids_used": len(used), "longest_token": longest}
        figures.append({"tokenizer": name, **counts})
        columns.append(
            {
                "": name,
                "ids": f"{tokenizer.n_vocab:,}",
                "tokens": f"{len(ids):,}",
                "bytes per token": f"{n_bytes / max(len(ids), 1):.3f}",
                "tokens per word": f"{len(ids) / max(n_words, 1):.3f}",
                "ids used": f"{len(used):,}",
                "longest token": repr(longest if len(longest) <= 24 else longest[:24] + "…"),
            }
        )
    if args.json:
        print(json.dumps({"bytes": n_bytes, "words": n_words, "texts": len(texts), "tokenizers": figures}, indent=2))
        return
    sizes = f"{counted(n_bytes, 'byte')} and {counted(n_words, 'word')} (between white space)"
    print(f"{sizes} in {counted(len(texts), 'text')}")
    widths = [max(map(len, column.values())) for column in columns]
    for label in columns[0]:
        print(f"{label:15}", *(column[label].rjust(size) for column, size in zip(columns, widths)), sep="  ")


ACTIONS = {
    "train": ("learn a vocabulary from text files", configure_train, train),
    "encode": ("text to ids", configure_encode, encode),
    "decode": ("ids to text", configure_decode, decode),
    "show": ("a text coloured by token, with ids: in the terminal or as a page", configure_show, show),
    "compare": ("how two vocabularies cut the same text", configure_compare, compare),
    "convert": ("write a vocabulary in the files of another program", configure_convert, convert),
}
