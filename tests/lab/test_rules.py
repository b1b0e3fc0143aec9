"""The human's decisions: a changed file counts once it is accepted, a pause starts nothing, a stop rule closes the session."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import dispatch
from autoresearch_mcp.lab.errors import ConfigError, NotReadyError, StoppedError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.rules import accept_rules, pause, resume, unaccepted_changes
from autoresearch_mcp.lab.states import Outcome, RunState
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.folder import FolderSource
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.start_session import start_session
from autoresearch_mcp.tools.status import status


def rewrite(lab: Lab, old: str, new: str) -> None:
    text = lab.workspace.config.read_text()
    assert old in text
    lab.workspace.config.write_text(text.replace(old, new))


def add(lab: Lab, text: str) -> None:
    lab.workspace.config.write_text(lab.workspace.config.read_text() + text)


def test_the_first_session_accepts_what_lies_there(make_lab):
    lab = make_lab()
    rewrite(lab, "seconds = 2.0", "seconds = 3.0")
    lab.workspace.program.write_text("try harder\n")
    session, _ = lab.start_session(None, "tester")
    assert lab.session_config(session).budget.seconds == 3.0
    assert lab.program(session) == "try harder\n"
    assert unaccepted_changes(lab) == []


def test_an_edit_of_the_humans_files_counts_for_nothing_until_it_is_accepted(lab: Lab):
    rewrite(lab, "seconds = 2.0", "seconds = 3000.0")
    lab.workspace.program.write_text("cheat\n")
    assert lab.config().budget.seconds == 2.0
    assert "cheat" not in read_program(lab).program
    session, is_new = lab.start_session("another", "tester")
    assert is_new
    assert lab.session_config(session).budget.seconds == 2.0
    for answer in (start_session(lab), status(lab)):
        said = " ".join(answer.warnings)
        assert "autoresearch.toml differs" in said
        assert "program.md differs" in said
        assert "accept-config" in said
    assert any("accept-config" in rule for rule in read_program(lab).rules)


def test_an_accepted_change_that_leaves_numbers_comparable_is_taken_over_by_the_session(lab: Lab, measured):
    before = measured(2.0)
    add(lab, "[stop]\nexperiments = 7\n")
    lab.workspace.program.write_text("a new plan\n")
    accepted = accept_rules(lab)
    assert accepted.changes == ["stop.experiments: 0 -> 7"]
    assert "+a new plan" in accepted.program_diff
    assert (accepted.session, accepted.opens_group) == (lab.session().tag, False)
    assert lab.session_config(lab.session()).stop.experiments == 7
    after = measured(1.9, change="8")
    assert before.program_sha256 != after.program_sha256
    assert lab.ledger.blob(after.program_sha256) == b"a new plan\n"
    assert "a new plan" in read_program(lab).program
    assert unaccepted_changes(lab) == []
    assert lab.ledger.verify() == []


def test_an_accepted_change_of_what_numbers_mean_opens_a_new_group_and_leaves_the_session_its_rules(lab: Lab, measured):
    measured(2.0)
    old = lab.session()
    rewrite(lab, "seconds = 2.0", "seconds = 3.0")
    accepted = accept_rules(lab)
    assert (accepted.session, accepted.opens_group) == (None, True)
    assert lab.session_config(lab.session()).budget.seconds == 2.0
    session, is_new = lab.start_session(None, "tester")
    assert is_new
    assert session.group != old.group
    assert lab.session_config(session).budget.seconds == 3.0
    again, is_new = lab.start_session(old.tag, "tester")  # the earlier one goes on under its own rules
    assert not is_new
    assert lab.session_config(again).budget.seconds == 2.0


def test_a_corpus_from_a_folder_is_another_group_once_it_is_prepared_and_accepted(lab: Lab, tmp_path: Path):
    old, text, words = lab.session(), tmp_path / "text", random.Random(5)
    text.mkdir()
    for number in range(60):
        lines = (" ".join(f"{words.getrandbits(40):x}" for _ in range(8)) for _ in range(260))
        (text / f"{number}.txt").write_text("\n".join(lines))
    rewrite(lab, 'name = "tiny"', 'name = "mine"')
    assert accept_rules(lab).opens_group
    with pytest.raises(NotReadyError, match="'mine' is not prepared"):
        lab.start_session(None, "tester")
    prepare_corpus("mine", source=FolderSource(text))
    session, is_new = lab.start_session(None, "tester")
    assert is_new
    assert session.group != old.group


def test_accepting_nothing_new_records_nothing(lab: Lab):
    before = lab.ledger.head()
    assert accept_rules(lab).is_empty
    assert lab.ledger.head() == before


def test_a_broken_file_is_not_accepted_and_the_session_goes_on(lab: Lab, measured):
    measured(2.0)
    before = lab.ledger.head()
    add(lab, "[budget]\n")
    with pytest.raises(ConfigError, match=r"autoresearch\.toml"):
        accept_rules(lab)
    assert lab.ledger.head() == before
    assert measured(1.9, change="8").val_bpb == 1.9
    assert "autoresearch.toml" in " ".join(status(lab).warnings)


def test_a_budget_from_the_command_line_survives_an_accepted_change(make_lab):
    folder = make_lab().root
    lab = Lab.open(folder, budget_seconds=5.0)
    session, _ = lab.start_session(None, "tester")
    add(lab, "[stop]\nhours = 8\n")
    assert accept_rules(lab).session == session.tag
    config = lab.session_config(lab.session())
    assert (config.budget.seconds, config.stop.hours) == (5.0, 8.0)
    lab.close()


def test_a_paused_lab_takes_no_experiment_and_starts_no_run(lab: Lab, measured):
    measured(2.0)
    lab.workspace.train.write_text(lab.workspace.train.read_text().replace("WIDTH = 16", "WIDTH = 8"))
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    queued, _ = experiments.propose(lab, description="queued before the pause", hypothesis="")
    os.close(hold)
    assert pause(lab, "the machine is needed")
    assert not pause(lab, "again")
    dispatch(lab)
    (run,) = lab.ledger.runs(queued.id)
    assert run.state is RunState.QUEUED
    lab.workspace.train.write_text(lab.workspace.train.read_text().replace("WIDTH = 8", "WIDTH = 4"))
    with pytest.raises(StoppedError, match="the machine is needed"):
        experiments.propose(lab, description="during the pause", hypothesis="")
    assert "Paused" in " ".join(status(lab).warnings)
    assert resume(lab)
    assert lab.paused() is None
    experiments.cancel(lab, queued.id)
    assert experiments.propose(lab, description="after the pause", hypothesis="")[1]
    experiments.cancel(lab, "e0003")


def test_the_same_bytes_of_a_queued_experiment_are_still_answered_while_paused(lab: Lab, measured):
    experiment = measured(2.0)
    assert experiment.decision == "kept"
    undecided = measured(1.9, change="8")
    pause(lab, "")
    again, is_new = experiments.propose(lab, description="the same once more", hypothesis="")
    assert (again.id, is_new) == (undecided.id, False)


def test_a_met_stop_rule_refuses_the_next_experiment_and_still_takes_decisions(lab: Lab, measured):
    add(lab, "[stop]\nexperiments = 2\n")
    accept_rules(lab)
    measured(2.0)
    last = measured(1.9, change="8")
    with pytest.raises(StoppedError, match="2 of 2 experiments"):
        measured(1.8, change="4")
    assert "stop rule" in " ".join(status(lab).warnings)
    assert experiments.keep(lab, last.id, "still allowed").experiment.decision == "kept"
    rewrite(lab, "experiments = 2", "experiments = 3")
    accept_rules(lab)
    assert measured(1.8, change="32").val_bpb == 1.8


def test_resume_forgives_crashes_in_a_row(lab: Lab, measured):
    add(lab, "[stop]\ncrashes_in_a_row = 2\n")
    accept_rules(lab)
    measured(2.0)
    for change in ("\na = 1\n", "\nb = 1\n"):
        measured(None, change=change, outcome=Outcome.CRASHED)
    with pytest.raises(StoppedError, match="2 experiments in a row"):
        measured(None, change="\nc = 1\n", outcome=Outcome.CRASHED)
    assert not resume(lab)  # it was not paused
    assert measured(1.9, change="8").val_bpb == 1.9


def test_the_rules_in_force_say_when_the_session_stops(lab: Lab):
    add(lab, "[stop]\ntarget = 1.5\nhours = 8\n")
    accept_rules(lab)
    said = " ".join(read_program(lab).rules)
    assert "val_bpb reaches 1.5, or 8 hours have passed" in said


def test_git_is_untouched_by_accepting(lab: Lab):
    state = subprocess.run(["git", "status", "--porcelain"], cwd=lab.root, capture_output=True, check=True).stdout
    lab.workspace.program.write_text("a new plan\n")
    accept_rules(lab)
    after = subprocess.run(["git", "status", "--porcelain"], cwd=lab.root, capture_output=True, check=True).stdout
    assert after == state + b" M program.md\n"
