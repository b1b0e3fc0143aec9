"""The test split: a human opens it, a session's gain is compared on it, and no researcher learns what came of it."""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from autoresearch_mcp.lab import experiments, test_split
from autoresearch_mcp.lab.dispatch import dispatch, wait
from autoresearch_mcp.lab.errors import DecisionError, NotReadyError, StoppedError
from autoresearch_mcp.lab.executor import HeldOutSplit, RunResult
from autoresearch_mcp.lab.export import csv_text, export_results, jsonl_text
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.noise import Noise
from autoresearch_mcp.lab.recording import queue_run
from autoresearch_mcp.lab.records import Experiment, Run
from autoresearch_mcp.lab.referee.harness import harness_sha256, pinned_package
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState
from autoresearch_mcp.prepare.corpus import open_corpus
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.results import Part
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from autoresearch_mcp.tools.wait_experiment import wait_experiment

from ..polling import until
from ..windows import draw_windows

MakeLab = Callable[..., Lab]
NOISE = Noise(sigma=0.02, source="measured", runs=6)


def scored(*values: float, standard_error: float = 0.0) -> list[RunResult]:
    return [
        RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=value, standard_error=standard_error) for value in values
    ]


def compared(
    val: tuple[list[RunResult], list[RunResult]], test: tuple[list[RunResult], list[RunResult]]
) -> test_split.TestComparison:
    numbers = test_split.gains_compared(val, test, NOISE)
    return test_split.TestComparison(baseline="e0001", champion="e0007", opened_at=0.0, times_opened=1, **numbers)  # type: ignore[arg-type]


def test_the_gap_is_the_gain_on_validation_less_that_on_test_and_its_error_is_the_noise_of_all_runs() -> None:
    found = compared((scored(2.0, 2.02), scored(1.80, 1.82)), (scored(3.0, 3.02), scored(2.90, 2.92)))
    assert found.gain_val == pytest.approx(0.2)
    assert found.gain_test == pytest.approx(0.1)
    assert found.gap == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(0.02 * 2**0.5)  # four means of two runs each
    assert found.z == pytest.approx(0.1 / (0.02 * 2**0.5))


def test_what_the_audits_leave_open_is_in_the_error() -> None:
    sharp = compared((scored(2.0), scored(1.8)), (scored(2.0), scored(1.8)))
    vague = compared((scored(2.0, standard_error=0.03), scored(1.8)), (scored(2.0), scored(1.8)))
    assert sharp.standard_error == pytest.approx(0.04)
    assert vague.standard_error == pytest.approx((0.04**2 + 0.03**2) ** 0.5)


@pytest.mark.parametrize(
    ("on_test", "overfits", "words"),
    [
        (
            1.95,
            True,
            r"^The session overfits the validation set: e0007 gains \+0\.2000 over e0001 on it and \+0\.0500 on the test",
        ),
        (1.79, False, "No sign that the session overfits the validation set: .*0.0100 more, which is within noise"),
        (1.81, False, "No sign that the session overfits the validation set: .*0.0100 less, which is within noise"),
        (1.60, False, "No sign that .*0.2000 more, which is more than noise explains"),
    ],
)
def test_one_sentence_says_whether_a_session_overfits(on_test: float, overfits: bool, words: str) -> None:
    found = compared((scored(2.0, 2.0), scored(1.8, 1.8)), (scored(2.0, 2.0), scored(on_test, on_test)))
    assert found.overfits is overfits
    assert re.search(words, found.sentence)


# -- in a lab -----------------------------------------------------------------------------------------------------------------


def keep_one(lab: Lab, quick: str, *, description: str = "an idea") -> Experiment:
    """Make the champion of what the quick runner measures as ``quick`` says."""
    train = lab.workspace.train
    train.write_text(f"# quick: {quick}\n" + "\n".join(train.read_text().splitlines()[1:]) + "\n")
    experiment = wait(lab, experiments.propose(lab, description=description, hypothesis="")[0].id, 60)
    if experiment.decision is Decision.PENDING:
        experiments.keep(lab, experiment.id, "a gain")
    return lab.ledger.experiment(experiment.id)


@pytest.fixture
def night(make_quick_lab: MakeLab) -> Lab:
    """A session whose champion gains 0.2 on validation and a third of that on the test split."""
    lab = make_quick_lab()
    keep_one(lab, "val_bpb=2.0", description="baseline")
    keep_one(lab, "val_bpb=1.8 test_plus=0.1234")
    return lab


