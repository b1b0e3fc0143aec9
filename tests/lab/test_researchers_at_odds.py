"""Several researchers, attacked: no file is taken for another's, no parent for another, and no answer leads nowhere."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments, researchers
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.errors import CandidateError, DecisionError, NotReadyError, StoppedError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules, pause, resume
from autoresearch_mcp.lab.states import Decision, Outcome, Verdict
from autoresearch_mcp.tools.describe import describe
from autoresearch_mcp.tools.keep import keep as keep_tool
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.run_experiment import run_experiment
from autoresearch_mcp.tools.start_session import start_session
from autoresearch_mcp.tools.status import status

TRAIN_PY = """\
from prepare import evaluate_bpb, make_dataloader

WIDTH = 16
# far enough apart
# that two changes
# do not touch
DEPTH = 2
# far enough apart
# that two changes
# do not touch
RATE = 1

make_dataloader(None, 1, 1, "train")
evaluate_bpb(None, None, 1)
"""


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A lab in which `ann` and `ben` work, with a baseline of 2.0; nothing is dispatched, results are recorded by hand."""
    lab = make_lab(train=TRAIN_PY)
    lab.start_session("new", "ann")
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    measure(lab, experiments.propose(lab, description="baseline", hypothesis="")[0], 2.0)
    lab.start_session(None, "ben")
    yield lab
    os.close(hold)


def train_of(lab: Lab, name: str) -> Path:
    return researchers.folder_of(lab, researchers.find(lab, lab.session(), name)) / "trainer" / "train.py"


def change(lab: Lab, name: str, **constants: int) -> None:
    file = train_of(lab, name)
    lines = file.read_text().splitlines()
    for index, line in enumerate(lines):
        for constant, value in constants.items():
            if line.startswith(f"{constant} ="):
                lines[index] = f"{constant} = {value}"
    file.write_text("\n".join(lines) + "\n")


def propose(lab: Lab, name: str, **constants: int) -> Experiment:
    change(lab, name, **constants)
    return experiments.propose(lab, description=f"try {constants}", hypothesis="", researcher=name)[0]


def measure(
    lab: Lab, experiment: Experiment, val_bpb: float | None, *, contended: str | None = None, outcome: Outcome = Outcome.SCORED
) -> Experiment:
    """Record a result for each run of an experiment until it is judged."""
    error = None if val_bpb is None else 0.0
    while lab.ledger.experiment(experiment.id).verdict is None:
        run = lab.ledger.runs(experiment.id)[-1]
        result = RunResult(outcome=outcome, reason="measured", val_bpb=val_bpb, standard_error=error, contended=contended)
        with lab.ledger.transaction():
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            judge_experiment(lab, experiment)
    return lab.ledger.experiment(experiment.id)


def try_it(lab: Lab, name: str, val_bpb: float, **constants: int) -> Experiment:
    return measure(lab, propose(lab, name, **constants), val_bpb)


def stale_win(lab: Lab, **constants: int) -> tuple[Experiment, Experiment]:
    """Return a win of ben's on the champion before ann's, and ann's."""
    late = try_it(lab, "ben", 1.8, **constants)
    won = try_it(lab, "ann", 1.7, WIDTH=32)
    experiments.keep(lab, won.id, "wider")
    return late, won


def merged_of(lab: Lab, late: Experiment) -> Experiment:
    merged = experiments.keep(lab, late.id, "deeper").merged
    assert merged is not None
    return merged


# -- judged against its own parent ------------------------------------------------------------------------------------------


def test_a_file_that_went_on_from_before_the_merge_is_not_said_to_build_on_it(lab: Lab) -> None:
    late, _ = stale_win(lab, DEPTH=3)
    merged = measure(lab, merged_of(lab, late), 1.5)
    change(lab, "ben", RATE=2)  # on top of his own bytes, which lack ann's WIDTH
    experiments.keep(lab, merged.id, "both")
    after = propose(lab, "ben")
    assert b"WIDTH = 16" in (lab.ledger.blob(after.candidate_sha256) or b"")
    assert after.parent == late.parent
    assert lab.ledger.verify() == []


