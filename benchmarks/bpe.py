"""The tokenizer next to the Rust libraries: ``python -m benchmarks tokenizer [CASE…]``.

encode    one text, one thread, GPT-2's vocabulary: arrays and lists of ids, caches full and empty, next to gigatoken,
          fastokens, tokie, tiktoken and Hugging Face tokenizers
cold      the same with empty caches: a new tokenizer for each round, gigatoken's loaded before the clock starts
short     the lines of each text, one thread: ragged arrays and lists
batch     many documents, all cores
train     learning a vocabulary, next to rustbpe and Hugging Face tokenizers, with the same pattern
runs      a million times the same characters: the time must not grow with the square
compile   what numba's compiler takes once, in a process with an empty cache

The texts: Tiny Shakespeare, ten megabytes of Python's standard library, and a generated text of six kinds
(``corpus``; --generated sets its size). Contenders take turns, round after round; a ratio is the median over rounds.
Each contender's result is compared with tiktoken's tokens (or rustbpe's merges) before anything is timed. A library
that is not installed, or whose ids differ, is named and left out. The vocabulary and Tiny Shakespeare come from --data,
by default $GPT_NUMPY_TEST_DATA.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from gpt_numpy.commands.download import find
from gpt_numpy.errors import ConfigError
from gpt_numpy.host.processors import cores
from gpt_numpy.tokenizer import GPT2_PATTERN, Tokenizer

from . import corpus, timing
from .peers.encoders import gigatoken_of, peers_of, tiktoken_of, tokenizers_of

SOURCE_BYTES = 10_000_000
GENERATED_BYTES = 12_000_000
VOCAB_SIZES = (4096, 16384, 50257)
UNITS = ("a", "^", " ", "\n", "ab")
OURS = "gpt_numpy"


def standard_library(limit=SOURCE_BYTES):
    """The Python files of the standard library, without its tests, up to ``limit`` bytes: a list of str."""
    root, documents, size = Path(sysconfig.get_path("stdlib")), [], 0
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(root).parts):
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        documents.append(text)
        size += len(text.encode())
        if size >= limit:
            break
    return documents


def documents_of(data, generated=GENERATED_BYTES):
    """name → list of documents: the play's speeches, the library's files, the kinds of generated text."""
    play = find("shakespeare", data)[0].read_bytes().decode()
    kinds = corpus.generate(generated)
    return {
        "Tiny Shakespeare": play.split("\n\n"),
        "Python's library": standard_library(),
        "generated": list(kinds.values()),
        "generated CJK": [kinds["CJK"]],
    }


def _as_list(ids):
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)


def compare(contenders, reference, size=None, rounds=5, left_out_if_wrong=()):
    """Check that all contenders' results are equal, time them in turn, and print a row for each.

    contenders: name → (callable, function that makes its result comparable); ratios are to ``reference``. A contender
    that is wrong ends the run, or is only left out if it is among ``left_out_if_wrong``.
    Returns name → summary with ``speed_up`` (how many times as fast as the reference) and, for a size in bytes, MB/s.
    """
    expected, wrong = None, []
    for name, (function, comparable) in contenders.items():
        found = comparable(function()) if comparable else None
        expected = found if expected is None else expected
        if found is not None and found != expected:
            if name not in left_out_if_wrong:
                raise SystemExit(f"{name} differs from the first contender: not timed")
            print(f"    {name:42} differs: not timed")
            wrong.append(name)
    contenders = {name: pair for name, pair in contenders.items() if name not in wrong}
    functions = {name: function for name, (function, _) in contenders.items()}
    times = timing.interleaved(functions, min_seconds=0, min_rounds=rounds)
    results = {}
    for name, seconds in times.items():
        ratios = [theirs / mine for theirs, mine in zip(times[reference], seconds, strict=True)]
        results[name] = timing.summary(seconds) | {"speed_up": statistics.median(ratios)}
        row = f"    {name:42}{timing.format_seconds(results[name]['median']):>10}"
        if size:
            results[name]["mb_per_s"] = size / results[name]["median"] / 1e6
            row += f"{results[name]['mb_per_s']:>9.1f} MB/s"
        print(f"{row}{results[name]['speed_up']:>9.2f} ×", flush=True)
    return results


def encode(tokenizer, documents, rounds):
    """One text, one thread."""
    theirs, peers, results = tiktoken_of(tokenizer), peers_of(tokenizer), {}
    for title, parts in documents.items():
        text = "\n\n".join(parts)
        size = len(text.encode())
        print(f"  {title}, {size:,} bytes")

        def encode_afresh(text=text):
            tokenizer._encoder.forget()
            return tokenizer.encode_to_array(text, disallowed_special=(), threads=1)

        contenders = {
            f"{OURS} encode_to_array": (
                lambda text=text: tokenizer.encode_to_array(text, disallowed_special=(), threads=1),
                _as_list,
            ),
            f"{OURS} encode_to_array, empty cache": (encode_afresh, _as_list),
            f"{OURS} encode_ordinary (a list)": (lambda text=text: tokenizer.encode_ordinary(text), list),
            **{name: (lambda text=text, f=one: f(text), _as_list) for name, (one, _) in peers.items()},
        }
        if size < 50_000_000:  # a round of these would take seconds on a longer text
            contenders["tiktoken encode_ordinary"] = (lambda text=text: theirs.encode_ordinary(text), list)
        if size < 2_000_000:
            encode_with = tokenizers_of(tokenizer).encode
            contenders["tokenizers encode"] = (lambda text=text, f=encode_with: f(text), lambda found: found.ids)
        reference = next(iter(peers), f"{OURS} encode_to_array")
        results[title] = compare(contenders, reference, size, rounds, left_out_if_wrong=set(peers))
    return results


def cold(tokenizer, documents, rounds):
    """One text, one thread, empty caches."""
    results = {}
    for title, parts in documents.items():
        text = "\n\n".join(parts)
        size, times = len(text.encode()), {OURS: [], "gigatoken": []}
        print(f"  {title}, {size:,} bytes")
        tokenizer.encode_to_array(text[:1000], threads=1)  # compiles
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                tokenizer.save(folder)
                theirs, _ = gigatoken_of(str(Path(folder, "tokenizer.json")))
            tokenizer._encoder.forget()
            ours = functools.partial(tokenizer.encode_to_array, text, disallowed_special=(), threads=1)
            found = {}
            for name, function in ((OURS, ours), ("gigatoken", functools.partial(theirs, text))):
                found[name], seconds = timing.with_result(function)
                times[name].append(seconds)
            if _as_list(found[OURS]) != _as_list(found["gigatoken"]):
                raise SystemExit("gigatoken differs: not timed")
        ratio = statistics.median(theirs / mine for mine, theirs in zip(times[OURS], times["gigatoken"], strict=True))
        results[title] = {name: timing.summary(seconds) for name, seconds in times.items()} | {"speed_up": ratio}
        speeds = ", ".join(f"{name} {size / statistics.median(s) / 1e6:.1f} MB/s" for name, s in times.items())
        print(f"    {speeds}{ratio:>9.2f} ×", flush=True)
    return results


def short(tokenizer, documents, rounds):
    """The lines of each text, one thread."""
    peers, results = peers_of(tokenizer), {}
    for title, parts in documents.items():
        lines = [line for part in parts for line in part.split("\n")]
        size = sum(len(line.encode()) for line in lines)
        print(f"  {title}, {len(lines):,} lines, {size:,} bytes")
        contenders = {
            f"{OURS} encode_batch as_arrays": (
                lambda lines=lines: tokenizer.encode_batch(lines, disallowed_special=(), threads=1, as_arrays=True),
                lambda batch: [row.tolist() for row in batch.rows()],
            ),
            f"{OURS} encode_batch (lists)": (
                lambda lines=lines: tokenizer.encode_batch(lines, disallowed_special=(), threads=1),
                list,
            ),
            **{
                f"{name} encode_batch": (lambda lines=lines, f=many: f(lines), _as_list)
                for name, (_, many) in peers.items()
                if many
            },
        }
        reference = next(reversed(contenders))
        results[title] = compare(contenders, reference, size, rounds, left_out_if_wrong=set(contenders) - {reference})
    return results


def batch(tokenizer, documents, rounds):
    """Many documents, all cores."""
    theirs, results, count = tiktoken_of(tokenizer), {}, len(cores())
    for title, parts in documents.items():
        size = sum(len(part.encode()) for part in parts)
        print(f"  {title}, {len(parts):,} documents, {size:,} bytes, {count} threads")
        contenders = {
            "tiktoken encode_ordinary_batch": (
                lambda parts=parts: theirs.encode_ordinary_batch(parts, num_threads=count),
                list,
            ),
            f"{OURS} encode_batch": (lambda parts=parts: tokenizer.encode_batch(parts, disallowed_special=()), list),
        }
        results[title] = compare(contenders, "tiktoken encode_ordinary_batch", size, rounds)
    return results


def _train_rustbpe(documents, vocab_size):
    import rustbpe

    trained = rustbpe.Tokenizer()
    trained.train_from_iterator(iter(documents), vocab_size, pattern=GPT2_PATTERN)
    return trained


def _train_huggingface(documents, vocab_size):
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def train(documents, rounds, vocab_sizes=VOCAB_SIZES):
    """Vocabularies of several sizes. Hugging Face breaks ties by its own rule, so its merges are not compared."""
    results = {}
    for title, parts in documents.items():
        for vocab_size in vocab_sizes:
            print(f"  {title}, {vocab_size:,} tokens")
            contenders = {
                "rustbpe": (
                    lambda parts=parts, n=vocab_size: _train_rustbpe(parts, n),
                    lambda trained: [bytes(token) for token, _ in trained.get_mergeable_ranks()],
                ),
                OURS: (
                    lambda parts=parts, n=vocab_size: Tokenizer.train(parts, n, special_tokens=()),
                    lambda trained: list(trained.vocabulary.tokens),
                ),
                "tokenizers": (lambda parts=parts, n=vocab_size: _train_huggingface(parts, n), None),
            }
            results[f"{title}, {vocab_size}"] = compare(contenders, "rustbpe", rounds=rounds)
    return results


def runs(tokenizer, rounds, count=1_000_000):
    """Seconds for ``count`` times a unit, and the ratio of the time for twice as many to that time."""
    results = {}
    for unit in UNITS:
        texts = {"n": unit * count, "2n": unit * (2 * count)}
        functions = {name: lambda text=text: tokenizer.encode(text) for name, text in texts.items()}
        times = timing.interleaved(functions, min_seconds=0, min_rounds=rounds)
        growth = statistics.median(twice / once for once, twice in zip(times["n"], times["2n"], strict=True))
        results[unit] = timing.summary(times["n"]) | {"growth": growth}
        print(f"    {unit!r:6} × {count:,}{timing.format_seconds(results[unit]['median']):>12}   twice: {growth:.2f} ×")
    return results


_FIRST_CALLS = """
import json, time
start = time.perf_counter()
from gpt_numpy.kernels.bpe import BPEEncoder
from gpt_numpy.kernels.bpe.counting import WordCounter
from gpt_numpy.kernels.bpe.training import train_merges
imported = time.perf_counter()
BPEEncoder(range(256), [(97, 98)]).encode("ab")
encoded = time.perf_counter()
counter = WordCounter()
counter.add(["ab"])
train_merges(counter.words(), 1)
print(json.dumps({"encode": encoded - imported, "train": time.perf_counter() - encoded}))
"""


def compile_once():
    """Seconds of the first encoding and the first training in a new process, with an empty cache and a full one."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "full"):
            run = subprocess.run(
                [sys.executable, "-c", _FIRST_CALLS],
                env=dict(os.environ, NUMBA_CACHE_DIR=folder),
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                check=True,
            )
            results[cache] = json.loads(run.stdout)
            seconds = results[cache]
            print(f"    {cache} cache: first encode {seconds['encode']:.2f} s, first train {seconds['train']:.2f} s")
    return results


