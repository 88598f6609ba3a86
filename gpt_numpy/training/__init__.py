"""Training: from a table of settings to a model in a folder, in steps that can be continued bit for bit.

settings, config_file   the settings of a run, and the TOML file that holds them
plan                    the settings resolved: text, tokenizer, rows, model, memory
session                 ``start`` and ``resume``
trainer                 the loop                 (optimizer, schedule, evaluation: its parts)
checkpoint, saver       checkpoints, and the thread that writes them
run_folder, metrics     the files of a run       (watcher, progress, plots: its output for people)
ranks                   one process or many

The public names are loaded when first used: a command that needs the settings alone does not load what trains.
"""

from .. import lazy

_HOMES = {"Outcome": "session", "Settings": "settings", "resume": "session", "start": "session"}

__all__ = [*_HOMES]


def __getattr__(name):
    return lazy.load(__name__, _HOMES, name)


def __dir__():
    return sorted(__all__)