def test_a_file_that_was_restored_before_its_experiment_was_kept_builds_on_what_was_restored(lab: Lab) -> None:
    won = try_it(lab, "ann", 1.7, WIDTH=32)
    experiments.revert(lab, experiments.WORKSPACE, "", "ann")
    change(lab, "ann", RATE=2)
    experiments.keep(lab, won.id, "wider")
    assert propose(lab, "ann").parent == won.parent


def test_reverting_an_experiment_of_another_session_leaves_this_sessions_file_alone(lab: Lab) -> None:
    old = try_it(lab, "ann", 2.5, WIDTH=8)
    lab.start_session("new", "ann")
    measure(lab, experiments.propose(lab, description="baseline", hypothesis="")[0], 2.5)
    change(lab, "ann", RATE=5)
    mine = train_of(lab, "ann").read_bytes()
    experiments.revert(lab, old.id, "too narrow")
    assert lab.ledger.experiment(old.id).decision is Decision.REVERTED
    assert train_of(lab, "ann").read_bytes() == mine


# -- nobody's file for another's --------------------------------------------------------------------------------------------


def test_after_a_restart_the_first_that_comes_is_not_taken_for_those_who_do_not_say_who_they_are(lab: Lab) -> None:
    change(lab, "ben", DEPTH=9)
    with closing(Lab.open(lab.root, pinned=False)) as later:
        later.presence.serves_many = True  # as over HTTP
        start_session(later, researcher="ben")
        with pytest.raises(NotReadyError, match="ann, ben"):
            experiments.propose(later, description="an idea of ann's", hypothesis="")
        with pytest.raises(NotReadyError, match="ann, ben"):
            experiments.revert(later, experiments.WORKSPACE, "")


