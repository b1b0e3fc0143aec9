"""How people and agents have lost work with research loops, each done to a lab: everything is there afterwards."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.evidence import problems_in_git
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.repair import repair
from autoresearch_mcp.lab.states import Decision
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "GIT_AUTHOR_NAME": "u", "GIT_AUTHOR_EMAIL": "u@h", "GIT_COMMITTER_NAME": "u"}
    environment |= {"GIT_COMMITTER_EMAIL": "u@h", "HOME": str(folder)}
    run = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def refs(folder: Path) -> str:
    return git(folder, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch", "refs/heads/autoresearch")


@pytest.fixture
def undecided(lab: Lab, measured) -> Lab:
    """A lab with a champion, a better and a worse experiment that are undecided, and an idea in train.py that was never run."""
    measured(2.0)
    measured(1.9, change="8")
    measured(2.1, change="4")
    lab.workspace.train.write_text(lab.workspace.train.read_text() + "\nIDEA = 1\n")
    return lab


def assert_research_goes_on(lab: Lab) -> None:
    """Both decisions can be made, from the record alone, and nothing contradicts it afterwards."""
    experiments.keep(lab, "e0002", "better")
    assert lab.ledger.experiment("e0002").decision is Decision.KEPT
    assert experiments.revert(lab, "e0003", "worse")[0] is not None
    assert lab.train_file() == lab.champion_source(lab.session())
    assert b"WIDTH = 8" in lab.train_file()
    champion = lab.champion(lab.session())
    assert champion is not None
    assert lab.git.ref(lab.session().branch) == champion.commit
    assert history(lab).total == 3
    assert lab.ledger.verify() == []
    assert problems_in_git(lab) == []


@pytest.mark.parametrize(
    "commands",
    [
        [["clean", "-ffdx"]],
        [["reset", "--hard"]],
        [["reset", "--hard"], ["clean", "-ffdx"]],
        [["stash", "--include-untracked"]],
        [["checkout", "-f", "HEAD", "--", "."]],
        [["gc", "--prune=now", "--aggressive", "--quiet"], ["reflog", "expire", "--expire=now", "--all"]],
        [["rm", "-rf", "--quiet", "trainer"]],
    ],
    ids=lambda commands: " and ".join(" ".join(command[:2]) for command in commands),
)
def test_git_commands_that_throw_work_away_lose_no_experiment(undecided: Lab, commands: list[list[str]]) -> None:
    before, head = refs(undecided.root), undecided.ledger.head()
    for command in commands:
        git(undecided.root, *command)
    assert (refs(undecided.root), undecided.ledger.head()) == (before, head)
    status(undecided)
    assert_research_goes_on(undecided)


def test_deleted_refs_of_every_kind_come_back(undecided: Lab) -> None:
    undecided.align_branch(undecided.session())
    before = refs(undecided.root)
    git(undecided.root, "pack-refs", "--all")
    (undecided.root / ".git" / "packed-refs").unlink()
    shutil.rmtree(undecided.root / ".git" / "refs" / "autoresearch", ignore_errors=True)
    assert refs(undecided.root) == ""
    assert repair(undecided)
    assert refs(undecided.root) == before
    assert_research_goes_on(undecided)


def test_deleted_run_folders_cost_logs_and_curves_and_nothing_else(undecided: Lab) -> None:
    shutil.rmtree(undecided.state.runs)
    for part in ("summary", "diff", "log", "curve"):
        assert show_experiment(undecided, "e0002", part).id == "e0002"  # type: ignore[arg-type]
    with closing(Lab.open(undecided.root, pinned=False)) as again:
        assert status(again).champion is not None
    assert_research_goes_on(undecided)


@pytest.mark.parametrize("attack", ["deleted", "a folder", "a link", "empty"])
def test_a_train_py_that_went_away_comes_back_with_a_decision(undecided: Lab, tmp_path: Path, attack: str) -> None:
    train, elsewhere = undecided.workspace.train, tmp_path / "elsewhere.py"
    elsewhere.write_text("mine\n")
    train.unlink()
    if attack == "a folder":
        train.mkdir()
        with pytest.raises(Exception, match=r"train\.py"):
            experiments.revert(undecided, "e0003", "worse")
        train.rmdir()
    elif attack == "a link":
        train.symlink_to(elsewhere)
    elif attack == "empty":
        train.write_bytes(b"")
    assert_research_goes_on(undecided)
    assert elsewhere.read_text() == "mine\n"


def test_events_cut_from_the_end_of_the_record_are_known_from_the_commits(undecided: Lab) -> None:
    assert problems_in_git(undecided) == []
    (last,) = (e for e in undecided.ledger.events_of("experiment_recorded") if e.body["id"] == "e0003")
    with closing(sqlite3.connect(undecided.state.ledger, isolation_level=None)) as db:
        number = db.execute("SELECT number FROM events WHERE previous = ?", (last.previous,)).fetchone()[0]
        db.execute("DELETE FROM events WHERE number >= ?", (number,))
        assert "were removed" in undecided.ledger.verify()[0]
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (number - 1,))
        for table, column in (("experiments", "id"), ("runs", "experiment")):
            db.execute(f"DELETE FROM {table} WHERE {column} = 'e0003'")
        db.execute("UPDATE researchers SET holds = 'e0002'")
    assert undecided.ledger.verify() == [], "the chain alone cannot show it"
    (problem,) = problems_in_git(undecided)
    assert "e0003" in problem
    assert last.previous[:12] in problem


def test_an_experiment_put_in_the_place_of_one_that_was_cut_off_is_named(undecided: Lab, measured) -> None:
    (last,) = (e for e in undecided.ledger.events_of("experiment_recorded") if e.body["id"] == "e0003")
    with closing(sqlite3.connect(undecided.state.ledger, isolation_level=None)) as db:
        number = db.execute("SELECT number FROM events WHERE previous = ?", (last.previous,)).fetchone()[0]
        db.execute("DELETE FROM events WHERE number >= ?", (number,))
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (number - 1,))
        for table, column in (("experiments", "id"), ("runs", "experiment")):
            db.execute(f"DELETE FROM {table} WHERE {column} = 'e0003'")
    undecided.ledger.append("lab_paused", {"reason": ""})
    undecided.ledger.append("lab_resumed", {})
    measured(1.1, change="64")
    assert undecided.ledger.verify() == []
    (problem,) = problems_in_git(undecided)
    assert "e0003" in problem
    assert "one of the two was replaced" in problem


def test_a_clock_that_was_set_back_changes_no_order_and_no_decision(
    undecided: Lab, measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 86_400.0 * 365)
    newest = measured(1.8, change="16")
    assert newest.id == "e0004"
    assert [experiment.id for experiment in history(undecided).experiments] == ["e0004", "e0003", "e0002", "e0001"]
    second, is_new = undecided.start_session("later", "tester")
    assert is_new
    newest_session = undecided.ledger.newest_session()
    assert newest_session is not None
    assert newest_session.tag == second.tag
    assert undecided.ledger.verify() == []
