"""The events of runs, from what lies in their folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from autoresearch_mcp.lab.paths import RunPaths, StatePaths
from autoresearch_mcp.lab.run_events import RunEvents
from autoresearch_mcp.lab.states import Outcome


@pytest.fixture
def state(tmp_path: Path) -> StatePaths:
    state = StatePaths(tmp_path)
    state.runs.mkdir()
    return state


def write_run(state: StatePaths, run_id: str, *, queued: float, told: list[tuple[str, float]], ended: float | None) -> RunPaths:
    paths = state.run(run_id)
    paths.root.mkdir()
    paths.spec.write_text("{}")
    os.utime(paths.spec, (queued, queued))
    paths.events.write_text("".join(json.dumps({"kind": kind, "at": at}) + "\n" for kind, at in told))
    if ended is not None:
        paths.result.write_text(json.dumps({"outcome": Outcome.SCORED}))
        os.utime(paths.result, (ended, ended))
    return paths


def test_a_clock_that_is_set_back_during_a_run_does_not_change_the_order(state: StatePaths) -> None:
    write_run(state, "a.1", queued=1000.0, told=[("started", 1001.0), ("training", 901.0), ("scoring", 902.0)], ended=903.0)
    write_run(state, "b.1", queued=950.0, told=[("started", 1000.5)], ended=None)
    told = RunEvents(state, lambda paths: None).since(0)
    assert [(event.run_id, event.kind, event.at) for event in told] == [
        ("b.1", "queued", 950.0),
        ("a.1", "queued", 1000.0),
        ("b.1", "started", 1000.5),
        ("a.1", "started", 1001.0),
        ("a.1", "training", 1001.0),
        ("a.1", "scoring", 1001.0),
        ("a.1", "terminal", 1001.0),
    ]


def test_a_line_that_is_being_written_is_told_once_it_is_whole(state: StatePaths) -> None:
    events = RunEvents(state, lambda paths: None)
    paths = write_run(state, "a.1", queued=1000.0, told=[("started", 1001.0)], ended=None)
    with paths.events.open("a") as file:
        file.write('{"kind": "trai')
        file.flush()
        assert [event.kind for event in events.since(0)] == ["queued", "started"]
        file.write('ning", "at": 1002.0}\n')
    assert [event.kind for event in events.since(2)] == ["training"]


def test_a_run_that_has_ended_is_never_read_again_and_new_ones_are_found(state: StatePaths) -> None:
    events = RunEvents(state, lambda paths: None)
    paths = write_run(state, "a.1", queued=1000.0, told=[("started", 1001.0)], ended=1002.0)
    os.utime(state.runs, (1000.0, 1000.0))
    assert [event.kind for event in events.since(0)] == ["queued", "started", "terminal"]
    paths.spec.unlink()
    paths.result.write_text("not JSON")
    assert list(events.since(3)) == []
    write_run(state, "b.1", queued=1003.0, told=[], ended=None)
    assert [event.run_id for event in events.since(3)] == ["b.1"]