def test_a_second_client_that_does_not_say_who_it_is_is_told_that_it_shares_a_file(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(train=TRAIN_PY)
    lab.presence.serves_many = True
    assert start_session(lab).warnings == []
    assert "a name of your own" in " ".join(start_session(lab).warnings)


def test_the_lab_folder_is_not_given_away_while_an_unrun_edit_lies_there(lab: Lab) -> None:
    change(lab, "ann", WIDTH=7)
    lab.presence.close()  # as when the server was started anew; ann goes on editing
    with closing(Lab.open(lab.root, pinned=False)) as later:
        later.start_session(None, "cleo")
        assert researchers.find(later, later.session(), "cleo").workspace
        assert "WIDTH = 7" in train_of(later, "ann").read_text()
        assert "WIDTH = 7" not in train_of(later, "cleo").read_text()


def test_a_process_in_a_worktree_does_not_propose_the_lab_folders_file_in_a_new_session(lab: Lab) -> None:
    folder = researchers.folder_of(lab, researchers.find(lab, lab.session(), "ben"))
    lab.start_session("new", "ann")
    with closing(Lab.open(folder, pinned=False)) as inside:
        with pytest.raises(NotReadyError, match="start_session"):
            experiments.propose(inside, description="whose is it", hypothesis="")
        inside.start_session(None)
        assert researchers.find(inside, inside.session()).name == "ben"


def test_a_folder_of_one_name_is_not_given_to_another_in_a_later_session(lab: Lab) -> None:
    lab.start_session("new", "ann")
    lab.start_session(None, "Ben")
    assert researchers.find(lab, lab.session(), "Ben").workspace != ".autoresearch/worktrees/ben"
    lab.start_session(None, "ben")
    assert researchers.find(lab, lab.session(), "ben").workspace == ".autoresearch/worktrees/ben"


@pytest.mark.parametrize("name", ["Ben", "BEN!", "..", "日本", "backup", "a/b", "x" * 64, "'; drop", "-", "ben ben"])
def test_every_name_gets_a_folder_of_its_own_below_the_worktrees(lab: Lab, name: str) -> None:
    before = {one.workspace for one in lab.ledger.researchers(lab.session().tag)}
    start_session(lab, researcher=name)
    who = researchers.find(lab, lab.session(), name)
    assert who.workspace not in before
    assert (lab.root / who.workspace).resolve().parent == lab.root / researchers.WORKTREES


def test_names_that_collide_on_purpose_do_not_share_a_folder(lab: Lab) -> None:
    lab.start_session(None, "Ben")
    taken = researchers.find(lab, lab.session(), "Ben").workspace
    lab.start_session("new", "ann")
    lab.start_session(None, Path(taken).name)  # takes the folder that `Ben` would get
    lab.start_session(None, "ben")
    lab.start_session(None, "Ben")
    folders = [one.workspace for one in lab.ledger.researchers(lab.session().tag)]
    assert len(set(folders)) == len(folders) == 4


def test_a_name_with_spaces_around_it_is_the_same_name(lab: Lab) -> None:
    start_session(lab, researcher=" ben\n")
    assert propose(lab, " ben ", DEPTH=3).researcher == "ben"


# -- nothing lost -----------------------------------------------------------------------------------------------------------


def test_a_revert_whose_worktree_was_deleted_makes_it_again(lab: Lab) -> None:
    late = try_it(lab, "ben", 2.5, DEPTH=1)
    shutil.rmtree(lab.root / ".autoresearch" / "worktrees" / "ben")
    experiments.revert(lab, late.id, "too shallow")
    assert train_of(lab, "ben").read_bytes() == lab.champion_source(lab.session())


def test_whoever_comes_to_a_new_session_is_told_where_its_unrun_edit_went(lab: Lab) -> None:
    change(lab, "ben", DEPTH=9)
    edit = train_of(lab, "ben").read_bytes()
    lab.start_session("new", "ann")
    told = " ".join(start_session(lab, researcher="ben").warnings)
    ((ref, blob),) = lab.git.refs("refs/autoresearch/backup").items()
    assert lab.git.read_blob(blob) == edit
    assert ref in told


def test_a_worktree_that_is_a_link_elsewhere_is_not_written_through(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "trainer").mkdir(parents=True)
    (outside / "trainer" / "train.py").write_text("precious\n")
    (lab.root / ".autoresearch" / "worktrees" / "eve").symlink_to(outside)
    with pytest.raises(Exception, match="link"):
        start_session(lab, researcher="eve")
    assert (outside / "trainer" / "train.py").read_text() == "precious\n"
    assert [one.name for one in lab.ledger.researchers(lab.session().tag)] == ["ann", "ben"]


# -- the next calls lead on -------------------------------------------------------------------------------------------------


def test_a_conflict_is_not_followed_by_the_same_keep(lab: Lab) -> None:
    late, _ = stale_win(lab, WIDTH=64)
    answer = keep_tool(lab, late.id, "wider")
    assert answer.outcome == "stale_conflict"
    assert not any(call.startswith("keep") for call in answer.next)
    assert start_session(lab, researcher="ben").next[0].startswith("revert(")  # also for who has forgotten that answer


def test_a_stale_win_of_a_session_that_met_its_stop_rule_is_not_asked_to_be_kept(lab: Lab) -> None:
    late, _ = stale_win(lab, DEPTH=3)
    lab.workspace.config.write_text(lab.workspace.config.read_text() + "[stop]\ntarget = 1.9\n")
    accept_rules(lab)
    with pytest.raises(StoppedError):
        experiments.keep(lab, late.id, "")
    calls = describe(lab, late).next
    assert not any(call.startswith("keep") for call in calls)
    assert calls[0] == "report()"
    assert "stop here" in calls[1]


def test_a_stale_win_that_cannot_be_merged_now_does_not_hide_what_can_be_decided(lab: Lab) -> None:
    stale_win(lab, DEPTH=3)
    worse = try_it(lab, "ben", 2.5, DEPTH=1)
    lab.workspace.config.write_text(lab.workspace.config.read_text() + "[stop]\ntarget = 1.9\n")
    accept_rules(lab)
    assert worse.id in start_session(lab, researcher="ben").next[0]


@pytest.mark.parametrize("how", [{"contended": "others used 90% of its device"}, {"outcome": Outcome.LOST}])
def test_a_merge_whose_run_was_no_answer_is_run_again(lab: Lab, how: dict[str, object]) -> None:
    late, won = stale_win(lab, DEPTH=3)
    merged = measure(lab, merged_of(lab, late), 1.5 if "contended" in how else None, **how)  # type: ignore[arg-type]
    assert not merged.keepable
    calls = describe(lab, merged).next
    assert calls[0].startswith(f"keep('{merged.id}'")
    again = experiments.keep(lab, merged.id, "").merged
    assert again is not None
    assert (again.parent, again.candidate_sha256) == (won.id, merged.candidate_sha256)
    assert lab.ledger.experiment(merged.id).decision is Decision.REVERTED
    assert measure(lab, again, 1.5).verdict is Verdict.IMPROVED
    assert experiments.keep(lab, again.id, "").merged is None
    assert lab.session().champion == again.id


def test_a_merge_that_is_never_an_answer_ends_with_a_revert(lab: Lab) -> None:
    late, _ = stale_win(lab, DEPTH=3)
    merged = measure(lab, merged_of(lab, late), None, outcome=Outcome.CANCELLED)
    assert [call[:4] for call in describe(lab, merged).next] == ["reve", "keep"]
    merged = measure(lab, merged_of(lab, merged), None, outcome=Outcome.CANCELLED)
    assert [call[:6] for call in describe(lab, merged).next] == ["revert"]
    with pytest.raises(DecisionError, match="revert"):
        experiments.keep(lab, merged.id, "")


def test_after_losing_context_one_of_several_is_asked_who_it_is_and_not_given_anothers_experiment(lab: Lab) -> None:
    try_it(lab, "ben", 1.8, DEPTH=3)
    with closing(Lab.open(lab.root, pinned=False)) as later:
        for answer in (read_program(later), status(later)):
            assert answer.next[0].startswith(f"start_session(tag='{lab.session().tag}', researcher=")
        assert "run_experiment" in start_session(later, researcher="ann").next[0]


def test_a_file_without_a_number_to_build_on_is_restored_first(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(train=TRAIN_PY)
    lab.start_session("new", "ann")
    lab.start_session(None, "ben")
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    with closing(os.fdopen(hold)):
        measure(lab, experiments.propose(lab, description="baseline", hypothesis="", researcher="ann")[0], None,
                outcome=Outcome.CRASHED)  # fmt: skip
        experiments.revert(lab, "e0001", "broken")
        measure(lab, propose(lab, "ann", WIDTH=8), 2.0)
        assert start_session(lab, researcher="ben").next[0].startswith("revert('workspace'")
        with pytest.raises(CandidateError, match="revert"):
            propose(lab, "ben", DEPTH=3)
        experiments.revert(lab, experiments.WORKSPACE, "", "ben")
        assert propose(lab, "ben", DEPTH=3).parent == "e0002"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("WALKS", "1"))))