CASES = {
    "encode": "one text, one thread, next to gigatoken, fastokens, tokie, tiktoken and tokenizers",
    "cold": "as encode, with empty caches, next to gigatoken",
    "short": "the lines of the texts, one thread, next to gigatoken",
    "batch": "many documents, all cores, next to tiktoken",
    "train": "learning a vocabulary, next to rustbpe and tokenizers",
    "runs": "a million times the same characters, and two million",
    "compile": "the first call in a new process, with an empty and a full cache",
}


def configure(parser):
    """Declare the arguments of ``python -m benchmarks tokenizer``."""
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all when none is given")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    sizes = ", ".join(map(str, VOCAB_SIZES))
    parser.add_argument("--vocab-size", type=int, action="append", help=f"to train to, repeatable (default {sizes})")
    parser.add_argument(
        "--generated",
        type=int,
        default=GENERATED_BYTES,
        metavar="BYTES",
        help=f"size of the generated text (default {GENERATED_BYTES:,}; 200000000 for one that no cache holds)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("GPT_NUMPY_TEST_DATA"),
        help="folder of the texts and of GPT-2's vocabulary (default: $GPT_NUMPY_TEST_DATA)",
    )


def run(args):
    """Measure what ``args`` name; case → results."""
    if args.data is None:
        raise ConfigError(
            "is missing",
            field="--data",
            expected="a folder with what 'gpt-numpy download' fetches as shakespeare and gpt2-vocabulary",
        )
    data = Path(args.data)
    documents, tokenizer = documents_of(data, args.generated), Tokenizer.load(find("gpt2-vocabulary", data)[0].parent)
    natural = {title: parts for title, parts in documents.items() if "generated" not in title}
    cases = {
        "encode": lambda: encode(tokenizer, documents, args.rounds),
        "cold": lambda: cold(tokenizer, documents, args.rounds),
        "short": lambda: short(tokenizer, documents, args.rounds),
        "batch": lambda: batch(tokenizer, documents, args.rounds),
        "train": lambda: train(natural, args.rounds, args.vocab_size or VOCAB_SIZES),
        "runs": lambda: runs(tokenizer, args.rounds),
        "compile": compile_once,
    }
    results = {}
    for name in args.names or CASES:
        print(f"\n{name}: {CASES[name]}")
        results[name] = cases[name]()
    return results
