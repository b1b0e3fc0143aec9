"""The autopilot in a real lab: what it counts as tried, and that it ends with a report when the lab says stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial

import anyio
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.control_group import is_autopilot
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.errors import StoppedError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import pause
from autoresearch_mcp.lab.states import Decision, Outcome
from autoresearch_mcp.server.app import ERROR_KIND, build_server
from autoresearch_mcp.server.autopilot.client import LabClient
from autoresearch_mcp.server.autopilot.researcher import Autopilot, Report
from autoresearch_mcp.server.autopilot.strategy import Change, Observation, Proposal
from autoresearch_mcp.tools.results import ExperimentAnswer, SessionAnswer
from mcp import Client

MakeLab = Callable[..., Lab]


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def session_started(self, session: SessionAnswer) -> None: ...

    def progressed(self, answer: ExperimentAnswer) -> None: ...

    def finished(self, answer: ExperimentAnswer) -> None: ...

    def refused(self, proposal: Proposal, reason: str) -> None:
        self.refusals.append(reason)

    def saved(self, ref: str) -> None: ...


class Counting:
    """A strategy whose ideas change nothing that counts; it remembers what it was told had been tried."""

    learns = False

    def __init__(self) -> None:
        self.tried: Set[Change] = set()
        self._ideas = 0

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        self.tried = tried
        self._ideas += 1
        return Proposal(description=f"IDEA 0 -> {self._ideas}", hypothesis="", source=f"{source}\nIDEA = {self._ideas}\n")


def research(lab: Lab, strategy: Counting, observer: Listener, ideas: int) -> Report:
    async def main() -> Report:
        async with Client(build_server(partial(Lab.open, lab.root, autopilot=True))) as client:
            return await Autopilot(LabClient(client), lab.root, strategy, observer).research(ideas)

    return anyio.run(main)


def tried_before(lab: Lab, description: str, *, researcher: str = "tester", decided: bool = True) -> None:
    """Record a session in which one idea was tried and found worse, without training."""
    lab.presence.autopilot = is_autopilot(researcher)
    lab.start_session("new", researcher)
    with nothing_runs(lab):
        original = lab.workspace.train.read_text()
        for change, val_bpb, words in (("", 2.0, "baseline"), ("\nX = 1\n", 2.5, description)):
            lab.workspace.train.write_text(original + change)
            experiment, _ = experiments.propose(lab, description=words, hypothesis="")
            measured(lab, experiment, val_bpb)
            if change and decided:
                experiments.revert(lab, experiment.id, "worse")


@contextmanager
def nothing_runs(lab: Lab) -> Iterator[None]:
    """Start no run in this block."""
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    yield
    os.close(hold)


def measured(lab: Lab, experiment: Experiment, val_bpb: float) -> None:
    """Record that an experiment's run ended with a number."""
    (run,) = lab.ledger.runs(experiment.id)
    result = RunResult(outcome=Outcome.SCORED, reason="measured", val_bpb=val_bpb, standard_error=0.0)
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)


def test_a_paused_lab_ends_the_research_with_its_report_and_the_reason(make_lab: MakeLab, train_py: str) -> None:
    lab, observer = make_lab(), Listener()
    pause(lab, "the fan is loud")
    report = research(lab, Counting(), observer, 3)
    assert report.experiments == []
    assert "The lab is paused" in (report.ended_early or "")
    assert "the fan is loud" in (report.ended_early or "")
    assert observer.refusals == []
    assert lab.workspace.train.read_text() == train_py


@pytest.mark.parametrize(("researcher", "decision"), [("autopilot", Decision.REVERTED), ("ann", Decision.PENDING)])
def test_it_decides_what_it_left_undecided_itself_and_nothing_of_others(
    make_lab: MakeLab, researcher: str, decision: Decision
) -> None:
    lab = make_lab()
    tried_before(lab, "half done", researcher=researcher, decided=False)
    pause(lab, "only to settle")
    research(lab, Counting(), Listener(), 1)
    assert lab.ledger.experiment("e0002").decision is decision


def test_a_stale_win_of_a_session_that_has_met_its_stop_rule_does_not_keep_the_next_from_beginning(make_lab: MakeLab) -> None:
    lab = make_lab(extra="[stop]\nexperiments = 3\n")
    lab.presence.autopilot = True
    lab.start_session("new", "autopilot")
    with nothing_runs(lab):
        source = lab.workspace.train.read_text()
        for change, val_bpb in (("", 2.0), ("\nX = 1\n", 1.5), ("\nY = 1\n", 1.4)):
            lab.workspace.train.write_text(source + change)
            measured(lab, experiments.propose(lab, description=f"change {change!r}", hypothesis="")[0], val_bpb)
    experiments.keep(lab, "e0003", "")
    pause(lab, "only to settle")
    research(lab, Counting(), Listener(), 1)
    won = lab.ledger.experiment("e0002")
    assert won.decision is Decision.REVERTED
    assert "Could not be kept" in won.note


def test_an_error_tells_programs_its_kind_and_only_a_stop_is_a_stop(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.start_session("today", "tester")

    async def kinds() -> list[object]:
        async with Client(build_server(partial(Lab.open, lab.root))) as client:
            unknown = await client.call_tool("keep", {"experiment_id": "e0099"})
            pause(lab, "")
            stopped = await client.call_tool("run_experiment", {"description": "baseline"})
            with pytest.raises(StoppedError, match=r"^The lab is paused"):
                await LabClient(client).call("run_experiment", ExperimentAnswer, description="baseline")
            return [(result.meta or {}).get(ERROR_KIND) for result in (unknown, stopped)]

    assert anyio.run(kinds) == ["UnknownExperimentError", "StoppedError"]


@pytest.mark.slow
def test_a_met_stop_rule_ends_it_and_other_budgets_answers_are_not_taken_for_tried(make_lab: MakeLab, train_py: str) -> None:
    lab = make_lab(seconds=1.5, extra="[stop]\nexperiments = 2\n")
    tried_before(lab, "WIDTH 16 -> 32")
    other_budget = Lab.open(lab.root, budget_seconds=9.0)
    try:
        tried_before(other_budget, "WIDTH 16 -> 48")
    finally:
        other_budget.close()
    strategy, observer = Counting(), Listener()
    report = research(lab, strategy, observer, 5)
    assert strategy.tried == {("WIDTH", frozenset(("16", "32")))}
    assert [experiment.description for experiment in report.experiments] == ["baseline", "IDEA 0 -> 1"]
    assert all(experiment.val_bpb is not None for experiment in report.experiments)
    assert "has met its stop rule: 2 of 2 experiments" in (report.ended_early or "")
    assert observer.refusals == []
    assert lab.workspace.train.read_bytes() == lab.champion_source(lab.ledger.sessions()[0])