def test_agents_that_only_follow_the_next_calls_and_the_advice_of_errors_are_never_stuck(lab: Lab, seed: int) -> None:
    """Whatever is measured, whoever restarts: a call that changes nothing is not asked for over and over."""
    dice = random.Random(seed)
    lab.start_session(None, "cleo")
    futile: Counter[tuple[str, str]] = Counter()
    for step in range(60):
        name = dice.choice(["ann", "ben", "cleo"])
        call = start_session(lab, researcher=name).next[0]
        head = lab.ledger.head()
        try:
            follow(lab, name, call, dice, step)
        except CandidateError as error:  # a change that was tried before: the next step makes another one
            if re.search(r"tried as|has proposed|unchanged", str(error)) is None:
                raise
        except DecisionError as error:
            if found := re.search(r'revert\("(\w+)"', str(error)):
                experiments.revert(lab, found[1], "as advised")
        futile[name, call] += head == lab.ledger.head()
        assert futile[name, call] < 6
        if dice.random() < 0.1:
            lab.presence.leave()  # as after a restart
    assert lab.ledger.verify() == []
    order = sorted(lab.ledger.experiments("decision = ?", Decision.KEPT), key=lambda one: one.decided_at or 0.0)
    assert [one.parent for one in order] == [None, *(one.id for one in order[:-1])]


