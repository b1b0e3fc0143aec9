"""Running git itself: its environment, its end, and what is left of it."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository
from autoresearch_mcp.lab.merging import merge_file

from .users import CHAMPION, WORKTREE, make_repository, names_in, user_git, work


@pytest.fixture
def folder(tmp_path):
    """A user's repository with one commit that holds a train.py."""
    return make_repository(tmp_path / "lab")


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


def test_a_machine_without_git_is_told_to_install_it(folder, monkeypatch, tmp_path):
    from autoresearch_mcp.lab import git_command

    git_command._programs.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="install it"):
        GitRepository.discover(folder)
    git_command._programs.cache_clear()


def test_inherited_git_variables_do_not_matter(repository, folder, tmp_path, monkeypatch):
    other = GitRepository.create(tmp_path / "other")
    for key, value in {
        "GIT_DIR": str(other.common_dir),
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
        "GIT_NAMESPACE": "hidden",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(tmp_path),
        "GIT_TRACE": str(tmp_path / "trace"),
        "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z",
    }.items():
        monkeypatch.setenv(key, value)
    champion = work(repository)
    assert user_git(folder, "rev-parse", CHAMPION) == champion
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "objects").exists()


def left_behind() -> tuple[int, int, int]:
    """Return how many descriptors, child processes and threads this process has."""
    own = psutil.Process()
    return own.num_fds(), len(own.children(recursive=True)), threading.active_count()


@pytest.mark.slow
def test_a_thousand_operations_leave_no_descriptor_process_thread_or_file_behind(repository, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    head = repository.head_commit()

    def refused() -> None:
        with pytest.raises(GitError):
            repository.read_blob("1" * 40)

    operations = (
        repository.head_branch,
        repository.head_commit,
        refused,
        lambda: repository.ref(CHAMPION),
        lambda: repository.store_blob(b"x\n"),
        lambda: repository.object_exists("1" * 40),
        lambda: repository.add_worktree(repository.root / WORKTREE, head),
        lambda: merge_file(b"a\n", b"b\n", b"c\n"),
    )
    for operation in operations:
        operation()
    before = left_behind()
    with ThreadPoolExecutor(2) as pool:  # as the clients of one server do
        list(pool.map(lambda operation: operation(), operations * 125))
    deadline = time.monotonic() + 10  # the last watchdog's thread may still be ending
    while (after := left_behind()) != before and time.monotonic() < deadline:
        pass
    assert after == before
    assert names_in(tmp_path / "tmp") == []
    assert repository.head_commit() == head


def test_a_git_that_waits_for_a_planted_pipe_is_ended(repository, folder, monkeypatch):
    monkeypatch.setattr("autoresearch_mcp.lab.git_command._TIMEOUT_SECONDS", 0.3)
    (folder / ".git" / "config").unlink()
    os.mkfifo(folder / ".git" / "config")
    with pytest.raises(GitError, match=r"did not complete in 0\.3 secs"):
        repository.head_commit()
