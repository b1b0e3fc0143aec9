"""What others used of the cores: arithmetic over two readings, and the readings of this machine."""

from __future__ import annotations

import dataclasses

import pytest
from autoresearch_mcp.lab.core_usage import CoreReading, others_share, read_cores
from autoresearch_mcp.lab.machine import cores

START = CoreReading(at=100.0, cores=4, busy_seconds=1000.0, stolen_seconds=10.0, idle_seconds=5000.0)


def after(seconds: float, *, busy: float, stolen: float = 0.0) -> CoreReading:
    """Four cores, ``seconds`` later, ``busy`` of their time used."""
    return CoreReading(
        at=START.at + seconds,
        cores=4,
        busy_seconds=START.busy_seconds + busy,
        stolen_seconds=START.stolen_seconds + stolen,
        idle_seconds=START.idle_seconds + 4 * seconds - busy,
    )


@pytest.mark.parametrize(
    ("busy", "own", "run_cores", "expected"),
    [
        pytest.param(40.0, 40.0, 4, 0.0, id="all of it was the run's"),
        pytest.param(40.0, 30.0, 4, 0.25, id="a quarter was not"),
        pytest.param(0.0, 0.0, 4, 0.0, id="nobody did anything"),
        pytest.param(40.0, 0.0, 4, 1.0, id="the run got nothing"),
        pytest.param(30.0, 31.0, 4, 0.0, id="counters of different precision never give less than none"),
        pytest.param(30.0, 20.0, 2, 0.0, id="others fit onto the cores that are not the run's"),
        pytest.param(40.0, 10.0, 2, 0.5, id="beyond those they take from it"),
        pytest.param(40.0, 20.0, 64, 0.5, id="no more cores than there are"),
    ],
)
def test_the_share_of_others_is_what_the_run_did_not_use_of_its_cores(
    busy: float, own: float, run_cores: int, expected: float
) -> None:
    share = others_share(START, after(10.0, busy=busy), own_seconds=own, cores=run_cores)
    assert share is not None
    assert share.others == pytest.approx(expected)


def test_what_a_hypervisor_took_is_named_within_the_share_of_others() -> None:
    share = others_share(START, after(10.0, busy=40.0, stolen=8.0), own_seconds=30.0, cores=4)
    assert share is not None
    assert (share.others, share.stolen) == (pytest.approx(0.25), pytest.approx(0.2))


def test_counters_that_stand_still_say_nothing() -> None:
    still = dataclasses.replace(START, at=START.at + 10.0)
    assert others_share(START, still, own_seconds=3.0, cores=4) is None
    assert others_share(START, START, own_seconds=0.0, cores=4) is None


def test_only_the_cores_that_this_process_may_use_are_counted() -> None:
    reading = read_cores()
    assert reading is not None
    assert reading.cores == cores()
    assert reading.busy_seconds > 0
