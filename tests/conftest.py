"""What every test shares: the test data's folder, and the rule that CI skips nothing by accident."""

import importlib.util
import os
import pathlib
import random
import re
import signal
import sys

import pytest
import regex

ROOT = pathlib.Path(__file__).parents[1]

# Programs that tests start keep their output in buffers, as they do for users: what is lost there has to be seen here.
os.environ.pop("PYTHONUNBUFFERED", None)
# Tables are as wide as COLUMNS says, and a process of pytest-xdist finds it set.
os.environ.pop("COLUMNS", None)

# `benchmarks` and `scripts` are not installed; at the end of the path, so that an installed gpt_numpy wins.
sys.path.append(str(ROOT))

# With --no-skips these reasons alone are fine: what a test needs that `pip install ".[test]"` does not bring.
ALLOWED_SKIPS = re.compile(
    r"^Skipped: (needs (torch|transformers|jax|rustbpe|mpiexec|chromium|strace|a machine with)|only on )"
)

_skipped_by_accident: list[str] = []


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail when a test is skipped that should run here")
    parser.addoption("--installed", action="store_true", help="test the installed copy of gpt_numpy, on purpose")


def _refuse_another_copy():
    """An edit here has no effect on a copy in site-packages: tests of that copy would pass whatever was broken."""
    tested = pathlib.Path(importlib.util.find_spec("gpt_numpy").origin).parents[1]
    if tested != ROOT:
        pytest.exit(
            f"these tests belong to {ROOT}, but Python imports gpt_numpy from {tested}: "
            'run `pip install -e ".[test]"` in the first folder (or test that copy on purpose: pytest --installed)',
            returncode=4,
        )


def _share_the_whole_suite_between_two_processes(config):
    """The tests of a file stay together. A run that names files, and ``-n 0``, has one process."""
    from gpt_numpy.host import processors

    options, folder = config.option, config.invocation_params.dir
    if (
        not {(folder / path).resolve() for path in config.args} <= {ROOT, ROOT / "tests"}
        or hasattr(config, "workerinput")
        or not config.pluginmanager.hasplugin("xdist")
        or options.numprocesses is not None
        or options.dist != "no"
        or options.usepdb
        or len(processors.cores()) < 2
    ):
        return
    options.tx, options.dist = ["popen", "popen"], "loadfile"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if not config.option.installed:
        _refuse_another_copy()
    _share_the_whole_suite_between_two_processes(config)
    # In the background of a shell and under nohup these are ignored, also by the commands that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if "campaign" not in (config.option.markexpr or "") and not config.option.markexpr:
        config.option.markexpr = "not campaign"


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not ALLOWED_SKIPS.match(reason):
            _skipped_by_accident.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session, exitstatus):
    if session.config.option.no_skips and _skipped_by_accident and exitstatus == 0:
        print("\nskipped, but should have run here:\n  " + "\n  ".join(_skipped_by_accident))
        session.exitstatus = 1


@pytest.fixture(scope="session")
def test_data():
    """A function: paths of the files of one entry of `gpt-numpy download`; the test is skipped where no folder is set.

    The folder is $GPT_NUMPY_TEST_DATA, laid out as the command does with --out or without, or with OpenAI's names.
    """
    folder = os.environ.get("GPT_NUMPY_TEST_DATA")
    if not folder:
        pytest.skip("GPT_NUMPY_TEST_DATA is not set")
    from gpt_numpy.commands import download

    return lambda what: download.find(what, pathlib.Path(folder))


@pytest.fixture(scope="session")
def shakespeare(test_data):
    return test_data("shakespeare")[0].read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def gpt2(test_data):
    """GPT-2's own tokenizer."""
    from gpt_numpy.tokenizer import Tokenizer

    return Tokenizer.load(test_data("gpt2-vocabulary")[0].parent)


@pytest.fixture(scope="session")
def tiktoken_of():
    """A function: tiktoken's encoder of a tokenizer's ranks, specials and pattern, built without a download."""
    tiktoken = pytest.importorskip("tiktoken")

    def build(tokenizer):
        vocabulary = tokenizer.vocabulary
        special_ids = set(vocabulary.special_tokens.values())
        ranks = {token: i for i, token in enumerate(vocabulary.tokens) if i not in special_ids}
        return tiktoken.Encoding(
            "same", pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens=vocabulary.special_tokens
        )

    return build


@pytest.fixture(scope="session")
def tiktoken_gpt2(tiktoken_of, gpt2):
    return tiktoken_of(gpt2)


@pytest.fixture(scope="session")
def characters():
    """All characters of all planes, without the surrogates."""
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


@pytest.fixture(scope="session")
def agreed_characters(characters):
    """The characters that ``regex`` and tiktoken class alike: they follow different versions of Unicode."""
    tiktoken = pytest.importorskip("tiktoken")
    every_byte = {bytes([byte]): byte for byte in range(256)}
    everything, disputed = "".join(characters), set()
    for name in (r"\p{L}", r"\p{N}", r"\s"):
        of_class = tiktoken.Encoding("class", pat_str=name, mergeable_ranks=every_byte, special_tokens={})
        theirs = set(of_class.decode(of_class.encode_ordinary(everything)))
        disputed |= theirs ^ set(regex.findall(name, everything))
    assert len(disputed) < 50_000
    return [character for character in characters if character not in disputed]


_PIECES = [
    "'s",
    "'t",
    "'re",
    "'ve",
    "'m",
    "'ll",
    "'d",
    "'S",
    "'l",
    "'r",
    "'v",
    "'",
    "''",
    " '",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\x00",
    "\x1c",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "\ufeff",
    "\ufffd",
    "\u200d",
    "a",
    "Z",
    "the",
    " the",
    " of",
    "naïve",
    "é",
    "e\u0301",
    "ß",
    "中",
    "文",
    "½",
    " ½",
    "²",
    "٣",
    "Ⅷ",
    "0",
    "12",
    " 3",
    "_",
    "-",
    "--",
    "...",
    " <|endoftext",
    "| >",
    "🙂",
    "👩\u200d👧",
    "🇫🇷",
]


def _hard_string(rng, characters, known):
    kind, length = rng.randrange(5), rng.randrange(1, 24)
    if kind == 0:
        return "".join(rng.choices(characters, k=length))
    if kind == 1:
        return "".join(rng.choices(_PIECES, k=length))
    if kind == 2:
        return "".join(rng.choice(_PIECES) * rng.randrange(1, 30) for _ in range(rng.randrange(1, 5)))
    if kind == 3:
        return "".join(c for c in rng.randbytes(length).decode("utf-8", "replace") if c in known)
    return "".join(
        rng.choice((rng.choice(_PIECES), chr(rng.randrange(32, 127)), rng.choice(characters))) for _ in range(length)
    )


@pytest.fixture(scope="session")
def hard_strings(characters):
    """A function of (n, seed, alphabet): n strings of any characters, runs, contractions, white space, mangled UTF-8."""

    def generate(n, seed, alphabet=characters):
        rng, known = random.Random(seed), set(alphabet)
        return [_hard_string(rng, alphabet, known) for _ in range(n)]

    return generate


@pytest.fixture(scope="session")
def awkward_strings(hard_strings, agreed_characters):
    """``hard_strings`` of those characters alone on which tiktoken agrees."""
    return lambda n, seed: hard_strings(n, seed, agreed_characters)
