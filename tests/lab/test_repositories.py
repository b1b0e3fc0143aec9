"""Research in the repositories that people have: each is left as it was, or refused with the next step.

The labs are real, with a runner that trains nothing; the user is the real git in a clean environment.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment, wait
from autoresearch_mcp.lab.errors import DecisionError, GitError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.git import GitRepository
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.paths import TRAIN_FILE
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision, Outcome, Verdict

from .users import WORKTREE, names_in, private_state, user_git

MakeLab = Callable[..., Lab]


def measure(lab: Lab, *edit: str) -> Experiment:
    """Run what lies in the workspace, after replacing ``edit[0]`` by ``edit[1]`` in it, and return the finished experiment."""
    if edit:
        change(lab.workspace.train, *edit)
    experiment, _ = experiments.propose(lab, description="an idea", hypothesis="")
    return wait(lab, experiment.id, 30.0)


def record(lab: Lab, *edit: str) -> Experiment:
    """Like `measure`, with the result recorded by hand: what happens to git is the same, and no process is started."""
    if edit:
        change(lab.workspace.train, *edit)
    val_bpb = float(lab.workspace.train.read_bytes().partition(b"val_bpb=")[2][:3])
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    try:
        experiment, _ = experiments.propose(lab, description="an idea", hypothesis="")
        (run,) = lab.ledger.runs(experiment.id)
        result = RunResult(outcome=Outcome.SCORED, reason="recorded", val_bpb=val_bpb, standard_error=0.0)
        with lab.ledger.transaction():
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            judge_experiment(lab, experiment)
    finally:
        os.close(hold)
    lab.align_branch(lab.session())
    return lab.ledger.experiment(experiment.id)


def change(path: Path, old: str, new: str) -> None:
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def research(lab: Lab) -> Experiment:
    """A session with one kept and one reverted idea, beside work of the user's that must not change; returns the champion."""
    root = lab.root
    for name in ("staged.txt", "untracked.txt", "dirty.txt"):
        (root / name).write_text(f"{name}\r\n")
    user_git(root, "add", "staged.txt", "dirty.txt")
    (root / "dirty.txt").write_text("edited since\n")
    before = private_state(root, but=TRAIN_FILE), user_git(root, "status", "--porcelain"), heads(root)
    baseline = record(lab)
    assert baseline.decision is Decision.KEPT, baseline.reason
    better = record(lab, "val_bpb=2.0", "val_bpb=1.5")
    experiments.keep(lab, better.id, "it is better")
    source = lab.workspace.train.read_bytes()
    worse = record(lab, "val_bpb=1.5", "val_bpb=3.0")
    assert worse.verdict is Verdict.WORSE
    _, backup = experiments.revert(lab, worse.id, "it is worse")
    assert (lab.workspace.train.read_bytes(), backup) == (source, None)
    assert lab.git.read_file(better.commit, TRAIN_FILE) == source
    assert user_git(root, "rev-parse", lab.session().branch) == better.commit
    assert user_git(root, "diff-tree", "-r", "--name-only", baseline.commit, better.commit) == TRAIN_FILE
    # train.py itself is the only line of the status that may differ: the user sees which one lies there.
    after = private_state(root, but=TRAIN_FILE), user_git(root, "status", "--porcelain"), heads(root)
    assert (after[0], others(after[1]), after[2]) == (before[0], others(before[1]), before[2])
    assert lab.ledger.verify() == []
    return lab.ledger.experiment(better.id)


def heads(root: Path) -> tuple[str, str]:
    """Where HEAD is, and every branch and tag that is the user's."""
    branches = user_git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").splitlines()
    return lab_head(root), "\n".join(line for line in branches if not line.startswith("refs/heads/autoresearch/"))


def lab_head(root: Path) -> str:
    return (Path(user_git(root, "rev-parse", "--absolute-git-dir")) / "HEAD").read_text()


def others(status: str) -> list[str]:
    return [line for line in status.splitlines() if not line.endswith(TRAIN_FILE)]


def begin(root: Path, *options: str) -> Path:
    """Make a repository of the user's with a commit, without any file of a lab."""
    root.mkdir()
    user_git(root, "init", "-q", "-b", "main", *options)
    (root / "README").write_text("mine\n")
    (root / "data").mkdir()
    (root / "data" / "run.sh").write_text("#!/bin/sh\n")
    (root / "data" / "run.sh").chmod(0o755)
    (root / "latest").symlink_to("data")
    user_git(root, "add", ".")
    user_git(root, "commit", "-q", "-m", "mine")
    return root


def linked_worktree(folder: Path) -> None:
    user_git(begin(folder.parent / "main"), "worktree", "add", "-q", "-b", "side", str(folder))


