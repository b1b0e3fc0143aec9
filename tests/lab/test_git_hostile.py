"""What an agent can plant in a repository: nothing of it runs in our process, or changes what we read."""

from __future__ import annotations

import subprocess

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository

from .users import CHAMPION, ENVIRONMENT, FILE, TIME, make_repository, names_in, plant, user_git, work


@pytest.fixture
def folder(tmp_path):
    """A user's repository with one commit that holds a train.py."""
    return make_repository(tmp_path / "lab")


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


def test_a_symbolic_ref_under_our_name_does_not_move_the_users_branch(repository, folder):
    head = repository.head_commit()
    idea = repository.commit_with_file(head, FILE, b"x\n", "idea", TIME)
    user_git(folder, "symbolic-ref", CHAMPION, "refs/heads/main")
    repository.update_ref(CHAMPION, idea, head)
    assert user_git(folder, "rev-parse", "main") == head
    assert repository.ref(CHAMPION) == idea


def test_replaced_objects_are_read_as_they_were(repository, folder):
    head = repository.head_commit()
    fake = repository.store_blob(b"fake\n")
    user_git(folder, "replace", user_git(folder, "rev-parse", f"HEAD:{FILE}"), fake)
    assert repository.read_file(head, FILE) == b"DEPTH = 4\n"


def test_nothing_that_an_agent_planted_in_the_repository_runs(repository, folder, tmp_path):
    markers = tmp_path / "markers"
    plant(folder, markers)
    work(repository)
    assert names_in(markers) == []


def test_nothing_planted_for_single_worktrees_runs(repository, folder, tmp_path):
    repository.add_worktree(folder / ".autoresearch/worktrees/bob", repository.head_commit())
    plant(folder, tmp_path / "markers", in_worktrees=True)
    work(repository)
    again = GitRepository.discover(folder / ".autoresearch/worktrees/bob")
    again.commit_with_file(again.head_commit(), FILE, b"y\n", "idea", TIME)
    assert names_in(tmp_path / "markers") == []


@pytest.mark.parametrize("in_worktrees", [False, True])
def test_the_planted_programs_would_run_under_plain_git(folder, tmp_path, in_worktrees):
    markers = tmp_path / "markers"
    plant(folder, markers, in_worktrees=in_worktrees)
    (folder / FILE).write_bytes(b"changed\n")
    (folder / "notes.txt").write_bytes(b"changed\n")
    subprocess.run(["git", "add", "-A"], cwd=folder, env=ENVIRONMENT, capture_output=True)  # ends: the filter says nothing
    plain = ("-c", "core.fsmonitor=false", "-c", "filter.planted.process=")
    unsigned = ("-c", "commit.gpgSign=false")
    for command in (
        ("add", "-A"),
        ("commit", "-q", "-m", "signed"),
        (*unsigned, "commit", "-q", "-m", "unsigned"),
        ("log", "-p", "--textconv", "--no-ext-diff"),
        ("checkout", "-q", "HEAD~", "--", "."),
        ("worktree", "add", "-q", str(tmp_path / "other")),
        ("fetch", "origin"),
        ("fetch", "host:repository"),
    ):
        subprocess.run(["git", *plain, *command], cwd=folder, env=ENVIRONMENT, capture_output=True)
    subprocess.run(["git", "status"], cwd=folder, env=ENVIRONMENT, capture_output=True)
    wanted = {"clean", "smudge", "process", "fsmonitor", "gpg", "textconv", "ext", "ssh"}
    wanted |= {f"hook-{name}" for name in ("reference-transaction", "pre-commit", "post-checkout", "post-index-change")}
    assert wanted - set(names_in(markers)) == set()


def test_nothing_planted_runs_during_the_initial_commit(tmp_path):
    folder = tmp_path / "lab"
    repository = GitRepository.create(folder)
    markers = tmp_path / "markers"
    plant(folder, markers)
    repository.initial_commit({FILE: b"x\n"}, "first", TIME)
    assert names_in(markers) == []


def test_a_missing_object_is_not_fetched_through_a_planted_transport(repository, folder, tmp_path):
    marker = tmp_path / "marker"
    user_git(folder, "config", "core.repositoryFormatVersion", "1")
    for key, value in {
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::sh -c touch% {marker}",
        "remote.origin.uploadpack": f"touch {marker}; false",
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
        "protocol.file.allow": "always",
    }.items():
        user_git(folder, "config", key, value)
    assert not repository.object_exists("1" * 40)
    with pytest.raises(GitError, match="cat-file failed"):
        repository.read_blob("1" * 40)
    work(repository)
    assert not marker.exists()
    subprocess.run(["git", "cat-file", "-e", "1" * 40], cwd=folder, env=ENVIRONMENT, capture_output=True)
    assert marker.exists(), "plain git should have run it, or this test attacks nothing"


def test_a_working_tree_moved_by_configuration_is_ignored(repository, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    user_git(folder, "config", "core.worktree", str(elsewhere))
    assert GitRepository.discover(folder).root == folder.resolve()
    work(repository)
    user_git(folder, "config", "core.bare", "true")
    assert repository.head_commit() is not None
