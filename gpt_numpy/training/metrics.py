"""``metrics.jsonl``: the measurements of a run, one JSON object a line.

A line has a ``kind`` (``train``, ``validation`` or ``final``) and a ``step``, the number of updates done. Lines that
cannot be written (a full disk) wait in memory and are written with the next line: a failure of the log never ends a run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ..files import durable
from ..files.regular import read_regular
from ..wording import fault_of

FILE_NAME = "metrics.jsonl"
_MEASURED = ("train", "validation", "final")  # kinds of records that have a loss
_NUMBERS = ("loss", "bits_per_byte", "gradient_norm", "learning_rate", "tokens_per_second", "seconds")
_LARGEST, _LARGEST_STEP = 1e30, 1 << 63


class MetricsLog:
    """Appends records to ``folder/metrics.jsonl``.

    Lines that are already there are dropped: those from after ``step`` where a run goes on, all where a run begins
    (``step`` 0), and the ``final`` line, because the resumed run writes another one.
    """

    def __init__(self, folder, step):
        self.path = Path(folder) / FILE_NAME
        self._waiting = b""
        self._complained = False
        if os.path.lexists(self.path):
            kept = [r for r in read_metrics(self.path) if r["step"] <= step and step and r.get("kind") != "final"]
            durable.write_file(self.path, b"".join(map(_line, kept)))

    def write(self, record):
        """Append ``record``, a dict."""
        self._waiting += _line(record)
        try:
            before = self.path.stat().st_size if self.path.exists() else 0
            durable.append(self.path, self._waiting, before)
        except OSError as error:
            if not self._complained:
                print(f"warning: {self.path}: {fault_of(error)}; the run goes on without its log", file=sys.stderr)
            self._complained = True
        else:
            self._waiting, self._complained = b"", False


def read_metrics(path):
    """The records of a metrics file, in order, without a last line cut short by a kill and without invalid lines.

    ``DataError`` where ``path`` is not a regular file.
    """
    records = []
    for line in read_regular(path).splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_record(record):
            records.append(record)
    return records


def _is_record(record):
    """Whether a line's value has a step, and numbers where figures and pictures need numbers."""
    if not isinstance(record, dict) or type(record.get("step")) is not int or not 0 <= record["step"] < _LARGEST_STEP:
        return False
    if record.get("kind") in _MEASURED and "loss" not in record:
        return False
    return all(_is_measurement(record[name]) for name in _NUMBERS if name in record)


def _is_measurement(value):
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # NaN is not


def _line(record):
    return json.dumps(record).encode() + b"\n"
