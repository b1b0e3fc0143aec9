"""A branch for review: what is on it, what its messages say, that it is made once and the same, and what it leaves alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.errors import DecisionError, GitError, LedgerError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.finalize import ReviewBranch, finalize
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome, Purpose

Measured = Callable[..., Experiment]


@pytest.fixture
def session(still: Lab) -> Lab:
    """A lab whose session has kept two changes, with a failure and a discarded idea between them."""
    record(still, 2.0, description="baseline")
    keep(still, record(still, 1.9, width=32, description="wider", hypothesis="more capacity"), "a clear gain")
    revert(still, record(still, None, width=99))
    revert(still, record(still, 2.5, width=5))
    keep(still, record(still, 1.8, width=64, description="wider still"), "and again")
    return still


def record(
    lab: Lab, val_bpb: float | None, *, width: int | None = None, description: str = "an idea", hypothesis: str = ""
) -> Experiment:
    source = lab.workspace.train.read_text()
    if width is not None:
        before = next(line for line in source.splitlines() if line.startswith("WIDTH = "))
        lab.workspace.train.write_text(source.replace(before, f"WIDTH = {width}"))
    experiment, _ = experiments.propose(lab, description=description, hypothesis=hypothesis)
    finish(lab, experiment, val_bpb)
    return lab.ledger.experiment(experiment.id)


def finish(lab: Lab, experiment: Experiment, val_bpb: float | None) -> None:
    (run,) = [run for run in lab.ledger.runs(experiment.id) if run.result is None]
    outcome = Outcome.CRASHED if val_bpb is None else Outcome.SCORED
    result = RunResult(outcome=outcome, reason="measured", val_bpb=val_bpb, standard_error=None if val_bpb is None else 0.001)
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
        judge_experiment(lab, experiment)


def keep(lab: Lab, experiment: Experiment, reason: str) -> None:
    experiments.keep(lab, experiment.id, reason)


def revert(lab: Lab, experiment: Experiment) -> None:
    experiments.revert(lab, experiment.id, "no")


def git(lab: Lab, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(lab.root), *arguments], capture_output=True, text=True, check=True).stdout.strip()


def made(lab: Lab, name: str = "") -> ReviewBranch:
    return finalize(lab, lab.session(), name)


def trailers(lab: Lab, commit: str) -> dict[str, str]:
    text = git(lab, "log", "-1", "--format=%(trailers:only,unfold)", commit)
    return dict(line.removeprefix("Autoresearch-").split(": ", 1) for line in text.splitlines())


def test_a_branch_has_one_commit_for_each_kept_change_in_order_on_the_first_commit(session: Lab) -> None:
    branch = made(session)
    tag = session.session().tag
    assert (branch.name, branch.is_new) == (f"autoresearch/{tag}-final", True)
    commits = git(session, "rev-list", "--reverse", f"{branch.base_commit}..{branch.name}").split()
    assert commits == [each.commit for each in branch.commits]
    assert [each.experiment.id for each in branch.commits] == ["e0002", "e0005"]
    assert branch.base_commit == session.session().base_commit
    for commit in commits:
        assert git(session, "diff-tree", "--no-commit-id", "--name-only", "-r", commit) == "trainer/train.py"
    champion = session.champion_source(session.session()).decode()
    assert git(session, "show", f"{branch.name}:trainer/train.py") == champion.strip()


def test_a_message_says_what_was_thought_and_measured_and_ends_with_trailers(session: Lab) -> None:
    commit = made(session).commits[0].commit
    subject, *paragraphs = git(session, "log", "-1", "--format=%B", commit).split("\n\n")
    assert subject == "e0002: wider"
    assert paragraphs[0] == "Hypothesis: more capacity"
    assert paragraphs[1].startswith("Measured: val_bpb 1.9000 is 0.1000 better than the parent's 2.0000")
    assert paragraphs[2] == "Kept because: a clear gain"
    found = trailers(session, commit)
    kept = next(event for event in session.ledger.events_of("experiment_kept") if event.body["id"] == "e0002")
    assert found == {
        "Experiment": "e0002",
        "Session": session.session().tag,
        "Researcher": "tester",
        "Parent": "e0001",
        "Val-Bpb-Before": "2.000000",
        "Val-Bpb": "1.900000",
        "Standard-Error": "0.028320",
        "Z": "3.531",
        "Runs": "1 (0 with fresh seeds)",
        "Verdict": "improved",
        "Candidate": session.ledger.experiment("e0002").candidate_sha256,
        "Ledger": kept.previous,
    }
    assert int(git(session, "log", "-1", "--format=%ct", commit)) == int(kept.at)


def test_confirmed_changes_say_how_many_fresh_seeds_they_rest_on(make_lab: Callable[..., Lab]) -> None:
    from autoresearch_mcp.lab.locks import try_lock

    lab = make_lab(gate="confirmed")
    lab.start_session(None, "tester")
    assert try_lock(lab.state.dispatch_lock) is not None
    record(lab, 2.0, description="baseline")
    experiment = record(lab, 1.7, width=32)
    for val_bpb in (1.8, 1.82):
        run = next(run for run in lab.ledger.runs(experiment.id) if run.result is None)
        assert run.purpose is Purpose.CONFIRM
        result = RunResult(outcome=Outcome.SCORED, reason="measured", val_bpb=val_bpb, standard_error=0.001)
        with lab.ledger.transaction():
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            judge_experiment(lab, experiment)
    keep(lab, lab.ledger.experiment(experiment.id), "confirmed")
    found = trailers(lab, made(lab).commits[0].commit)
    assert (found["Runs"], found["Val-Bpb"]) == ("2 (2 with fresh seeds)", "1.810000")


def test_the_same_record_gives_the_same_commits_and_a_second_call_finds_them(session: Lab) -> None:
    first = made(session)
    again = made(session)
    assert (again.is_new, again.commits) == (False, first.commits)
    assert made(session, "another").commits == first.commits


def test_what_is_measured_after_it_was_kept_changes_no_commit(session: Lab) -> None:
    first = made(session)
    session.ledger.append("experiment_measured_again", {"id": "e0005", "val_bpb": 1.85, "standard_error": 0.002})
    assert session.ledger.experiment("e0005").val_bpb == 1.85
    assert [each.commit for each in made(session).commits] == [each.commit for each in first.commits]


def test_nothing_that_is_checked_out_moves(session: Lab) -> None:
    session.workspace.train.write_text("# an edit of the human\n")
    (session.root / "notes.txt").write_text("mine")

    def state() -> list[str]:
        index = (session.root / ".git" / "index").read_bytes().hex()
        others = [line for line in git(session, "for-each-ref").splitlines() if "-final" not in line]
        return [
            git(session, "--no-optional-locks", "status", "--porcelain"),
            git(session, "symbolic-ref", "HEAD"),
            index,
            *others,
        ]

    before = state()
    made(session)
    assert state() == before


def test_a_branch_that_holds_something_else_is_left_alone(session: Lab) -> None:
    branch = f"autoresearch/{session.session().tag}-final"
    git(session, "branch", branch, session.session().base_commit)
    with pytest.raises(GitError, match=f"other commits than the record gives.*git branch -D {branch}"):
        made(session)
    assert git(session, "rev-parse", branch) == session.session().base_commit


def test_a_branch_from_before_the_last_change_says_that_it_is(session: Lab) -> None:
    made(session)
    keep(session, record(session, 1.7, width=128), "more")
    with pytest.raises(GitError, match="holds the first 2 of these 3 changes"):
        made(session)
    assert len(made(session, "newer").commits) == 3


@pytest.mark.parametrize("name", ["../../heads/main", "-x", "UPPER", "a b", "refs/heads/main", "x.lock", ""])
def test_only_a_branch_of_ours_is_made(session: Lab, name: str) -> None:
    before = git(session, "for-each-ref")
    if name:
        with pytest.raises(GitError, match="--branch NAME"):
            made(session, name)
        assert git(session, "for-each-ref") == before
    with pytest.raises(GitError, match="is the branch of the session"):
        made(session, session.session().tag)
    assert made(session, "autoresearch/review").name == "autoresearch/review"


def test_without_a_kept_change_there_is_nothing_to_review(still: Lab) -> None:
    with pytest.raises(DecisionError, match="nothing to review"):
        made(still)
    record(still, 2.0, description="baseline")
    with pytest.raises(DecisionError, match="nothing to review"):
        made(still)


def test_a_repaired_baseline_is_a_change_too(still: Lab) -> None:
    revert(still, record(still, None, description="baseline"))
    record(still, 2.0, width=8, description="repaired")
    (commit,) = made(still).commits
    assert "Val-Bpb-Before" not in trailers(still, commit.commit)
    assert trailers(still, commit.commit)["Val-Bpb"] == "2.000000"


def test_a_merged_stale_win_is_a_commit_that_names_what_it_carries(still: Lab) -> None:
    record(still, 2.0, description="baseline")
    source = still.workspace.train.read_text()
    stale = record(still, 1.9, width=32, description="wider")
    still.workspace.train.write_text(source.replace("seconds_left() > 0.3", "seconds_left() > 0.4"))
    keep(still, record(still, 1.95, description="slower"), "first")
    merged = experiments.keep(still, stale.id, "second").merged
    assert merged is not None
    finish(still, merged, 1.85)
    keep(still, still.ledger.experiment(merged.id), "both")
    branch = made(still)
    assert [each.experiment.id for each in branch.commits] == ["e0003", merged.id]
    assert trailers(still, branch.commits[1].commit)["Merged-From"] == stale.id


def test_what_a_researcher_wrote_cannot_pose_as_a_trailer_or_leave_its_paragraph(still: Lab) -> None:
    record(still, 2.0, description="baseline")
    forged = "x\n\nAutoresearch-Ledger: forged\nAutoresearch-Val-Bpb: 0.1\x1b[2J\u202e"
    keep(still, record(still, 1.5, width=32, description=forged, hypothesis=forged * 3), forged)
    commit = made(still).commits[0].commit
    assert trailers(still, commit)["Val-Bpb"] == "1.500000"
    message = git(still, "log", "-1", "--format=%B", commit)
    assert [line for line in message.splitlines() if line.startswith("Autoresearch-Ledger")] == [
        f"Autoresearch-Ledger: {trailers(still, commit)['Ledger']}"
    ]
    assert "\x1b" not in message
    assert "\u202e" not in message


def test_a_first_commit_that_is_gone_is_repaired_first(session: Lab, tmp_path: Path) -> None:
    base = session.session().base_commit
    (session.root / ".git" / "objects" / base[:2] / base[2:]).rename(tmp_path / "gone")
    with pytest.raises(GitError, match="autoresearch repair"):
        made(session)


def test_a_stored_file_that_somebody_changed_makes_no_branch(session: Lab) -> None:
    sha256 = session.ledger.experiment("e0002").candidate_sha256
    session.ledger._db.execute("UPDATE blobs SET data = ? WHERE sha256 = ?", (b"# changed\n", sha256))
    with pytest.raises(LedgerError, match="autoresearch verify"):
        made(session)
