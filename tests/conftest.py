"""What every test shares: the test data's folder, and the rule that CI skips nothing by accident."""

import os
import pathlib
import re
import signal
import sys

import pytest

# `benchmarks` and `scripts` are not installed; at the end of the path, so that an installed gpt_numpy wins.
sys.path.append(str(pathlib.Path(__file__).parents[1]))

# With --no-skips these reasons alone are fine: what a test needs that `pip install ".[test]"` does not bring.
ALLOWED_SKIPS = re.compile(r"^Skipped: (needs (torch|transformers|jax|rustbpe|mpiexec|chromium|strace|a machine with)|only on )")


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail when a test is skipped that should run here")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell; the commands that tests interrupt would inherit the deaf ear.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.skipped_by_accident = []
    if "campaign" not in (config.option.markexpr or "") and not config.option.markexpr:
        config.option.markexpr = "not campaign"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not ALLOWED_SKIPS.match(reason):
            item.config.skipped_by_accident.append(f"{item.nodeid}: {reason}")


def pytest_sessionfinish(session, exitstatus):
    skipped = session.config.skipped_by_accident
    if session.config.option.no_skips and skipped and exitstatus == 0:
        print("\nskipped, but should have run here:\n  " + "\n  ".join(skipped))
        session.exitstatus = 1


@pytest.fixture(scope="session")
def test_data():
    """Folder with GPT-2's vocabulary and Tiny Shakespeare; the test is skipped where there is none."""
    folder = os.environ.get("GPT_NUMPY_TEST_DATA")
    if not folder:
        pytest.skip("GPT_NUMPY_TEST_DATA is not set")
    return pathlib.Path(folder)
