"""A lab with a record of 10,000 experiments: what the tools need does not grow with it, and no answer does."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import get_args

import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Decision
from autoresearch_mcp.tools.catalog import TOOLS
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.read_train import read_train
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.results import Answer, Part
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.start_session import start_session
from autoresearch_mcp.tools.status import status
from autoresearch_mcp.tools.wait_experiment import wait_experiment

from .synthetic import Kind, fill

COUNT = 10_000
TARGET_MS = 30.0
PATIENCE = 3.0  # machines differ, and tests share theirs
LARGEST_BYTES = 10_000

MakeLab = Callable[..., Lab]


def cpu_ms(call: Callable[[], object], times: int = 9) -> float:
    """Return the median CPU time of a call, that of the processes it starts and waits for included."""
    took = []
    call()
    for _ in range(times):
        before = os.times()
        call()
        after = os.times()
        took.append(1000 * sum(b - a for a, b in zip(before[:4], after[:4], strict=True)))
    return statistics.median(took)


@pytest.mark.slow
def test_status_and_history_do_not_grow_with_the_record_and_no_answer_does(make_quick_lab: MakeLab) -> None:
    """One lab for all of it, since making the record is what takes time."""
    lab = make_quick_lab(extra="[stop]\ncrashes_in_a_row = 0\n")
    words = ' of "長い説明" and \\ more words' * 10
    fill(lab, COUNT, sessions=1, kind=Kind(windows=4, undecided=0.1, words=words))
    assert lab.ledger.count_experiments() == COUNT
    calls: dict[str, Callable[[], Answer]] = {
        "status": lambda: status(lab),
        "history": lambda: history(lab),
        "history of all sessions": lambda: history(lab, session="all", per_page=25),
        "the best": lambda: history(lab, session="all", sort="best"),
        "read_program": lambda: read_program(lab),
    }
    took = {name: cpu_ms(call) for name, call in calls.items()}
    took["read_program"] /= 2  # which sums up what the session has taught, and may take twice as long
    assert max(took.values()) < PATIENCE * TARGET_MS, took
    calls |= {f"show {part}": lambda part=part: show_experiment(lab, "e9000", part) for part in get_args(Part)}
    calls |= {
        "report": lambda: report(lab),
        "a search": lambda: history(lab, text="heads norm"),
        "a chart": lambda: history(lab, chart=True),
        "read_train": lambda: read_train(lab),
        "wait_experiment": lambda: wait_experiment(lab, "e9000"),
        "start_session": lambda: start_session(lab, lab.session().tag),
    }
    for tool in ("keep", "revert", "cancel_experiment"):
        calls[tool] = _deciding(lab, tool)
    for name, call in calls.items():
        answer = call()
        sizes = len(answer.text().encode()), len(answer.model_dump_json().encode())
        assert max(sizes) < LARGEST_BYTES, (name, sizes)


def _deciding(lab: Lab, tool: str) -> Callable[[], Answer]:
    """Return a call of a tool that decides, with an experiment that it can be called with."""
    wanted = "decision = ? AND keepable" if tool == "keep" else "decision = ?"
    (chosen,) = lab.ledger.experiments(wanted, Decision.PENDING, order="rowid DESC", limit=1)
    function = next(entry.function for entry in TOOLS if entry.name == tool)
    return lambda: function(lab, chosen.id)


@pytest.mark.slow
def test_the_record_of_a_long_night_is_sound_and_can_be_read_while_it_is_checked(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    fill(lab, 500)
    began = time.monotonic()
    assert lab.ledger.verify() == []
    assert time.monotonic() - began < 60
    assert [session.tag for session in lab.ledger.sessions()][:3] == ["night-3", "night-2", "night-1"]
