"""Several researchers in one session: each has a train.py of its own, and no win erases another."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments, researchers
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import CandidateError, DecisionError, NotReadyError, UnknownNameError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Verdict
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.keep import keep as keep_tool

MakeLab = Callable[..., Lab]

TRAIN_PY = """\
# quick: val_bpb=2.0
from prepare import evaluate_bpb, make_dataloader

WIDTH = 16
# far enough apart
# that two changes
# do not touch
DEPTH = 2

make_dataloader(None, 1, 1, "train")
evaluate_bpb(None, None, 1)
"""


@pytest.fixture
def lab(make_quick_lab: MakeLab) -> Lab:
    """A lab in which `ann` works in the lab's own folder, with a baseline of 2.0."""
    lab = make_quick_lab(train=TRAIN_PY)
    lab.start_session("new", "ann")
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    assert wait(lab, baseline.id, 30.0).decision is Decision.KEPT
    return lab


def train_of(lab: Lab, name: str) -> Path:
    return researchers.folder_of(lab, researchers.find(lab, lab.session(), name)) / "trainer" / "train.py"


def try_it(lab: Lab, name: str, val_bpb: float, **constants: int) -> Experiment:
    """Let a researcher change constants and measure ``val_bpb``; returns the finished experiment."""
    file = train_of(lab, name)
    lines = file.read_text().splitlines()
    for index, line in enumerate(lines):
        if line.startswith("# quick:"):
            lines[index] = f"# quick: val_bpb={val_bpb}"
        for constant, value in constants.items():
            if line.startswith(f"{constant} ="):
                lines[index] = f"{constant} = {value}"
    file.write_text("\n".join(lines) + "\n")
    experiment, _ = experiments.propose(lab, description=f"try {constants}", hypothesis="", researcher=name)
    return wait(lab, experiment.id, 30.0)


def test_the_first_works_in_the_lab_folder_and_each_other_in_a_worktree_that_git_ignores(lab: Lab) -> None:
    lab.start_session(None, "Ben Ö.")
    lab.start_session(None, "cleo")
    there = {one.name: one.workspace for one in lab.ledger.researchers(lab.session().tag)}
    assert there == {"ann": "", "Ben Ö.": ".autoresearch/worktrees/ben", "cleo": ".autoresearch/worktrees/cleo"}
    assert train_of(lab, "cleo").read_bytes() == lab.champion_source(lab.session())
    assert (lab.root / there["cleo"] / "program.md").read_bytes() == lab.workspace.program.read_bytes()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=lab.root, capture_output=True, text=True, check=True)
    assert "autoresearch/" not in status.stdout


def test_a_researcher_that_comes_back_finds_its_train_py_as_it_left_it(lab: Lab) -> None:
    lab.start_session(None, "ben")
    train_of(lab, "ben").write_text("# half an idea\n")
    lab.start_session(None, "ben")
    with closing(Lab.open(lab.root, pinned=False)) as later:
        later.start_session(None, "ben")
        assert train_of(later, "ben").read_text() == "# half an idea\n"


def test_a_worktree_of_an_earlier_session_gets_the_champions_train_py_and_nothing_is_lost(lab: Lab) -> None:
    lab.start_session(None, "ben")
    train_of(lab, "ben").write_text("# half an idea\n")
    lab.start_session("new", "ann")
    lab.start_session(None, "ben")
    assert train_of(lab, "ben").read_bytes() == lab.champion_source(lab.session())
    (backup,) = lab.git.refs("refs/autoresearch/backup").values()
    assert lab.git.read_blob(backup) == b"# half an idea\n"


def test_a_server_started_in_a_worktree_serves_its_lab_for_that_researcher(lab: Lab) -> None:
    lab.start_session(None, "ben")
    with closing(Lab.open(lab.root / ".autoresearch" / "worktrees" / "ben" / "trainer", pinned=False)) as inside:
        assert (inside.root, inside.id) == (lab.root, lab.id)
        assert researchers.find(inside, inside.session()).name == "ben"


def test_with_several_on_one_server_a_call_must_say_for_whom_it_is(lab: Lab) -> None:
    lab.start_session(None, "ben")
    with pytest.raises(NotReadyError, match="researcher="):
        experiments.propose(lab, description="whose is it", hypothesis="")
    with pytest.raises(NotReadyError, match="ann, ben"):
        experiments.revert(lab, experiments.WORKSPACE, "")
    with pytest.raises(UnknownNameError, match=r"start_session\(researcher='eve'\)"):
        experiments.propose(lab, description="a stranger", hypothesis="", researcher="eve")


