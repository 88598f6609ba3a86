"""The pool: every task once, turns between Python threads, an error instead of a dead process after a fork."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.errors import ConfigError, KernelError
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.kernels.runtime.decorators import part
from gpt_numpy.kernels.runtime.threads import launcher, parallel_for

ROOT = Path(__file__).parents[3]
fork_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="only on systems that fork")


@part
def _visit(worker, task, visits, workers):
    visits[task] += 1
    workers[task] = worker


@launcher
def visit(n_tasks, visits, workers):
    parallel_for(_visit, n_tasks, (visits, workers))


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_task_runs_once_on_a_known_worker(n_tasks, n_threads):
    if n_threads > threads.available():
        pytest.skip("needs a machine with two processors")
    visits, workers = np.zeros(n_tasks + 1, np.int64), np.full(n_tasks + 1, -1)
    before = threads.set_count(n_threads)
    try:
        visit(n_tasks, visits, workers)
    finally:
        threads.set_count(before)
    assert visits[:n_tasks].tolist() == [1] * n_tasks and visits[n_tasks] == 0
    assert all(0 <= worker < n_threads for worker in workers[:n_tasks])


@part
def _refuse_the_third(worker, task, visits):
    if task == 2:
        raise ValueError("not this one")
    visits[task] += 1


@launcher
def refuse_the_third(n_tasks, visits):
    parallel_for(_refuse_the_third, n_tasks, (visits,))


@pytest.mark.parametrize("n_tasks", [3, 100])
def test_a_task_that_raises_is_not_passed_over(n_tasks):
    visits = np.zeros(n_tasks, np.int64)
    with pytest.raises(KernelError, match="a task of a kernel raised"):
        refuse_the_third(n_tasks, visits)
    assert visits.tolist() == [1, 1, 0] + [1] * (n_tasks - 3)
    refuse_the_third(2, visits)
    assert visits[:3].tolist() == [2, 2, 0]


@pytest.mark.parametrize("wrong", [0, -1, 10**6, True, 2.0, "2"])
def test_thread_count_out_of_range(wrong):
    with pytest.raises(ConfigError, match="threads"):
        threads.set_count(wrong)


def _run(code, **environment):
    code = "import numpy as np\nfrom tests.kernels.runtime.test_threads import visit\n" + code
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)


_IN_TURNS = """
import threading
from gpt_numpy.kernels import threads
def many(visits):
    for _ in range(200):
        visit(50, visits, np.zeros(50, np.int64))
counters = [np.zeros(50, np.int64) for _ in range(4)]
callers = [threading.Thread(target=many, args=(c,)) for c in counters]
for caller in callers: caller.start()
for caller in callers: caller.join()
print(threads.layer(), all((c == 200).all() for c in counters))
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_kernels_called_from_several_python_threads(layer):
    done = _run(_IN_TURNS, NUMBA_THREADING_LAYER=layer)
    if "No threading layer" in done.stderr:
        pytest.skip(f"needs a machine with numba's {layer} layer")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [layer, "True"]


_FORKED = """
import os
from gpt_numpy.errors import KernelError
numbers = np.zeros(9, np.int64)
if {launch_first}:
    visit(9, numbers, numbers.copy())
child = os.fork()
if child == 0:
    try:
        visit(9, numbers, numbers.copy())
        os._exit(10)
    except KernelError as error:
        os._exit(20 if "forked" in str(error) and "spawn" in str(error) else 30)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
visit(9, numbers, numbers.copy())
"""


@fork_only
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
@pytest.mark.parametrize(("launch_first", "exit_code"), [(False, "10"), (True, "20")])
def test_fork(layer, launch_first, exit_code):
    done = _run(_FORKED.format(launch_first=launch_first), NUMBA_THREADING_LAYER=layer)
    if "No threading layer" in done.stderr:
        pytest.skip(f"needs a machine with numba's {layer} layer")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == exit_code


@fork_only
def test_fork_while_another_thread_launches():
    code = """
import os, threading
stop = False
def busy():
    while not stop:
        visit(100, np.zeros(100, np.int64), np.zeros(100, np.int64))
caller = threading.Thread(target=busy)
visit(1, np.zeros(1, np.int64), np.zeros(1, np.int64))
caller.start()
codes = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        try:
            visit(9, np.zeros(9, np.int64), np.zeros(9, np.int64))
        except Exception as error:
            os._exit(7 if type(error).__name__ == "KernelError" else 8)
        os._exit(9)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
caller.join()
print(codes)
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[7, 7, 7, 7, 7]"


def test_layer_and_available():
    assert threads.layer() in ("tbb", "omp", "workqueue")
    assert 1 <= threads.count() <= threads.available()
