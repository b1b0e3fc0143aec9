"""What was deleted around a whole record comes back: refs, commits, files, and the lab of a deleted clone."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.errors import LedgerError, NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.repair import reopen, repair


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def refs(folder: Path) -> str:
    return git(folder, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch", "refs/heads/autoresearch")


@pytest.fixture
def researched(lab: Lab, measured) -> Lab:
    """A lab with a baseline, a kept and a reverted experiment."""
    measured(2.0)
    experiments.keep(lab, measured(1.9, change="8").id, "better")
    experiments.revert(lab, measured(2.1, change="4").id, "worse")
    return lab


def test_a_whole_lab_needs_nothing(researched: Lab):
    before = researched.ledger.head()
    assert repair(researched) == []
    assert researched.ledger.head() == before


def test_deleted_refs_and_branches_come_back_where_they_were(researched: Lab):
    before = refs(researched.root)
    for line in before.splitlines():
        git(researched.root, "update-ref", "-d", line.split()[0])
    done = repair(researched)
    assert refs(researched.root) == before
    assert len(done) == 4  # three experiments and the branch
    assert repair(researched) == []


def test_pruned_commits_are_made_again_with_the_same_names(researched: Lab):
    before = refs(researched.root)
    for line in before.splitlines():
        git(researched.root, "update-ref", "-d", line.split()[0])
    git(researched.root, "reflog", "expire", "--expire=now", "--all")
    git(researched.root, "gc", "--prune=now", "--quiet")
    assert not researched.git.object_exists(researched.ledger.experiment("e0003").commit)
    done = repair(researched)
    assert refs(researched.root) == before
    assert "with the same name" in " ".join(done)
    assert researched.ledger.verify() == []


def test_deleted_files_come_back_and_present_ones_are_left_alone(researched: Lab):
    researched.workspace.program.unlink()
    researched.workspace.train.unlink()
    done = repair(researched)
    assert researched.workspace.program.read_text() == researched.program()
    assert researched.train_file() == researched.champion_source(researched.session())
    assert sorted(done) == ["Wrote program.md again.", "Wrote trainer/train.py again."]
    researched.workspace.train.write_text("# mine\n")
    assert repair(researched) == []
    assert researched.workspace.train.read_text() == "# mine\n"


def test_a_lab_whose_folder_was_deleted_lives_on_in_a_new_clone(researched: Lab):
    root, lab_id, champion = researched.root, researched.id, researched.session().champion
    researched.close()
    shutil.rmtree(root)
    root.mkdir()
    git(root, "init", "--quiet")
    again = reopen(root, None)  # the one lab that lay there
    done = repair(again)
    assert again.id == lab_id
    assert again.session().champion == champion
    assert again.train_file() == again.champion_source(again.session())
    assert again.config().budget.seconds == 2.0
    for experiment in again.ledger.experiments():
        assert again.git.read_file(experiment.commit, "trainer/train.py") == again.ledger.blob(experiment.candidate_sha256)
    assert any("first commit was gone" in line for line in done)
    assert again.git.ref(again.session().branch) == again.ledger.experiment("e0002").commit
    assert again.ledger.verify() == []
    assert repair(again) == []
    again.close()


def test_a_lab_that_still_lives_is_not_taken_over(researched: Lab, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    with pytest.raises(NotReadyError, match="still lives in"):
        reopen(other, researched.id)
    with pytest.raises(NotReadyError, match="No lab 'nobody'"):
        reopen(other, "nobody")


def test_a_lab_with_sessions_does_not_become_another_one(researched: Lab, make_lab):
    other = make_lab(name="other")
    other.start_session(None, "tester")
    shutil.rmtree(researched.root / ".git")
    with pytest.raises(NotReadyError, match="sessions of its own"):
        reopen(other.root, researched.id)


def test_nothing_is_made_from_a_changed_record(researched: Lab):
    with sqlite3.connect(researched.state.ledger) as database:
        database.execute("UPDATE experiments SET val_bpb = 0.1 WHERE id = 'e0003'")
    database.close()
    git(researched.root, "update-ref", "-d", "refs/autoresearch/" + researched.session().tag + "/e0001")
    with pytest.raises(LedgerError, match="was changed"):
        repair(researched)


def test_a_branch_that_somebody_moved_is_told_and_not_moved_back(researched: Lab):
    head = git(researched.root, "rev-parse", "HEAD")
    elsewhere = git(researched.root, "commit-tree", "-p", head, "-m", "mine", f"{head}^{{tree}}")
    git(researched.root, "branch", "-f", f"autoresearch/{researched.session().tag}", elsewhere)
    assert "moved" in " ".join(repair(researched))
    assert git(researched.root, "rev-parse", f"autoresearch/{researched.session().tag}") == elsewhere


def test_a_deleted_harness_is_pinned_again(researched: Lab):
    shutil.rmtree(researched.state.harness)
    assert repair(researched) == ["Pinned the harness again."]
    assert (researched.state.harness / researched.harness()).is_dir()
