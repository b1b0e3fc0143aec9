"""The table of points itself: whole, and true of the code as it is now."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from .conftest import Arm
from .dying import start
from .labs import Copy
from .points import POINTS
from .scenarios import LONG_SECONDS, SCENARIOS, call


def test_every_phase_has_points_and_every_label_is_used_once() -> None:
    assert len(POINTS) >= 30
    assert max(Counter(point.label for point in POINTS).values()) == 1
    sides = {(point.phase, point.side) for point in POINTS}
    phases = {"create", "submit", "train", "score", "ingest", "confirm", "keep", "revert", "test"}
    assert {phase for phase, _ in sides} == phases
    assert {(phase, "runner") for phase in ("submit", "train", "score", "ingest")} <= sides
    assert {point.scenario for point in POINTS} == set(SCENARIOS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in ("quick", "real")])
def test_every_point_of_the_server_is_passed_where_nothing_is_killed(copy: Copy, arm: Arm, name: str) -> None:
    scenario = SCENARIOS[name]
    place = copy(scenario.stage)
    if scenario.train is not None:
        place.train.write_bytes(scenario.train)
    arm(server="*", runner=scenario.runner)
    process = start(place, scenario)
    try:
        assert process.wait(timeout=LONG_SECONDS) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    missed = [point.label for point in POINTS if point.scenario == name and not place.reached(point.label)]
    assert not missed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quick", "real"])
def test_every_point_of_a_runner_is_passed_where_nothing_is_killed(
    copy: Copy, arm: Arm, disarm: Callable[[], None], name: str
) -> None:
    scenario = SCENARIOS[name]
    place = copy(scenario.stage)
    if scenario.train is not None:
        place.train.write_bytes(scenario.train)
    arm(runner="*")
    with place.opened(real=name == "real") as lab:
        call(lab, scenario.calls)
    disarm()
    missed = [point.label for point in POINTS if point.scenario == name and not place.reached(point.label)]
    assert not missed
