"""CPU time of the scoring processes, read from outside; the warning, and what it does not warn of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from autoresearch_mcp.lab.referee.scoring_meter import ProcessMeter, cpu_warning, find_process

BURN = "import sys\nsum(i * i for i in range(8_000_000))\nprint('done', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a line, works for a while, says so, and waits for its end."""
    source = f"import sys\nsys.stdin.readline()\n{BURN}"
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def work(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_what_a_process_uses_from_the_meters_beginning_on_is_counted_and_stays(burning: subprocess.Popen[str]) -> None:
    meter = ProcessMeter(psutil.Process(burning.pid))
    work(burning)
    meter.sample()
    used = meter.seconds
    assert used > 0.1
    meter.kill()
    assert burning.wait(timeout=10) != 0
    meter.sample()
    assert meter.seconds >= used


def test_a_process_is_found_by_the_pid_that_it_knows(burning: subprocess.Popen[str]) -> None:
    found = find_process(os.getpid(), burning.pid)
    assert found is not None
    assert found.pid == burning.pid
    assert find_process(burning.pid, os.getpid()) is None


@pytest.mark.parametrize(
    ("bulk", "audit", "audits", "warned"),
    [
        (10.0, 10.0, 400, False),
        (10.0, 29.0, 400, False),
        (10.0, 40.0, 400, True),
        (10.0, 1.9, 40, False),  # the first forward costs more
        (10.0, 8.0, 40, True),
        (0.0, 0.0, 400, False),
    ],
)
def test_a_row_that_costs_much_more_in_the_audit_is_a_warning(bulk: float, audit: float, audits: int, warned: bool) -> None:
    text = cpu_warning(bulk_cpu_seconds=bulk, audit_cpu_seconds=audit, rows=400, audits=audits)
    assert bool(text) is warned
    assert not warned or "times as much CPU time in the audit" in text
