"""What a researcher may propose and decide: refusals cost no device time, and nothing is ever lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import CandidateError, DecisionError, NotReadyError, UnknownExperimentError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Outcome, RunState, Verdict


def edit(lab: Lab, text: str) -> None:
    source = lab.workspace.train.read_text()
    lab.workspace.train.write_text(source.replace("WIDTH = 16", f"WIDTH = {text}") if text.isdigit() else source + text)


def refused(lab: Lab) -> str:
    """Propose what cannot be a fair experiment; return the message, having checked that it was quick and free."""
    before = lab.ledger.head()
    started = time.monotonic()
    with pytest.raises(CandidateError) as raised:
        experiments.propose(lab, description="an idea", hypothesis="")
    assert time.monotonic() - started < 2.0
    assert lab.ledger.head() == before
    assert not list(lab.state.runs.iterdir())
    return str(raised.value)


def test_the_baseline_is_kept_by_the_server(lab: Lab, measured: Callable[..., Experiment]) -> None:
    baseline = measured(2.0)
    assert (baseline.verdict, baseline.decision, baseline.parent) == (Verdict.IMPROVED, Decision.KEPT, None)
    assert lab.session().champion == baseline.id
    lab.align_branch(lab.session())
    assert lab.git.ref(lab.session().branch) == baseline.commit


def test_an_unchanged_train_py_is_refused_and_names_the_champion(lab: Lab, measured: Callable[..., Experiment]) -> None:
    baseline = measured(2.0)
    message = refused(lab)
    assert "unchanged" in message
    assert baseline.id in message


def test_the_same_undecided_bytes_return_the_same_experiment(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    first = measured(1.9, change="32")
    again, is_new = experiments.propose(lab, description="the same again", hypothesis="")
    assert (again.id, is_new) == (first.id, False)
    assert lab.ledger.count_experiments() == 2


def test_the_same_decided_bytes_are_refused_naming_the_experiment(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    tried = measured(2.5, change="32")
    experiments.revert(lab, tried.id, "too wide")
    edit(lab, "32")
    message = refused(lab)
    assert tried.id in message
    assert "worse" in message


def test_a_cancelled_experiment_may_be_tried_again(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    cancelled = measured(None, change="32", outcome=Outcome.CANCELLED)
    assert measured(1.9).id != cancelled.id


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("def broken(:\n", "line"),
        ("import requests\n", "requests"),
        ("from prepare import make_dataloader\nmake_dataloader(None, 1, 1, 'train')\n", "evaluate_bpb"),
        ("# " + "x" * 70_000, "65536"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused_with_the_reason(
    lab: Lab, measured: Callable[..., Experiment], content: str, expected: str
) -> None:
    measured(2.0)
    lab.workspace.train.write_text(content)
    assert expected in refused(lab)


def test_a_symlink_is_refused_and_never_followed(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    elsewhere = lab.root / "elsewhere.py"
    elsewhere.write_text(lab.workspace.train.read_text() + "\n# other\n")
    lab.workspace.train.unlink()
    lab.workspace.train.symlink_to(elsewhere)
    assert "link" in refused(lab)


def test_new_literal_data_over_4_kb_is_refused(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    edit(lab, f"\nANSWERS = {'x' * 5000!r}\n")
    assert "literal" in refused(lab)


def test_a_first_experiment_that_is_not_the_baseline_is_refused_with_the_way_back(lab: Lab) -> None:
    edit(lab, "64")
    assert "revert" in refused(lab)
    _, backup = experiments.revert(lab, experiments.WORKSPACE, "")
    assert backup is not None
    assert b"WIDTH = 64" in lab.git.read_blob(lab.git.ref(backup) or "")
    assert "WIDTH = 16" in lab.workspace.train.read_text()


def test_a_repaired_train_py_is_accepted_after_the_baseline_crashed(lab: Lab, measured: Callable[..., Experiment]) -> None:
    assert measured(None, outcome=Outcome.CRASHED).verdict is Verdict.CRASHED
    repaired = measured(2.0, change="32")
    assert lab.session().champion == repaired.id


def test_run_experiment_without_a_session_names_start_session(make_lab: Callable[..., Lab]) -> None:
    with pytest.raises(NotReadyError, match="start_session"):
        experiments.propose(make_lab(), description="an idea", hypothesis="")


def test_a_session_without_its_corpus_names_the_command(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(extra="")
    config = lab.workspace.config
    config.write_text(config.read_text().replace('"tiny"', '"missing"'))
    with pytest.raises(NotReadyError, match="autoresearch prepare"):
        lab.start_session(None, "tester")


def test_keep_moves_the_champion_and_the_branch_and_repeats_harmlessly(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    better = measured(1.9, change="32")
    for _ in range(2):
        kept = experiments.keep(lab, better.id, "wider is better").experiment
        assert kept.decision is Decision.KEPT
    assert lab.session().champion == better.id
    assert lab.session().version == 2
    assert lab.git.ref(lab.session().branch) == better.commit
    assert lab.git.read_file(better.commit, "trainer/train.py") == lab.workspace.train.read_bytes()


@pytest.mark.parametrize(
    ("val_bpb", "outcome", "expected"), [(2.5, Outcome.SCORED, "worse"), (None, Outcome.CRASHED, "crashed")]
)
def test_keep_of_a_worse_or_crashed_experiment_is_refused_with_the_reason(
    lab: Lab, measured: Callable[..., Experiment], val_bpb: float | None, outcome: Outcome, expected: str
) -> None:
    baseline = measured(2.0)
    bad = measured(val_bpb, change="32", outcome=outcome)
    with pytest.raises(DecisionError, match=expected):
        experiments.keep(lab, bad.id, "please")
    assert lab.session().champion == baseline.id


def test_keep_of_an_unknown_experiment_names_the_known_ones(lab: Lab, measured: Callable[..., Experiment]) -> None:
    baseline = measured(2.0)
    with pytest.raises(UnknownExperimentError, match=baseline.id):
        experiments.keep(lab, "e9999", "")


def test_a_change_that_the_champion_has_already_is_not_merged(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    first = measured(1.9, change="32")
    second = measured(1.8, change="\nEXTRA = 1\n")
    experiments.keep(lab, second.id, "")
    with pytest.raises(DecisionError, match=f"{second.id} has the change of {first.id} already"):
        experiments.keep(lab, first.id, "")
    assert lab.session().champion == second.id


def test_a_decision_is_made_once(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    better = measured(1.9, change="32")
    experiments.keep(lab, better.id, "")
    with pytest.raises(DecisionError, match="already kept"):
        experiments.revert(lab, better.id, "no")


def test_keep_refuses_when_somebody_moved_the_branch(lab: Lab, measured: Callable[..., Experiment]) -> None:
    baseline = measured(2.0)
    better = measured(1.9, change="32")
    stranger = lab.git.commit_with_file(baseline.commit, "notes.txt", b"mine", "other work", 1)
    lab.align_branch(lab.session())
    lab.git.update_ref(lab.session().branch, stranger, baseline.commit)
    with pytest.raises(DecisionError, match="moved"):
        experiments.keep(lab, better.id, "")
    assert lab.git.ref(lab.session().branch) == stranger


def test_revert_restores_the_champion_and_repeats_harmlessly(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    before = lab.workspace.train.read_bytes()
    worse = measured(2.5, change="\nEXTRA = 1\n")
    assert lab.workspace.train.read_bytes() != before
    for _ in range(2):
        reverted, backup = experiments.revert(lab, worse.id, "no gain")
        assert reverted is not None
        assert (reverted.decision, reverted.note, backup) == (Decision.REVERTED, "no gain", None)
    assert lab.workspace.train.read_bytes() == before
    assert lab.git.read_file(worse.commit, "trainer/train.py") != before


def test_revert_saves_edits_that_were_made_meanwhile(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    worse = measured(2.5, change="32")
    edit(lab, "\nNEXT_IDEA = 1\n")
    _, backup = experiments.revert(lab, worse.id, "")
    assert backup is not None
    assert b"NEXT_IDEA" in lab.git.read_blob(lab.git.ref(backup) or "")


def test_the_users_head_index_and_other_files_stay_as_they_are(lab: Lab, measured: Callable[..., Experiment]) -> None:
    (lab.root / "notes.txt").write_text("unsaved work\n")
    program = lab.root / "program.md"
    program.write_text(program.read_text() + "\nmy own words\n")
    head, index = lab.git.head_commit(), (lab.git.common_dir / "index").read_bytes()
    measured(2.0)
    better = measured(1.9, change="32")
    experiments.keep(lab, better.id, "")
    worse = measured(2.5, change="\nEXTRA = 1\n")
    experiments.revert(lab, worse.id, "")
    assert lab.git.head_commit() == head
    assert (lab.git.common_dir / "index").read_bytes() == index
    assert (lab.root / "notes.txt").read_text() == "unsaved work\n"
    assert program.read_text().endswith("my own words\n")


def test_a_deciding_call_before_the_verdict_says_to_wait(lab: Lab) -> None:
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    with pytest.raises(DecisionError, match="wait_experiment"):
        experiments.keep(lab, experiment.id, "")
    os.close(hold)
    cancelled = experiments.cancel(lab, experiment.id)
    assert cancelled.verdict is Verdict.CANCELLED
    assert wait(lab, experiment.id, 0.0).verdict is Verdict.CANCELLED
    assert lab.ledger.runs(experiment.id)[0].state is RunState.FINISHED


def test_every_step_is_in_the_chain_and_replays(lab: Lab, measured: Callable[..., Experiment]) -> None:
    measured(2.0)
    better = measured(1.9, change="32")
    experiments.keep(lab, better.id, "wider")
    assert lab.ledger.verify() == []