def submodules_and_links(folder: Path) -> None:
    begin(folder.parent / "inner")
    begin(folder)
    user_git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../inner", "modules/inner")
    user_git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},modules/absent")
    (folder / "outside").symlink_to("/nonexistent")
    user_git(folder, "add", "outside")
    user_git(folder, "commit", "-q", "-m", "a submodule")


def submodule_of_another(folder: Path) -> None:
    begin(folder.parent / "inner")
    around = begin(folder.parent / "around")
    user_git(around, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../inner", "lab")
    folder.symlink_to(around / "lab")


def detached(folder: Path) -> None:
    user_git(begin(folder), "checkout", "-q", "--detach")


def unborn(folder: Path) -> None:
    user_git(begin(folder), "checkout", "-q", "--orphan", "fresh")


def stale_lock(folder: Path) -> None:
    begin(folder)


def shallow(folder: Path) -> None:
    origin = begin(folder.parent / "origin")
    user_git(origin, "commit", "-q", "--allow-empty", "-m", "second")
    user_git(folder.parent, "clone", "-q", "--depth=1", f"file://{origin}", str(folder))


def partial(folder: Path) -> None:
    origin = begin(folder.parent / "origin")
    (origin / "README").write_text("newer\n")
    user_git(origin, "commit", "-q", "-am", "second")
    user_git(origin, "config", "uploadpack.allowFilter", "true")
    user_git(folder.parent, "clone", "-q", "--filter=blob:none", f"file://{origin}", str(folder))


def git_file(folder: Path) -> None:
    begin(folder, f"--separate-git-dir={folder.parent / 'elsewhere.git'}")


def sha256_names(folder: Path) -> None:
    begin(folder, "--object-format=sha256")


def sparse(folder: Path) -> None:
    user_git(begin(folder), "sparse-checkout", "set", "trainer")


def line_endings(folder: Path) -> None:
    user_git(begin(folder), "config", "core.autocrlf", "true")


SITUATIONS = (
    linked_worktree,
    submodules_and_links,
    submodule_of_another,
    detached,
    unborn,
    shallow,
    partial,
    git_file,
    sha256_names,
    sparse,
    line_endings,
)


@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
def test_research_leaves_everything_of_the_users_as_it_was(
    make_quick_lab: MakeLab, tmp_path: Path, situation: Callable[[Path], None]
) -> None:
    situation(tmp_path / "lab")
    lab = make_quick_lab()
    champion = research(lab)
    worktree = lab.root / WORKTREE
    lab.git.add_worktree(worktree, champion.commit)
    assert (worktree / TRAIN_FILE).read_bytes() == lab.workspace.train.read_bytes()
    assert user_git(worktree, "status", "--porcelain") == ""
    assert GitRepository.discover(worktree).common_dir == lab.git.common_dir


def test_windows_line_endings_are_exact_in_git_in_the_run_and_after_revert(make_quick_lab: MakeLab, tmp_path: Path) -> None:
    line_endings(tmp_path / "lab")
    (tmp_path / "lab" / ".gitattributes").write_text("*.py text eol=crlf\n")
    lab = make_quick_lab(
        train="# quick: val_bpb=2.0\r\nfrom prepare import evaluate_bpb, make_dataloader\r\n"
        'make_dataloader(None, 1, 1, "train")\r\nevaluate_bpb(None, None, 1)\r\n',
    )
    source = lab.workspace.train.read_bytes()
    assert source.count(b"\r\n") == 4
    baseline = measure(lab)
    assert lab.git.read_file(baseline.commit, TRAIN_FILE) == source
    assert user_git(lab.root, "cat-file", "-s", f"{baseline.commit}:{TRAIN_FILE}") == str(len(source))
    assert lab.ledger.blob(baseline.candidate_sha256) == source
    worse = measure(lab, "val_bpb=2.0", "val_bpb=3.0")
    experiments.revert(lab, worse.id, "worse")
    assert lab.workspace.train.read_bytes() == source


def test_a_stale_lock_of_the_index_changes_nothing(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    (lab.root / ".git" / "index.lock").touch()
    baseline = record(lab)
    assert user_git(lab.root, "rev-parse", lab.session().branch) == baseline.commit
    lab.git.add_worktree(lab.root / WORKTREE, baseline.commit)
    assert (lab.root / ".git" / "index.lock").exists()


def test_a_moved_branch_stops_keep_until_the_named_command_has_moved_it_back(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    record(lab)
    better = record(lab, "val_bpb=2.0", "val_bpb=1.5")
    elsewhere = user_git(lab.root, "commit-tree", "-m", "mine", "HEAD^{tree}")
    user_git(lab.root, "update-ref", lab.session().branch, elsewhere)
    with pytest.raises(DecisionError, match=rf"moved to {elsewhere} by somebody else") as refused:
        experiments.keep(lab, better.id, "it is better")
    assert user_git(lab.root, "rev-parse", lab.session().branch) == elsewhere
    assert lab.ledger.experiment(better.id).decision is Decision.PENDING
    named = re.search(r"\(git (branch -f [^)]*)\)", str(refused.value))
    assert named is not None
    user_git(lab.root, *shlex.split(named[1]))
    experiments.keep(lab, better.id, "it is better")
    assert user_git(lab.root, "rev-parse", lab.session().branch) == better.commit


def test_a_deleted_branch_comes_back(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    record(lab)
    better = record(lab, "val_bpb=2.0", "val_bpb=1.5")
    user_git(lab.root, "branch", "-D", f"autoresearch/{lab.session().tag}")
    experiments.keep(lab, better.id, "it is better")
    assert user_git(lab.root, "rev-parse", lab.session().branch) == better.commit


def test_a_branch_that_the_user_has_already_is_not_taken_for_a_session(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    user_git(lab.root, "branch", "autoresearch/mine")
    with pytest.raises(GitError, match=r"autoresearch/mine exists already. Call start_session with another tag"):
        lab.start_session("mine", "tester")


def test_with_head_on_the_sessions_branch_head_and_index_stay_and_nothing_is_lost(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    record(lab)
    user_git(lab.root, "checkout", "-q", f"autoresearch/{lab.session().tag}")
    before = private_state(lab.root, but=TRAIN_FILE)
    better = record(lab, "val_bpb=2.0", "val_bpb=1.5")
    experiments.keep(lab, better.id, "it is better")
    assert private_state(lab.root, but=TRAIN_FILE) == before
    assert lab.git.head_branch() == lab.session().branch
    assert user_git(lab.root, "rev-parse", "HEAD") == better.commit
    # The index lags behind: a commit of the user's now is a move by somebody else, and is told.
    user_git(lab.root, "commit", "-q", "-m", "by accident")
    worse = record(lab, "val_bpb=1.5", "val_bpb=1.4")
    with pytest.raises(DecisionError, match="Move it back"):
        experiments.keep(lab, worse.id, "it is better")


def test_a_partial_clone_that_lacks_a_file_is_refused_with_the_command_that_fetches_it(
    make_quick_lab: MakeLab, tmp_path: Path
) -> None:
    partial(tmp_path / "lab")
    lab = make_quick_lab()
    old = user_git(lab.root, "rev-parse", "HEAD~")
    with pytest.raises(GitError, match="fetch --refetch --no-filter"):
        lab.git.read_file(old, "README")
    with pytest.raises(GitError, match="fetch --refetch --no-filter"):
        lab.git.add_worktree(lab.root / WORKTREE, old)
    user_git(lab.root, "fetch", "-q", "--refetch", "--no-filter")
    lab.git.add_worktree(lab.root / WORKTREE, old)
    assert (lab.root / WORKTREE / "README").read_text() == "mine\n"


def test_a_linter_that_rewrites_train_py_after_the_snapshot_changes_nothing(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    champion = lab.workspace.train.read_bytes()
    measure(lab)
    change(lab.workspace.train, "val_bpb=2.0", "val_bpb=3.0")
    snapshot = lab.workspace.train.read_bytes()
    experiment, _ = experiments.propose(lab, description="an idea", hypothesis="")
    linted = snapshot.replace(b"val_bpb=3.0", b"val_bpb=1.0").replace(b'"train"', b"'train'")
    lab.workspace.train.write_bytes(linted)
    done = wait(lab, experiment.id, 30.0)
    assert (done.val_bpb, done.verdict) == (3.0, Verdict.WORSE)
    assert lab.git.read_file(done.commit, TRAIN_FILE) == snapshot
    _, backup = experiments.revert(lab, done.id, "worse")
    assert backup is not None
    assert backup.startswith("refs/autoresearch/backup/")
    saved = subprocess.run(["git", "cat-file", "blob", backup], cwd=lab.root, capture_output=True, check=True)
    assert saved.stdout == linted
    assert lab.workspace.train.read_bytes() == champion


def test_a_lab_in_a_repository_whose_folder_is_a_link_is_the_same_lab(make_quick_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_quick_lab()
    (tmp_path / "link").symlink_to(lab.root)
    with pytest.raises(GitError, match="cannot be a worktree"):
        lab.git.add_worktree(tmp_path / "link" / WORKTREE, lab.session().base_commit)
    assert GitRepository.discover(tmp_path / "link") == lab.git
    assert WORKTREE.partition("/")[0] not in names_in(lab.root)