def follow(lab: Lab, name: str, call: str, dice: random.Random, step: int) -> None:
    """Do what an answer says; what ends a wait is drawn."""
    if call.startswith(("edit", "run_experiment")):
        if call.startswith("edit"):
            change(lab, name, **{dice.choice(["WIDTH", "DEPTH", "RATE"]): 100 + step})
        run_experiment(lab, "an idea", researcher=name, wait_seconds=0.0)
        return
    found = re.match(r"(keep|revert|wait_experiment)\('(\w+)'", call)
    assert found is not None, call
    verb, target = found.groups()
    if verb == "revert":
        revert(lab, target, "as told", name)
    elif verb == "keep":
        answer = keep_tool(lab, target, "as told")
        if answer.outcome == "stale_conflict":
            assert answer.next[0].startswith("revert(")
            revert(lab, target, "as told")
    elif dice.random() < 0.15:
        outcome = dice.choice([Outcome.LOST, Outcome.CRASHED, Outcome.CANCELLED])
        measure(lab, lab.ledger.experiment(target), None, outcome=outcome)
    else:
        champion = lab.champion(lab.session())
        best = 2.0 if champion is None else champion.val_bpb or 2.0
        contended = "others used 90% of its device" if dice.random() < 0.2 else None
        measure(lab, lab.ledger.experiment(target), best + dice.choice([-0.1, -0.05, 0.1]), contended=contended)


def test_a_restore_that_began_before_a_keep_writes_what_the_record_says(lab: Lab) -> None:
    before = lab.session()
    won = try_it(lab, "ann", 1.7, WIDTH=32)
    experiments.keep(lab, won.id, "wider")
    change(lab, "ben", DEPTH=9)
    researchers.restore_train_file(lab, before, researchers.find(lab, before, "ben"), expected=None)
    assert researchers.find(lab, before, "ben").base == won.id
    assert train_of(lab, "ben").read_bytes() == lab.champion_source(lab.session())


def test_two_wins_kept_at_once_by_two_servers_are_one_champion_and_one_merge(lab: Lab) -> None:
    wins = [try_it(lab, "ann", 1.7, WIDTH=32), try_it(lab, "ben", 1.8, DEPTH=3)]
    together = threading.Barrier(2)

    def keep(experiment: Experiment) -> experiments.Kept:
        with closing(Lab.open(lab.root, pinned=False)) as server:
            together.wait(10.0)
            return experiments.keep(server, experiment.id, "a win")

    with ThreadPoolExecutor(2) as pool:
        merged = [kept.merged for kept in pool.map(keep, wins)]
    assert sorted(one is None for one in merged) == [False, True]
    assert lab.ledger.count_experiments("decision = ?", Decision.KEPT) == 2
    assert lab.session().version == 2
    assert lab.ledger.verify() == []


def test_a_merge_that_a_pause_meets_is_queued_and_goes_on_afterwards(lab: Lab) -> None:
    late, won = stale_win(lab, DEPTH=3)
    pause(lab, "the machine is needed")
    assert "end your turn" in start_session(lab, researcher="ben").next[1]
    with pytest.raises(StoppedError, match="resume"):
        experiments.keep(lab, late.id, "")
    resume(lab)
    merged = merged_of(lab, late)
    pause(lab, "again")
    assert "is queued and starts then" in start_session(lab, researcher="ben").next[0]
    assert measure(lab, merged, 1.5).parent == won.id  # it was running already
    assert experiments.keep(lab, merged.id, "").merged is None


def test_a_moved_lab_whose_worktrees_git_has_pruned_goes_on_with_every_file(lab: Lab, tmp_path: Path) -> None:
    change(lab, "ben", DEPTH=9)
    edit = train_of(lab, "ben").read_bytes()
    lab.root.rename(moved := tmp_path / "elsewhere")
    subprocess.run(["git", "worktree", "prune", "--expire=now"], cwd=moved, check=True)
    with closing(Lab.open(moved, pinned=False)) as later:
        start_session(later, researcher="ben")
        assert train_of(later, "ben").read_bytes() == edit
        status = subprocess.run(["git", "status", "--short"], cwd=train_of(later, "ben").parent, capture_output=True, text=True)
        assert (status.returncode, status.stdout.split()) == (0, ["M", "train.py"])


@pytest.mark.slow
def test_a_file_that_is_being_written_all_the_time_is_replaced_only_once_it_is_saved(lab: Lab) -> None:
    file, stop = train_of(lab, "ben"), threading.Event()
    file.write_text("# an idea\n")

    def write() -> None:
        while not stop.is_set():
            file.write_text("# an idea that is being written\n")

    backup = None
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write)
        try:
            _, backup = experiments.revert(lab, experiments.WORKSPACE, "", "ben")
        except DecisionError as error:
            assert "stays as it is" in str(error)  # noqa: PT017 - either is right: a busy machine may let it rest
        else:
            assert backup is not None
        finally:
            stop.set()
