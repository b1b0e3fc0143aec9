"""Whether a run had its device to itself: a real busy neighbour on the cores, and a GPU as a driver would describe it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from autoresearch_mcp.lab.devices import FakeGpuDriver, GpuDriverError, NvmlDriver
from autoresearch_mcp.lab.machine import cores
from autoresearch_mcp.lab.referee.contention import ContentionMeter
from autoresearch_mcp.lab.referee.gpu_neighbours import GpuNeighbours

DEVICE = "cuda:GPU-aaaa-1"
BUSY_SECONDS = 0.6
BUSY = f"import time\nwhile time.process_time() < {BUSY_SECONDS}: pass"
ME, STRANGER = os.getpid(), 2**22 + 7  # no process of this machine has such a number


def neighbours(*computing: frozenset[int], slow: list[frozenset[str]] | None = None, ours: bool = True) -> GpuNeighbours:
    """Look before the run, then once for each further answer."""
    driver = FakeGpuDriver(computing=list(computing), slow=slow or [frozenset()])
    found = GpuNeighbours(DEVICE, driver, numbers_are_ours=ours)
    for _ in computing[1:]:
        found.sample()
    return found


def share_of(meter: ContentionMeter) -> float:
    share = meter.facts(None)["others_share"]
    assert isinstance(share, float)
    return share


def test_a_busy_neighbour_is_counted_and_the_runs_own_time_is_not() -> None:
    alone, beside = (ContentionMeter(cores=cores()) for _ in range(2))
    began = os.times()
    subprocess.run([sys.executable, "-S", "-c", BUSY], check=True)
    ended = os.times()
    used = ended.children_user + ended.children_system - began.children_user - began.children_system
    alone.stop(cpu_seconds=used)  # the process is the candidate's
    beside.stop(cpu_seconds=0.0)  # it is somebody else's
    its_share = used / ((ended.elapsed - began.elapsed) * cores())
    assert share_of(beside) >= 0.7 * its_share
    # Whatever else this machine does counts for both alike.
    assert 0.5 * its_share <= share_of(beside) - share_of(alone) <= 1.5 * its_share


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process, and what it starts, may use one core only."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to a core")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("one_core")
def test_the_sentence_names_the_share_the_threshold_and_who_it_was() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as busy:
        try:
            meter = ContentionMeter(cores=1)
            subprocess.run([sys.executable, "-S", "-c", BUSY], check=True)
            meter.stop(cpu_seconds=0.0)
        finally:
            busy.kill()
    assert re.search(
        r"^others used \d+% of the run's 1 core, more than the 15% that count as ordinary here.* \(busiest: \w+.* \d+%\)$",
        str(meter.facts(0.15)["contended"]),
    )


def test_without_a_threshold_nothing_is_marked_and_below_it_neither() -> None:
    meter = ContentionMeter(cores=cores(), gpu=neighbours(frozenset(), frozenset({STRANGER})))
    subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
    meter.stop(cpu_seconds=0.0)
    assert meter.facts(None)["contended"] is None
    assert meter.facts(1.0)["contended"] is None


def test_the_referees_own_processes_are_nobody_elses() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", BUSY + "\ninput()"], stdin=subprocess.PIPE) as worker:
        ours, others = ContentionMeter(cores=cores(), spared=[worker.pid]), ContentionMeter(cores=cores())
        subprocess.run([sys.executable, "-S", "-c", BUSY], check=True)
        for meter in (ours, others):
            meter.stop(cpu_seconds=0.0)
        worker.communicate(b"\n")
    assert share_of(ours) < share_of(others)


def test_a_process_that_computes_beside_the_run_is_found_and_the_runs_own_are_not_others() -> None:
    found = neighbours(frozenset(), frozenset({ME}), frozenset({ME, STRANGER}), frozenset({ME, STRANGER}), frozenset({ME}))
    assert (found.shared, found.processes) == (0.5, frozenset({STRANGER}))


def test_in_a_container_only_what_was_there_before_is_known_to_be_another() -> None:
    found = neighbours(frozenset({11}), frozenset({11, 12}), frozenset({12}), ours=False)
    assert (found.shared, found.processes) == (0.5, frozenset({11}))


def test_a_shared_or_slowed_gpu_is_told_against_the_threshold() -> None:
    shared = neighbours(frozenset(), frozenset({STRANGER}), frozenset({STRANGER}))
    meter = ContentionMeter(cores=cores(), gpu=shared)
    meter.stop(cpu_seconds=1e9)  # the cores were the run's alone
    assert meter.facts(0.15)["contended"] == (
        f"the GPU was shared with the process {STRANGER} for 100% of the run, more than the 15% that count as ordinary here"
    )
    hot = neighbours(*[frozenset[int]()] * 3, slow=[frozenset({"heat, by the driver"}), frozenset()])
    meter = ContentionMeter(cores=cores(), gpu=hot)
    meter.stop(cpu_seconds=1e9)
    assert "slowed down (heat, by the driver) for 50% of the run" in str(meter.facts(0.15)["contended"])
    assert meter.facts(0.5)["contended"] is None


def test_a_driver_that_does_not_answer_costs_the_facts_and_never_the_run() -> None:
    silent = GpuNeighbours(DEVICE, FakeGpuDriver(problem="gone"))
    silent.sample()
    assert (silent.shared, silent.slow) == (None, None)
    driver = FakeGpuDriver()
    later = GpuNeighbours(DEVICE, driver)
    driver.problem = "gone since"
    later.sample()
    assert later.shared is None
    meter = ContentionMeter(cores=cores(), gpu=later)
    meter.sample()
    meter.stop(cpu_seconds=1e9)
    assert meter.facts(0.15)["contended"] is None


def test_a_machine_without_the_driver_says_so_as_the_other_questions_do() -> None:
    driver = NvmlDriver()
    try:
        driver.version()
    except GpuDriverError:
        for question in (driver.compute_processes, driver.slowdowns):
            with pytest.raises(GpuDriverError, match="libnvidia-ml"):
                question("GPU-aaaa-1")
    else:
        assert all(isinstance(driver.compute_processes(gpu.uuid), frozenset) for gpu in driver.gpus())
