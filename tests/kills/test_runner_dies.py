"""A runner is killed at every labelled point: the run is tried once more, or its result is there already; never both."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .checks import Now, Users, require_whole
from .conftest import Arm
from .dying import recorded, short
from .labs import Copy, Place
from .point import Point
from .scenarios import SCENARIOS, call

Record = Callable[[str, object], None]


@pytest.mark.slow
def test_what_a_killed_runner_began_is_run_once_more(
    copy: Copy, arm: Arm, disarm: Callable[[], None], record_property: Record, quick_point: Point
) -> None:
    _kill_runner(copy, arm, disarm, record_property, quick_point)


@pytest.mark.slow
def test_what_a_killed_referee_trained_and_scored_is_done_once_more(
    copy: Copy, arm: Arm, disarm: Callable[[], None], record_property: Record, real_point: Point
) -> None:
    place = _kill_runner(copy, arm, disarm, record_property, real_point)
    logs = [path.read_bytes() for path in place.root.glob("state/labs/*/runs/*/log.txt")]
    said = [log for log in logs if b"sees" in log]  # one that was killed early has said nothing
    assert said
    assert all(b"sees []" in log for log in said), "a candidate saw the test's variables"


def _kill_runner(copy: Copy, arm: Arm, disarm: Callable[[], None], record_property: Record, point: Point) -> Place:
    scenario = SCENARIOS[point.scenario]
    place = copy(scenario.stage)
    if scenario.train is not None:
        place.train.write_bytes(scenario.train)
    users, before = Users.of(place), len(recorded(place))
    arm(runner=point.label)
    with place.opened(real=scenario.stage == "real") as lab:
        call(lab, scenario.calls)
        assert place.reached(point.label) >= 1, "the runner was not killed"
        disarm()
        require_whole(place, lab, users, train=scenario.final_train)
        experiment = lab.ledger.experiments(order="rowid DESC", limit=1)[0]
        assert (experiment.id, experiment.verdict, experiment.decision) == scenario.result
        now = Now.of(place, lab)
        call(lab, scenario.again)
        assert Now.of(place, lab) == now
    done = recorded(place, before)
    attempts = done.count("run_retried") + 1
    split = done.index("run_started") + 1
    cell = {"found": short(done[:split]), "then": short(done[split:]), "attempts": str(attempts)}
    record_property("kill_cell", {"label": point.label, **cell})
    return place
