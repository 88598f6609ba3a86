"""Training: from a table of settings to a model in a folder, in steps that can be continued bit for bit.

settings, config_file   what a run can be told, and the TOML file it is told in
corpus                  text to tokens, with the tokenizer that is trained on it
initial                 the model to start from
trainer                 the loop                 (optimizer, schedule, evaluation: its parts)
checkpoint, saver       whole or absent, written beside the training
run_folder, metrics     what is kept of a run    (watcher, progress, plots, sampling: what is seen of it)
distributed, mpi        one process or many
session                 ``start`` and ``resume``, which put these together
"""

from .session import Outcome, resume, start
from .settings import Settings

__all__ = ["Outcome", "Settings", "resume", "start"]
