"""How busy the machine is by itself: measured by `init`, recorded once, and in force here only."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import calibration
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.experiments import propose
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.machine import cores
from autoresearch_mcp.lab.paths import device_lock_path
from autoresearch_mcp.lab.scaffold import create_lab
from autoresearch_mcp.lab.states import Decision, Verdict

MakeLab = Callable[..., Lab]


@pytest.fixture
def elsewhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab on a machine on which nothing was measured."""
    monkeypatch.setattr(platform, "node", lambda: "another")
    return lab


@pytest.mark.parametrize(
    ("background", "threshold"), [(0.0, 0.15), (0.004, 0.154), (0.3, 0.45), (0.75, 0.9), (0.8, 0.9), (1.0, 0.9)]
)
def test_the_threshold_is_the_background_and_a_margin_and_no_more_than_nine_tenths(background: float, threshold: float) -> None:
    assert calibration.threshold_of(background) == threshold


def test_measuring_takes_its_time_without_keeping_a_core_busy() -> None:
    began, used = time.monotonic(), time.process_time()
    share = calibration.measure_background(0.3)
    assert time.monotonic() - began >= 0.3
    assert time.process_time() - used < 0.15
    assert share is not None
    assert 0.0 <= share <= 1.0


def test_a_calibration_is_recorded_and_replays(elsewhere: Lab) -> None:
    found = calibration.calibrate(elsewhere, 0.1)
    assert found is not None
    assert found == calibration.calibration(elsewhere.ledger)
    event = elsewhere.ledger.latest("machine_calibrated")
    assert event is not None
    assert event.body == {
        "machine": "another",
        "cores": cores(),
        "background_share": found.background_share,
        "threshold": calibration.threshold_of(found.background_share),
    }
    assert elsewhere.ledger.verify() == []


def test_it_holds_on_its_machine_with_its_cores_and_the_latest_one_counts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration.record(lab.ledger, background_share=0.2, threshold=0.35)
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert calibration.calibration(lab.ledger) is None
    calibration.record(lab.ledger, background_share=0.0, threshold=0.15)
    monkeypatch.undo()
    here = calibration.calibration(lab.ledger)
    assert here is not None
    assert here.threshold == 0.35
    monkeypatch.setattr(calibration, "cores", lambda: cores() + 1)
    assert calibration.calibration(lab.ledger) is None


def test_nothing_is_recorded_while_a_device_is_in_use(elsewhere: Lab) -> None:
    device_lock_path("cpu").parent.mkdir(parents=True, exist_ok=True)
    hold = try_lock(device_lock_path("cpu"))
    assert hold is not None
    head = elsewhere.ledger.head()
    assert calibration.calibrate(elsewhere, 0.1) is None
    calibration.calibrate_once(elsewhere)
    assert elsewhere.ledger.head() == head
    os.close(hold)


def test_a_lab_that_was_never_calibrated_is_before_its_first_run_once(tmp_path: Path, tiny_corpus: str, train_py: str) -> None:
    folder = tmp_path / "lab"
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "train.py").write_text(train_py)
    (folder / "autoresearch.toml").write_text(f'[corpus]\nname = "{tiny_corpus}"\n')
    create_lab(folder)
    lab = Lab.open(folder)
    hold = try_lock(lab.state.dispatch_lock)  # nothing is trained
    assert hold is not None
    lab.start_session(None, "tester")
    assert calibration.calibration(lab.ledger) is None
    for _ in range(2):
        propose(lab, description="baseline", hypothesis="")
    assert len(lab.ledger.events_of("machine_calibrated")) == 1
    assert lab.ledger.runs("e0001")[0].state == "queued"
    os.close(hold)
    lab.close()


@pytest.mark.slow
def test_a_real_run_is_measured_marked_and_confirmed_by_one_that_is_judged_alone(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.start_session(None, "tester")
    calibration.record(lab.ledger, background_share=0.0, threshold=-1.0)  # whatever others use is too much
    baseline, _ = propose(lab, description="baseline", hypothesis="")
    calibration.record(lab.ledger, background_share=0.0, threshold=1.0)  # the second run is beyond suspicion
    judged = wait(lab, baseline.id, 240.0)
    assert judged.verdict is Verdict.IMPROVED, judged.reason
    first, second = lab.ledger.runs(baseline.id)
    assert [json.loads(lab.state.run(run.id).spec.read_text())["contention_threshold"] for run in (first, second)] == [
        -1.0,
        1.0,
    ]
    assert first.result is not None
    assert second.result is not None
    assert re.match(r"others used \d+% of the run's \d+ cores?, more than", first.result.contended or "")
    assert second.result.contended is None
    for result in (first.result, second.result):
        assert result.others_share is not None
        assert 0.0 <= result.others_share <= 1.0
    assert (judged.decision, judged.val_bpb) == (Decision.KEPT, second.result.val_bpb)
    assert lab.ledger.verify() == []
