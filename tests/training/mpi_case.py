"""One rank of a test: ``mpiexec -n 2 python mpi_case.py CASE settings.toml OUT``. See test_mpi.py."""

import math
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from gpt_numpy import model
from gpt_numpy.training import Settings, config_file, resume, start
from gpt_numpy.training.ranks.mpi import MPIGroup

case, settings_file, out = sys.argv[1:4]
settings = Settings.from_mapping(config_file.read(settings_file))
group = MPIGroup(bucket_bytes=3000)  # many buckets, even of a tiny model
last = group.rank == group.size - 1
plain, calls = model.GPT.loss_and_gradients, [0]


def at_third_step(act):
    def loss_and_gradients(self, *args, **kwargs):
        calls[0] += 1
        loss = plain(self, *args, **kwargs)
        return act(self, loss) if last and calls[0] == 3 else loss

    model.GPT.loss_and_gradients = loss_and_gradients


def poison(self, loss):
    self.grads["h.0.mlp.c_fc.bias"][1] = math.nan
    return loss


def die(self, loss):
    # The first rank's checkpoint of step 2 is written while step 3 runs, and the death of one rank ends that one as well.
    limit = time.monotonic() + 20
    while not Path(out, "checkpoints", "step-2").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def crash(self, loss):
    raise ZeroDivisionError("a bug in one rank")


if case == "nan":
    at_third_step(poison)
elif case == "crash":
    at_third_step(crash)
elif case == "die":
    at_third_step(die)
elif case == "other-settings" and last:
    settings = settings.replace(learning_rate=0.5)
elif case == "other-data" and last:
    text = Path(out).parent / "other.txt"
    text.write_text(Path(settings.data[0]).read_text(encoding="utf-8").replace("cat", "tac"), encoding="utf-8")
    settings = settings.replace(data=(str(text),))
elif case == "pid" and group.rank == 0:
    Path(out).parent.joinpath("pid").write_text(str(os.getpid()))

if case == "missing-data":
    settings = settings.replace(data=("missing",))

with group.guard():
    if case == "resume":
        resume(out, {"max_steps": settings.max_steps}, group)
    else:
        start(settings, out, group)

if case == "missing-data":
    print("went on")