def measure(lab: Lab) -> test_split.TestComparison:
    opening = test_split.open_test(lab, lab.session())

    def ended() -> bool:
        dispatch(lab)
        return all(lab.ledger.run(run_id).result is not None for run_id in waiting)

    while waiting := test_split.queue_runs(lab, opening):
        until(ended)
    found = test_split.comparison(lab, lab.session())
    assert found is not None
    return found


def test_opening_it_measures_baseline_and_champion_twice_on_both_splits_and_records_the_comparison(night: Lab) -> None:
    assert test_split.comparison(night, night.session()) is None
    found = measure(night)
    assert (found.gain_val, found.gain_test) == (pytest.approx(0.2), pytest.approx(0.0766))
    assert found.overfits
    for experiment_id, numbers in (("e0001", [2.0, 2.0]), ("e0002", [1.9234, 1.9234])):
        runs = night.ledger.test_runs(experiment_id)
        assert [run.result.val_bpb for run in runs if run.result is not None] == numbers
        assert len({run.seed for run in runs}) == 2
    # What was measured before the champion was kept selected it: both take two more.
    assert [len(night.ledger.runs(experiment_id)) for experiment_id in ("e0001", "e0002")] == [3, 3]
    head = night.ledger.head()
    assert measure(night) == found
    assert night.ledger.head() == head
    assert night.ledger.verify() == []


def test_a_newer_champion_opens_it_again_and_the_count_is_told(night: Lab) -> None:
    first = measure(night)
    keep_one(night, "val_bpb=1.5", description="another idea")
    assert test_split.comparison(night, night.session()) == first
    second = measure(night)
    assert (second.champion, second.times_opened, second.gain_test) == ("e0003", 2, pytest.approx(0.5))
    assert len(night.ledger.test_runs("e0001")) == 2  # the baseline's numbers hold


def test_what_is_proposed_afterwards_is_marked_and_tools_and_the_report_say_so(night: Lab) -> None:
    measure(night)
    late = keep_one(night, "val_bpb=1.7", description="a late idea")
    marks = [experiment.after_test for experiment in night.ledger.experiments()]
    assert marks == [False, False, True]
    assert f"a late idea ({test_split.AFTER_TEST})" in history(night).text()
    for text in (show_experiment(night, late.id).text(), report(night).text()):
        assert test_split.AFTER_TEST in text
    assert test_split.AFTER_TEST not in show_experiment(night, "e0002").text()
    assert [row.after_test for row in history(night).experiments] == [True, False, False]
    night.start_session("another", "tester")
    assert not keep_one(night, "val_bpb=1.7", description="baseline").after_test


def test_no_tool_and_no_export_says_what_came_of_it(night: Lab) -> None:
    before = night.noise(night.session())
    measure(night)
    everything = night.ledger.experiments()
    runs = night.ledger.runs_by_experiment("1")
    answers = [read_program(night), status(night), history(night, session="all"), report(night)]
    answers += [wait_experiment(night, each.id) for each in everything]
    answers += [show_experiment(night, each.id, part) for each in everything for part in get_args(Part)]
    texts = [text for answer in answers for text in (answer.text(), answer.model_dump_json())]
    texts += [export_results(everything, runs).tsv(), jsonl_text(everything, runs), csv_text(everything, runs)]
    for text in texts:
        for secret in ("1.9234", "1.923", "0.0766", ".test1", "overfits"):
            assert secret not in text
    assert [each.val_bpb for each in everything] == [2.0, 1.8]
    assert all(run.purpose is not Purpose.TEST for members in runs.values() for run in members)
    assert night.noise(night.session()).runs <= 5  # of validation alone
    assert before.source == "prior"


