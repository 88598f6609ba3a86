"""A container's limits, read from trees of files like the kernel's: version 1, version 2, both, and what is in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_numpy import GPTConfig
from gpt_numpy.errors import ConfigError
from gpt_numpy.host import control_groups, processors
from gpt_numpy.kernels.runtime import threads
from gpt_numpy.machine import memory

UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"


def _tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


def test_version_2(tmp_path):
    group = "sys/fs/cgroup/job.slice/run.scope"
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job.slice/run.scope",
            "proc/self/mountinfo": f"24 1 8:1 / / rw - ext4 /dev/sda1 rw\n{UNIFIED}",
            f"{group}/memory.max": 1000,
            f"{group}/memory.high": "max",
            f"{group}/memory.current": 700,
            f"{group}/memory.stat": "anon 500\nfile 200\ninactive_file 150\nactive_file 50",
            f"{group}/cpu.max": "150000 100000",
        },
    )
    assert control_groups.memory_left(root) == 450
    assert control_groups.processor_quota(root) == 1.5
    _tree(root, {f"{group}/memory.high": 800})
    assert control_groups.memory_left(root) == 250, "above memory.high the system throttles"
    above = "sys/fs/cgroup/job.slice"
    _tree(root, {f"{above}/memory.max": 900, f"{above}/memory.current": 890, f"{above}/cpu.max": "50000 100000"})
    assert control_groups.memory_left(root) == 10, "the group above has a limit, too"
    assert control_groups.processor_quota(root) == 0.5
    _tree(root, {f"{group}/memory.current": 5000})
    assert control_groups.memory_left(root) == 0
    _tree(root, {f"{path}/memory.max": "max" for path in (group, above)})
    _tree(root, {f"{path}/cpu.max": "max 100000" for path in (group, above)} | {f"{group}/memory.high": "max"})
    assert control_groups.memory_left(root) is None and control_groups.processor_quota(root) is None


def test_version_1_in_a_container(tmp_path):
    """The container sees its own group as the mounted one, while /proc/self/cgroup names it as the host does."""
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/docker/abc\n8:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc",
            "proc/self/mountinfo": "\n".join(
                [
                    "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory",
                    "36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct",
                ]
            ),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 150 << 20,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 100 << 20,
            "sys/fs/cgroup/memory/memory.stat": f"cache 1\ninactive_file 1\ntotal_inactive_file {30 << 20}",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 100000,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
        },
    )
    assert control_groups.memory_left(root) == 80 << 20
    assert control_groups.processor_quota(root) == 1.0
    _tree(
        root,
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": -1,
        },
    )
    assert control_groups.memory_left(root) is None and control_groups.processor_quota(root) is None


def test_both_versions_on_one_machine(tmp_path):
    """The controllers are version 1's, the process is also in a group of version 2, which has none."""
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/jobs/7\n1:cpu:/\n0::/",
            "proc/self/mountinfo": "\n".join(
                [
                    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
                    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
                    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
                ]
            ),
            "sys/fs/cgroup/unified/cgroup.procs": 1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 250000,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 1,
            "sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": 5000,
            "sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes": 2000,
        },
    )
    assert control_groups.memory_left(root) == 3000
    assert control_groups.processor_quota(root) == 2.5


def test_a_mount_with_a_blank_in_its_name(tmp_path):
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a",
            "proc/self/mountinfo": UNIFIED.replace("/sys/fs/cgroup", r"/sys/my\040groups"),
            "sys/my groups/a/cpu.max": "200000 100000",
        },
    )
    assert control_groups.processor_quota(root) == 2.0


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/gone"},
        {"proc/self/cgroup": "0::/gone", "proc/self/mountinfo": UNIFIED},
        {
            "proc/self/cgroup": "0::/../../outside",
            "proc/self/mountinfo": UNIFIED,
            "sys/fs/cgroup/cpu.max": "what\nis this",
            "sys/fs/cgroup/memory.max": "soon",
            "sys/fs/cgroup/memory.current": "",
        },
    ],
)
def test_nothing_is_known_where_nothing_can_be_read(tmp_path, files):
    root = _tree(tmp_path, files)
    assert control_groups.memory_left(root) is None and control_groups.processor_quota(root) is None


# ---- what is made of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota,expected", [(None, 8), (0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (7.5, 7), (100.0, 8)])
def test_as_many_threads_as_the_quota_feeds(monkeypatch, quota, expected):
    monkeypatch.setattr(processors, "cores", lambda: set(range(8)))
    monkeypatch.setattr(control_groups, "processor_quota", lambda: quota)
    processors._quota.cache_clear()
    try:
        assert processors.thread_count() == expected
    finally:
        processors._quota.cache_clear()


def test_kernels_use_as_many_threads_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(threads, "_count", None)
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(threads.numba.config, "NUMBA_NUM_THREADS", 2)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert threads.count() == 1
    monkeypatch.setattr(threads, "_count", None)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert threads.count() == 2


def test_too_little_memory_in_a_container_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(control_groups, "memory_left", lambda: 123_456)
    config = GPTConfig.preset("mini")
    with pytest.raises(ConfigError, match=r"123,456 bytes free of this container.*expected at least [0-9,]+ bytes"):
        memory.check_memory(config, 8, recompute=False)
    monkeypatch.setattr(control_groups, "memory_left", lambda: None)
    memory.check_memory(config, 1, recompute=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux: ulimit -v")
def test_too_little_memory_for_the_process_is_refused_with_both_numbers():
    script = (
        "import resource; from gpt_numpy import GPTConfig; from gpt_numpy.machine import memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); print(memory.available_memory())\n"
        "memory.check_memory(GPTConfig.preset('gpt2-xl'), 8, False)"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]), NUMBA_DISABLE_JIT="1")
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert 0 < int(ended.stdout) < 3 << 30
    assert "bytes free under ulimit -v" in ended.stderr and "at least" in ended.stderr
