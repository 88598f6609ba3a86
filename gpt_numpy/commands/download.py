"""``gpt-numpy download``: fetch data and published models over a connection that may break.

This module lists every file that can be downloaded, with its size and SHA-256. A file is first written as
``NAME.part``; a broken download goes on from where it stopped. A file gets its name only if its hash is right. No other
command uses the network.
"""

import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from ..files.regular import sha256_of_file
from ..host import terminal

_CHUNK = 1 << 20
_ATTEMPTS = 5


class File(NamedTuple):
    name: str
    url: str
    size: int | None  # bytes, where it is pinned
    sha256: str


_GPT2 = "https://huggingface.co/openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e"
_VOCAB = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
_MERGES = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
_WEIGHTS = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
_SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

CATALOGUE = {
    "shakespeare": [
        File(
            "tinyshakespeare.txt",
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            1_115_394,
            _SHAKESPEARE,
        )
    ],
    "gpt2-vocabulary": [
        File("vocab.json", f"{_GPT2}/vocab.json", None, _VOCAB),
        File("merges.txt", f"{_GPT2}/merges.txt", None, _MERGES),
    ],
    "gpt2": [
        File("vocab.json", f"{_GPT2}/vocab.json", None, _VOCAB),
        File("merges.txt", f"{_GPT2}/merges.txt", None, _MERGES),
        File("model.safetensors", f"{_GPT2}/model.safetensors", 548_105_171, _WEIGHTS),
    ],
}
_CONFIGS = {"gpt2": "gpt2"}  # a model's config.json is written, from the preset, not downloaded
_OTHER_NAMES = {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}  # OpenAI's, for the same bytes


EXAMPLES = (
    ("gpt-numpy download shakespeare", "Tiny Shakespeare, 1.1 MB, into data/shakespeare"),
    ("gpt-numpy download gpt2", "GPT-2 124M, 548 MB, into data/gpt2"),
    ("gpt-numpy download gpt2-vocabulary --out data", "its vocabulary alone; then GPT_NUMPY_TEST_DATA=data pytest"),
)


def find(what: str, folder: Path) -> list[Path]:
    """The files of ``what`` in ``folder``, or in its subfolder ``what`` or ``gpt2``; ``DataError`` where one is missing.

    OpenAI's names for a file are taken as well.
    """
    from ..errors import DataError

    for place in (folder, folder / what, folder / "gpt2"):
        found = []
        for file in CATALOGUE[what]:
            names = (file.name, _OTHER_NAMES.get(file.name, file.name))
            found += [path for name in names if (path := place / name).is_file()][:1]
        if len(found) == len(CATALOGUE[what]):
            return found
    wanted = " and ".join(file.name for file in CATALOGUE[what])
    raise DataError(
        f"{wanted} are not there" if len(CATALOGUE[what]) > 1 else f"{wanted} is not there",
        path=folder,
        expected=f"after 'gpt-numpy download {what} --out {folder}'",
    )


def configure(parser):
    names = "; ".join(f"{name}: {', '.join(file.name for file in files)}" for name, files in CATALOGUE.items())
    parser.add_argument("what", choices=list(CATALOGUE), metavar="NAME", help=names)
    parser.add_argument("--out", metavar="DIR", help="folder to download into (default: data/NAME)")


def run(args) -> None:
    folder = Path(args.out or Path("data") / args.what)
    for file in CATALOGUE[args.what]:
        fetch(file, folder)
        print(folder / file.name)
    if args.what in _CONFIGS:
        print(_write_config(folder, _CONFIGS[args.what]))


def _write_config(folder, preset):
    import json

    from ..config import GPTConfig
    from ..interop.huggingface import config_fields

    fields = config_fields(GPTConfig.preset(preset), eos_token_id=50256)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return folder / "config.json"


def fetch(file: File, folder: Path, attempts: int = _ATTEMPTS) -> Path:
    """Put ``file`` into ``folder`` unless it is there; ``DataError`` if the received bytes are not the pinned ones.

    A broken connection is opened again, up to ``attempts`` times. The bytes received so far are kept for the next call.
    """
    from ..errors import DataError
    from ..files import durable

    folder.mkdir(parents=True, exist_ok=True)
    final, part = folder / file.name, folder / f"{file.name}.part"
    if final.exists():
        if sha256_of_file(final) == file.sha256:
            return final
        raise DataError(
            "a file of this name is there already, with other content", path=final, expected=f"SHA-256 {file.sha256}"
        )
    for attempt in range(attempts):
        try:
            _receive(file, part)
            break
        except (urllib.error.URLError, ConnectionError, TimeoutError, EOFError) as error:
            if attempt + 1 == attempts or isinstance(error, urllib.error.HTTPError):
                raise DataError(f"cannot be downloaded ({error})", path=file.url) from None
    digest = sha256_of_file(part)
    if digest != file.sha256:
        part.unlink()
        raise DataError("not the pinned content", path=file.url, found=f"SHA-256 {digest}", expected=file.sha256)
    durable.replace(part, final)
    return final


def _receive(file, part):
    """Append the missing bytes to ``part``; ``EOFError`` where the connection ends too early."""
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have >= file.size:
        return
    headers = {"User-Agent": "gpt-numpy", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the request began at the end: the file is complete
            return
        raise
    with response:
        if response.status != 206:
            have = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = file.size if file.size is not None else have + int(length) if length else None
        with (
            open(part, "ab" if have else "wb") as out,
            terminal.bar(total=total, initial=have, unit="B", unit_scale=True, desc=file.name) as bar,
        ):
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            raise EOFError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")
