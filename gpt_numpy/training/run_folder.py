"""The folder of a run and its files.

config.toml         the settings, as they took effect
plan.json           the resolved settings: text, tokenizer, rows, model, ranks
reading.json        the way in which text is read for this run's models
environment.json    machine, versions and threads, for every start and resumption
metrics.jsonl       the measurements, a line a record
loss.png            the same as curves, where matplotlib is installed
samples.txt         texts that the model wrote during training
checkpoints/step-N  models that ``transformers`` opens, and the state to resume from
lock                held while a process trains here
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import sys
import time
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..data.text.reading_record import NAME as READING
from ..errors import ConfigError, LockUnsupported
from ..files import durable
from ..files.locking import Lock
from ..files.regular import read_regular
from ..host.processors import cores
from . import checkpoint, config_file
from .plan.record import plan_record

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"
CONFIG, PLAN, ENVIRONMENT, SAMPLES = "config.toml", "plan.json", "environment.json", "samples.txt"
_SAMPLE = re.compile(rb"^(?=---- step \d+$)", re.MULTILINE)


class RunFolder:
    """The folder ``path`` of one run. As a context manager it holds the run's lock."""

    def __init__(self, path):
        self.path = Path(path)
        self._lock = Lock(self.path / "lock", "is training in this folder")
        self._made = []  # folders that ``create`` made, the innermost first

    @property
    def checkpoints(self):
        return self.path / CHECKPOINTS

    def check_free(self):
        """``ConfigError`` if the folder holds a run already."""
        if checkpoint.list_checkpoints(self.checkpoints):
            raise ConfigError(
                "there is a run in this folder", path=self.path, expected="another --out, or --resume to go on with it"
            )

    def create(self):
        """Make the folder; ``ConfigError`` if it holds checkpoints, ``OSError`` if it cannot be written to."""
        self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self.check_free()
        probe = self.path / f".writable.{os.getpid()}"
        durable.write_file(probe, b"")
        probe.unlink()

    def __enter__(self):
        try:
            self._lock.acquire()
        except LockUnsupported:
            if self._made:
                self._remove()
            raise
        checkpoint.remove_leftovers(self.checkpoints)
        return self

    def __exit__(self, kind, *_):
        self._lock.release()
        if kind is not None and self._made and not (self.path / CONFIG).exists():
            self._remove()

    def _remove(self):
        """Remove the folder of a run that was refused before it began."""
        (self.path / "lock").unlink(missing_ok=True)
        for path in self._made:
            try:
                path.rmdir()
            except OSError:  # something else is in it
                return

    def begin(self, settings, step, plan=None):
        """Write settings, plan and environment of a start at ``step``. Samples from after ``step`` are dropped."""
        unused = plan.unused if plan is not None else {}
        durable.write_file(self.path / CONFIG, config_file.format(settings, unused).encode())
        if plan is not None:
            record = json.dumps(plan_record(plan), indent=2, default=list) + "\n"
            durable.write_file(self.path / PLAN, record.encode())
            durable.write_file(self.path / READING, plan.reading.to_json())
        path = self.path / ENVIRONMENT
        try:
            sessions = json.loads(read_regular(path)) if step else []
        except (OSError, ValueError, RecursionError):  # DataError among them
            sessions = []
        sessions = [*(sessions if isinstance(sessions, list) else []), {"from_step": step, **environment()}]
        durable.write_file(path, (json.dumps(sessions, indent=2) + "\n").encode())
        path = self.path / SAMPLES
        if os.path.lexists(path):
            kept = [part for part in _SAMPLE.split(read_regular(path)) if part and int(part.split()[2]) <= step]
            durable.write_file(path, b"".join(kept))

    def append_sample(self, step, text):
        path = self.path / SAMPLES
        size = path.stat().st_size if path.exists() else 0
        durable.append(path, f"---- step {step}\n{text}\n\n".encode(), size)

    def listing(self):
        """``[(name, bytes)]`` of the run's files, a checkpoint's as one."""
        files = [path for path in self.path.iterdir() if path.is_file()]
        steps = [path for _, path in checkpoint.list_checkpoints(self.checkpoints)]
        sizes = [(path, sum(file.stat().st_size for file in path.iterdir())) for path in steps]
        sizes += [(path, path.stat().st_size) for path in files]
        return [(path.relative_to(self.path).as_posix(), size) for path, size in sorted(sizes)]


def free_name(data):
    """The first of ``runs/NAME-1``, ``runs/NAME-2``, … that does not exist; NAME comes from the settings' data."""
    name = _plain_name(data[0])
    number = 1
    while (RUNS / f"{name}-{number}").exists():
        number += 1
    return RUNS / f"{name}-{number}"


def _plain_name(source):
    """The name of the file or folder, or of a pattern's folder, without characters that a shell would interpret."""
    if source == "-":
        return "stdin"
    path = Path(source)
    while glob.has_magic(path.name):
        path = path.parent
    name = path.stem or path.resolve().name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"


def environment():
    """The facts beside the settings that a run's figures depend on."""
    packages = {name: metadata.version(name) for name in ("numpy", "numba", "safetensors", "regex")}
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS") or "OMP_" in name}
    return {
        "gpt_numpy": __version__,
        "python": sys.version.split()[0],
        "packages": packages,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(cores()),
        "threads": threads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
    }


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