def test_after_a_restart_a_server_does_not_take_one_for_another(lab: Lab) -> None:
    lab.start_session(None, "ben")
    with closing(Lab.open(lab.root, pinned=False)) as later:
        with pytest.raises(NotReadyError, match="ann, ben"):
            experiments.propose(later, description="whose is it", hypothesis="")
        researchers.stand_in(later)  # as for a command in the lab's own folder
        assert researchers.find(later, later.session()).name == "ann"


def test_an_idle_lab_folder_goes_to_whoever_comes_next_and_a_busy_one_does_not(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()  # the tester begins, and its process lives
    with closing(Lab.open(lab.root, pinned=False)) as other:
        other.start_session(None, "ben")
        assert researchers.find(other, other.session()).workspace
    lab.presence.close()  # as when its process has ended
    with closing(Lab.open(lab.root, pinned=False)) as other:
        other.start_session(None, "cleo")
        assert researchers.find(other, other.session()).workspace == ""
        assert [one.name for one in other.ledger.researchers(other.session().tag)] == ["ben", "cleo"]
        assert other.ledger.verify() == []


def test_a_second_server_under_the_same_name_is_warned_that_they_share_a_file(lab: Lab) -> None:
    with closing(Lab.open(lab.root, pinned=False)) as other:
        other.start_session(None, "ann")
        (warning,) = researchers.shared_folder(other, researchers.find(other, other.session()))
        assert "a name of your own" in warning
    assert researchers.shared_folder(lab, researchers.find(lab, lab.session())) == []


def test_each_is_judged_against_the_champion_that_its_file_builds_on(lab: Lab) -> None:
    lab.start_session(None, "ben")
    won = try_it(lab, "ann", 1.5, WIDTH=32)
    experiments.keep(lab, won.id, "wider")
    late = try_it(lab, "ben", 1.6, DEPTH=3)
    assert (late.parent, late.verdict) == ("e0001", Verdict.IMPROVED)
    assert "stale win" in " ".join(describe(lab, late).warnings)
    experiments.revert(lab, experiments.WORKSPACE, "", "ben")
    assert try_it(lab, "ben", 1.4, DEPTH=4).parent == won.id


def test_a_stale_win_is_merged_onto_the_champion_and_run_first(lab: Lab) -> None:
    lab.start_session(None, "ben")
    late = try_it(lab, "ben", 1.5, DEPTH=3)
    won = try_it(lab, "ann", 1.5, WIDTH=32)
    experiments.keep(lab, won.id, "wider")
    answer = keep_tool(lab, late.id, "deeper")
    assert (answer.outcome, answer.experiment.merged_from) == ("stale_win", late.id)
    assert lab.session().champion == won.id
    merged = wait(lab, answer.experiment.id, 30.0)
    source = (lab.ledger.blob(merged.candidate_sha256) or b"").decode()
    assert "WIDTH = 32" in source
    assert "DEPTH = 3" in source
    assert (merged.parent, merged.researcher, merged.rebase_of) == (won.id, "ben", late.id)
    assert lab.ledger.experiment(late.id).note.startswith("a stale win")
    again = experiments.keep(lab, late.id, "deeper")
    assert again.merged is not None
    assert (again.merged.id, lab.ledger.count_experiments()) == (merged.id, 4)


def stale(lab: Lab, val_bpb: float, **constants: int) -> Experiment:
    """Return a win of ben's that builds on the champion before ann's, which changes WIDTH to 32."""
    lab.start_session(None, "ben")
    late = try_it(lab, "ben", val_bpb, **constants)
    won = try_it(lab, "ann", 1.5, WIDTH=32)
    experiments.keep(lab, won.id, "wider")
    return late


def test_a_merged_experiment_that_is_kept_brings_its_researcher_up_to_date(lab: Lab) -> None:
    late = stale(lab, 1.5, DEPTH=3)  # the same number, so that its line merges
    merged = experiments.keep(lab, late.id, "deeper").merged
    assert merged is not None
    merged = wait(lab, merged.id, 30.0)
    record_better(lab, merged)
    experiments.keep(lab, merged.id, "deeper and wider")
    assert lab.session().champion == merged.id
    assert train_of(lab, "ben").read_bytes() == lab.champion_source(lab.session())
    assert researchers.find(lab, lab.session(), "ben").base == merged.id
    assert "DEPTH" not in train_of(lab, "ann").read_text().split("DEPTH = 2")[0]  # hers is untouched
    assert researchers.find(lab, lab.session(), "ann").base != merged.id
    assert lab.git.ref(lab.session().branch) == merged.commit
    assert lab.ledger.verify() == []


def record_better(lab: Lab, experiment: Experiment) -> None:
    """Let the gate allow an experiment, whatever was measured."""
    event = {"id": experiment.id, "verdict": "improved", "reason": "as if", "val_bpb": 1.4, "standard_error": 0.0}
    lab.ledger.append("experiment_judged", {**event, "delta": -0.1, "z": 3.0, "confidence": 0.99, "keepable": True})


def test_changes_of_the_same_line_are_a_conflict_that_shows_both_and_changes_nothing(lab: Lab) -> None:
    late = stale(lab, 1.5, WIDTH=64)
    head = lab.ledger.head()
    answer = keep_tool(lab, late.id, "wider still")
    assert answer.outcome == "stale_conflict"
    assert "+WIDTH = 32" in answer.champion_diff
    assert "+WIDTH = 64" in answer.own_diff
    assert "+WIDTH = 64" in answer.text()
    assert lab.ledger.head() == head
    assert lab.ledger.experiment(late.id).decision is Decision.PENDING


def test_the_same_bytes_are_not_tried_by_two_at_once(lab: Lab) -> None:
    lab.start_session(None, "ben")
    late = try_it(lab, "ben", 1.4, WIDTH=32, DEPTH=3)
    train_of(lab, "ann").write_bytes(train_of(lab, "ben").read_bytes())
    with pytest.raises(CandidateError, match=f"ben has proposed these bytes as {late.id}"):
        experiments.propose(lab, description="the same", hypothesis="", researcher="ann")


def test_an_idea_is_merged_twice_at_most(lab: Lab) -> None:
    late = stale(lab, 1.5, DEPTH=3)
    for round_ in (1, 2):
        merged = experiments.keep(lab, late.id, "deeper").merged
        assert merged is not None
        record_better(lab, wait(lab, merged.id, 30.0))
        experiments.revert(lab, experiments.WORKSPACE, "", "ann")
        won = try_it(lab, "ann", 1.5, WIDTH=32 + round_)
        record_better(lab, won)
        experiments.keep(lab, won.id, "wider again")
        late = lab.ledger.experiment(merged.id)
    with pytest.raises(DecisionError, match="merged 2 times"):
        experiments.keep(lab, late.id, "deeper")


def test_a_deleted_worktree_is_made_again_with_the_file_that_its_researcher_builds_on(lab: Lab) -> None:
    lab.start_session(None, "ben")
    shutil.rmtree(lab.root / ".autoresearch")
    with pytest.raises(CandidateError, match="start_session"):
        experiments.propose(lab, description="nothing there", hypothesis="", researcher="ben")
    lab.start_session(None, "ben")
    assert train_of(lab, "ben").read_bytes() == lab.champion_source(lab.session())


def test_the_name_of_the_built_in_researcher_is_its_own_and_nobody_works_under_it_unawares(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    lab.workspace.train.write_text(TRAIN_PY)
    for forged in ("autopilot", " autopilot  (tpe, seed 1)"):
        with pytest.raises(NotReadyError, match="autoresearch research"):
            lab.start_session("new", forged)
    assert [session.researcher for session in lab.ledger.sessions()] == ["tester"]  # as the fixture began it
    with closing(Lab.open(lab.root, autopilot=True)) as built_in:
        session, _ = built_in.start_session("night", "autopilot (tpe, seed 1)")
        baseline = wait(built_in, experiments.propose(built_in, description="baseline", hypothesis="")[0].id, 20.0)
        assert baseline.researcher == "autopilot (tpe, seed 1)"
    with closing(Lab.open(lab.root)) as agent:
        for name in ("", "autopilot (tpe, seed 1)"):
            with pytest.raises(NotReadyError, match="start_session"):
                researchers.find(agent, session, name)
        agent.start_session("night")
        assert researchers.find(agent, session).name == researchers.DEFAULT_NAME
        with pytest.raises(NotReadyError, match="reports compare"):
            experiments.propose(agent, description="as another", hypothesis="", researcher="autopilot (tpe, seed 1)")
    with closing(Lab.open(lab.root)) as served:
        served.presence.serves_many = True
        with pytest.raises(NotReadyError, match="reports compare"):
            served.start_session("night", "autopilot")
