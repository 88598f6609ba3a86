"""Making the Nth operation on files fail, or be the last thing a process does, for N = 1, 2, … until none is left."""

import errno
import os
import pathlib
import signal
from contextlib import contextmanager

import safetensors.numpy

OPERATIONS = [
    (os, "open"),
    (os, "write"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "mkdir"),
    (os, "chmod"),
    (os, "unlink"),
    (os, "rmdir"),
    (pathlib.Path, "write_text"),
    (safetensors.numpy, "save_file"),
]


@contextmanager
def fault_at(number, act):
    """Call ``act(name, operation, args, kwargs)`` in place of operation ``number``; yields [how many there were]."""
    count = [0]
    originals = [(owner, name, getattr(owner, name)) for owner, name in OPERATIONS]

    def wrap(name, original):
        def operation(*args, **kwargs):
            count[0] += 1
            if count[0] == number:
                return act(name, original, args, kwargs)
            return original(*args, **kwargs)

        return operation

    for owner, name, original in originals:
        setattr(owner, name, wrap(name, original))
    try:
        yield count
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def fail(code):
    """An act: the operation raises; a write is cut short first, as a full disk does it."""

    def act(name, original, args, kwargs):
        _half(name, original, args)
        raise OSError(code, os.strerror(code))

    return act


def die(name, original, args, kwargs):
    """An act: the process is killed in the middle of the operation."""
    _half(name, original, args)
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(name, original, args, kwargs):
    """An act: the process is killed right after the operation."""
    try:
        original(*args, **kwargs)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _half(name, original, args):
    if name == "write":
        original(args[0], bytes(args[1])[: len(args[1]) // 2])


ENOSPC, EIO = errno.ENOSPC, errno.EIO


def in_child(function):
    """Run ``function`` in a forked process; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
