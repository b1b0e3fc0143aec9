"""A server is killed at every labelled point, and the next one finishes what it began: once, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .checks import Now, Users, require_whole
from .conftest import Arm
from .dying import die, recorded, short
from .labs import Copy
from .point import Point
from .scenarios import SCENARIOS, call


@pytest.mark.slow
def test_what_a_killed_server_began_is_finished_once(
    copy: Copy, arm: Arm, disarm: Callable[[], None], record_property: Callable[[str, object], None], server_point: Point
) -> None:
    point = server_point
    scenario = SCENARIOS[point.scenario]
    place = copy(scenario.stage)
    if scenario.train is not None:
        place.train.write_bytes(scenario.train)
    users, before = Users.of(place), len(recorded(place))
    arm(server=point.label, runner=scenario.runner)
    die(place, scenario)
    assert place.reached(point.label) == 1
    found = recorded(place, before)

    disarm()
    with place.opened() as lab:
        call(lab, scenario.again)
        require_whole(place, lab, users, train=scenario.final_train, backups=scenario.backups)
        if scenario.result is not None:
            experiment = lab.ledger.experiments(order="rowid DESC", limit=1)[0]
            if point.phase in ("keep", "revert"):
                experiment = lab.ledger.experiment(scenario.result[0])
            assert (experiment.id, experiment.verdict, experiment.decision) == scenario.result
        now = Now.of(place, lab)
        call(lab, scenario.again)
        assert Now.of(place, lab) == now
        attempts = sum(kind == "run_retried" for kind in recorded(place, before)) + 1
    added = recorded(place, before + len(found))
    cell = {"found": short(found), "then": short(added), "attempts": str(attempts)}
    record_property("kill_cell", {"label": point.label, **cell})
