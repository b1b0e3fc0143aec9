"""What each program came to: summed up within one comparability group only, and without the baselines' free keeps."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from autoresearch_mcp.lab.ledger import Ledger
from autoresearch_mcp.lab.programs import ProgramRecord, compare_programs, program_title
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Verdict

OLD, NEW = "a" * 64, "b" * 64


class Recorder:
    """Appends experiments with their verdicts to a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._numbers = itertools.count(1)
        self._versions: dict[str, int] = {}

    def add(
        self,
        val_bpb: float | None = None,
        delta: float | None = None,
        *,
        verdict: Verdict | None = Verdict.IMPROVED,
        decision: Decision = Decision.REVERTED,
        program: str = OLD,
        session: str = "s",
        **texts: str,
    ) -> None:
        """Add one; the first of a session is its baseline."""
        if session not in self._versions:
            self._versions[session] = 0
            facts = dict.fromkeys(("researcher", "base_commit", "base_sha256", "config", "harness", "program_sha256"), "x")
            self.ledger.append("session_started", {**facts, "tag": session, "group": f"group of {session}"})
        number, version = next(self._numbers), self._versions[session]
        event = {
            **dict.fromkeys(("researcher", "candidate_sha256", "commit"), "x"),
            "id": f"e{number:04d}",
            "session": session,
            "parent": None if version == 0 else "e0001",
            "parent_version": version,
            "program_sha256": program,
            "lines": 1,
            "lines_delta": 0,
            "description": "an idea",
            "hypothesis": "",
            **texts,
        }
        self.ledger.append("experiment_recorded", event)
        if verdict is not None:
            facts = {"id": event["id"], "verdict": verdict, "reason": "", "val_bpb": val_bpb, "delta": delta}
            nothing = dict.fromkeys(("standard_error", "z", "confidence"))
            self.ledger.append("experiment_judged", {**facts, **nothing, "keepable": True})
        if decision is Decision.KEPT:
            kept = {"id": event["id"], "session": session, "version": version, "reason": ""}
            self.ledger.append("experiment_kept", kept)
            self._versions[session] += 1
        elif decision is Decision.REVERTED:
            self.ledger.append("experiment_reverted", {"id": event["id"], "lesson": ""})

    def programs(self, where: str = "1", *values: object) -> list[ProgramRecord]:
        groups = {session.tag: session.group for session in self.ledger.sessions()}
        return compare_programs(self.ledger.program_shares(where, *values), groups)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        yield Recorder(ledger)


def test_two_programs_are_summed_up_side_by_side(recorder: Recorder) -> None:
    recorder.add(2.0, decision=Decision.KEPT)
    recorder.add(1.9, -0.1, decision=Decision.KEPT)
    recorder.add(2.2, 0.3, verdict=Verdict.WORSE)
    recorder.add(verdict=Verdict.CRASHED)
    recorder.add(1.85, -0.05, program=NEW, decision=Decision.KEPT)
    recorder.add(1.8, -0.05, program=NEW, decision=Decision.PENDING)
    recorder.add(program=NEW, verdict=None, decision=Decision.PENDING)
    old, new = recorder.programs()
    assert (old.sha256, old.first, old.last, old.experiments, old.kept, old.without_number) == (OLD, "e0001", "e0004", 4, 1, 1)
    assert (old.best_val_bpb, old.began_at) == (1.9, recorder.ledger.experiment("e0001").created_at)
    assert old.mean_delta == pytest.approx(0.1)
    assert old.total_gain == pytest.approx(0.1)
    assert (new.sha256, new.experiments, new.kept, new.without_number) == (NEW, 3, 1, 0)
    assert (new.best_val_bpb, new.total_gain) == (1.8, pytest.approx(0.05))
    (only,) = recorder.programs("decision = ?", Decision.PENDING)
    assert (only.sha256, only.experiments, only.first) == (NEW, 2, "e0006")


