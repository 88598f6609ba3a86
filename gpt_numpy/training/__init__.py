"""Training: from a table of settings to a model in a folder, in steps that can be continued bit for bit.

settings, config_file   what a run can be told, and the TOML file it is told in
plan                    from the settings to what the run does: text, tokenizer, rows, model, memory
session                 ``start`` and ``resume``
trainer                 the loop                 (optimizer, schedule, evaluation: its parts)
checkpoint, saver       whole or absent, written beside the training
run_folder, metrics     what is kept of a run    (watcher, progress, plots: what is seen of it)
ranks                   one process or many
"""

from .session import Outcome, resume, start
from .settings import Settings

__all__ = ["Outcome", "Settings", "resume", "start"]