def test_only_commands_open_it_or_read_what_came_of_it() -> None:
    package = Path(test_split.__file__).parent.parent
    modules = [path for part in ("tools", "server") for path in (package / part).rglob("*.py")]
    for path in (path for path in modules if path.parent.name != "cli"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {name.name for node in imports if (node.module or "").endswith("test_split") for name in node.names}
        assert named <= {"AFTER_TEST", "TestComparison"}, path
        assert "test_runs" not in path.read_text(), path


@contextmanager
def nothing_starts(lab: Lab) -> Iterator[None]:
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    try:
        yield
    finally:
        os.close(hold)


def test_while_it_waits_nobody_sees_it_and_a_researchers_run_goes_first(night: Lab) -> None:
    with nothing_starts(night):
        waiting = test_split.queue_runs(night, test_split.open_test(night, night.session()))
        assert len(waiting) == 8
        night.ledger.append("run_started", {"id": "e0001.test1", "attempt": 1, "device": "cpu"})
        night.ledger.append("run_retried", {"id": "e0001.test1", "reason": "its runner died"})
        shown = status(night)
        assert "e0001.test1" not in shown.text()
        assert shown.queued == ["e0001", "e0001", "e0002", "e0002"]  # the seeds that validation lacks
        assert wait_experiment(night, "e0002", 0.0).state == "finished"
        found = test_split.comparison(night, night.session())
        assert found is not None
        assert found.overfits is None
        assert "not all of its runs have a number yet" in found.sentence
        train = night.workspace.train
        train.write_text(train.read_text() + "\n# quick: minus=0.3\n")
        idea, _ = experiments.propose(night, description="an idea in between", hypothesis="")
    dispatch(night)
    first = next(run for run in map(night.ledger.run, [*waiting, f"{idea.id}.1"]) if run.state is not RunState.QUEUED)
    assert first.experiment == idea.id


def test_a_number_that_does_not_count_is_measured_again(night: Lab) -> None:
    session, opening = night.session(), test_split.open_test(night, night.session())
    with nothing_starts(night):
        for facts in ({"contended": "others used 40%"}, {"tainted": "corpus"}, {"split": "val"}):
            run_id = queue_run(night, "e0001", night.session_config(session), Purpose.TEST)
            night.ledger.append("run_started", {"id": run_id, "attempt": 1, "device": "cpu"})
            result = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=9.0, **{"split": "test", **facts})  # type: ignore[arg-type]
            night.ledger.append("run_finished", {"id": run_id, "result": result_to_json(result)})
            assert not test_split.gave_a_number(night.ledger.run(run_id))
        assert test_split.queue_runs(night, opening)[:4] == ["e0001.2", "e0001.3", "e0001.test4", "e0001.test5"]
    assert measure(night).gain_test == pytest.approx(0.0766)


def test_it_stays_closed_where_there_is_nothing_to_compare_or_nothing_would_run(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    for what, quick in (("baseline", "val_bpb=2.0"), ("an idea", "val_bpb=1.5")):
        with pytest.raises(DecisionError, match="has kept nothing besides its baseline"):
            test_split.open_test(lab, lab.session())
        keep_one(lab, quick, description=what)
    lab.ledger.append("lab_paused", {"reason": "the weekend"})
    with pytest.raises(StoppedError, match=r"the weekend.*autoresearch resume"):
        test_split.open_test(lab, lab.session())
    assert lab.ledger.events_of("test_opened") == []


def test_a_session_whose_harness_knows_no_other_split_is_told_before_anything_runs(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    package = pinned_package(lab.state.harness, lab.harness())
    older = lab.state.harness / "older"
    shutil.copytree(package.parent, older)
    (older / package.name / "lab" / "referee" / "scored_rows.py").unlink()
    sha256 = harness_sha256(older / package.name)
    older.rename(lab.state.harness / sha256)
    lab.ledger.append("harness_pinned", {"sha256": sha256})
    lab.start_session("older", "tester")
    keep_one(lab, "val_bpb=2.0", description="baseline")
    keep_one(lab, "val_bpb=1.5")
    with pytest.raises(NotReadyError, match=r"which cannot score the test split.*start_session\(tag=\"new\"\)"):
        test_split.open_test(lab, lab.session())
    assert lab.ledger.events_of("test_opened") == []


@pytest.mark.slow
def test_the_real_referee_scores_and_audits_the_windows_that_the_secret_draws_from_the_test_split(lab: Lab) -> None:
    baseline = wait(lab, experiments.propose(lab, description="baseline", hypothesis="")[0].id, 120)
    run_id = queue_run(lab, baseline.id, lab.session_config(lab.session()), Purpose.TEST)

    def ended() -> bool:
        dispatch(lab)
        return lab.ledger.run(run_id).result is not None

    until(ended, deadline_seconds=120)
    corpus, profile = open_corpus(lab.config().corpus_name), lab.config().profile_facts
    (on_val,), (on_test,) = lab.ledger.runs(baseline.id), lab.ledger.test_runs(baseline.id)
    on_both: tuple[tuple[Run, HeldOutSplit], ...] = ((on_val, "val"), (on_test, "test"))
    for run, split in on_both:
        windows = draw_windows(
            corpus.text(split),
            corpus.offsets(split),
            secret=lab.state.validation_secret.read_bytes(),
            total_bytes=profile.validation_bytes,
            window_bytes=profile.window_bytes,
            split=split,
        )
        assert run.result is not None
        assert run.result.outcome is Outcome.SCORED
        assert run.result.split == split
        assert run.result.scored_bytes == sum(end - start for start, end in windows)
        assert run.result.audits > 0
        assert lab.state.run(run.attempt_id).claims.exists() is (split == "val")
    assert lab.ledger.experiment(baseline.id) == baseline