def test_one_experiment_that_diverged_moves_the_mean_and_not_the_median(recorder: Recorder) -> None:
    recorder.add(2.0, decision=Decision.KEPT)
    for delta in (0.01, -0.01, 0.02, 5.0, -0.02):
        recorder.add(2.0, delta)
    (record,) = recorder.programs()
    assert record.mean_delta == pytest.approx(1.0)
    assert record.median_delta == pytest.approx(0.01)


def test_numbers_of_two_comparability_groups_are_never_mixed(recorder: Recorder) -> None:
    recorder.add(2.0, session="cpu", decision=Decision.KEPT)
    recorder.add(0.9, session="gpu", decision=Decision.KEPT)
    found = [(record.group, record.best_val_bpb) for record in recorder.programs()]
    assert found == [("group of cpu", 2.0), ("group of gpu", 0.9)]


def test_sessions_of_one_group_are_one_row_from_the_first_experiment_to_the_last(recorder: Recorder) -> None:
    for session, val_bpb in (("one", 2.0), ("two", 1.9), ("one", 2.1)):
        recorder.add(val_bpb, session=session)
    (record,) = compare_programs(recorder.ledger.program_shares(), {"one": "g", "two": "g"})
    assert (record.first, record.last, record.experiments, record.best_val_bpb) == ("e0001", "e0003", 3, 1.9)


def test_a_program_that_only_failed_has_no_best_and_no_mean(recorder: Recorder) -> None:
    recorder.add(verdict=Verdict.CRASHED)
    (record,) = recorder.programs()
    assert (record.best_val_bpb, record.mean_delta, record.total_gain, record.without_number) == (None, None, 0.0, 1)


def test_nothing_gives_nothing(recorder: Recorder) -> None:
    assert recorder.programs() == []


def test_what_sqlite_sums_up_is_what_the_records_say(recorder: Recorder) -> None:
    """Over a few hundred experiments at random, whose differences have all their digits."""
    chance = random.Random(1)
    with recorder.ledger.transaction():
        for _ in range(300):
            verdict = chance.choice([*Verdict, None])
            number = chance.uniform(1, 3) if verdict is not None and verdict.has_number() else None
            delta = None if number is None else chance.gauss(0, 0.1)
            decision = chance.choice([*Decision]) if verdict else Decision.PENDING
            where = {"program": chance.choice([OLD, NEW]), "session": chance.choice(["s", "t"])}
            recorder.add(number, delta, verdict=verdict, decision=decision, **where)
    experiments = recorder.ledger.experiments()
    for record in recorder.programs():
        members = [e for e in experiments if e.program_sha256 == record.sha256 and f"group of {e.session}" == record.group]
        assert (record.first, record.last, record.experiments) == (members[0].id, members[-1].id, len(members))
        kept = [e for e in members if e.decision is Decision.KEPT and not e.is_baseline]
        deltas = [e.delta for e in members if e.delta is not None]
        assert (record.kept, record.without_number) == (len(kept), sum(_has_no_number(e) for e in members))
        assert record.best_val_bpb == min(e.val_bpb for e in members if e.val_bpb is not None)
        assert record.mean_delta == pytest.approx(statistics.fmean(deltas), rel=1e-12)
        assert record.median_delta == pytest.approx(statistics.median(deltas), rel=1e-12)
        assert record.total_gain == pytest.approx(-sum(e.delta or 0.0 for e in kept), rel=1e-12)


def _has_no_number(experiment: Experiment) -> bool:
    return experiment.verdict is not None and experiment.val_bpb is None


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Be bold\n\nTry large steps.\n", "Be bold"),
        ("notes\n\n## Small steps ##\n", "Small steps"),
        ("\n  only words\n", "only words"),
        ("", "(empty)"),
        ("# " + "x" * 99, "x" * 57 + "..."),
    ],
)
def test_a_program_is_called_by_its_first_heading(text: str, title: str) -> None:
    assert program_title(text) == title
