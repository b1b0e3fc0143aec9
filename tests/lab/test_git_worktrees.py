"""Worktrees of researchers: exact, begun once however often, finished after any death, and harmless."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository

from .users import FILE, TIME, WORKTREE, make_repository, names_in, private_state, user_git


@pytest.fixture
def folder(tmp_path):
    """A user's repository with what a tree can hold."""
    root = make_repository(tmp_path / "lab")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("trainer")
    os.close(os.open(os.fsencode(root) + b'/trainer/\xff\t\n"name', os.O_CREAT | os.O_WRONLY))
    user_git(root, "add", ".")
    user_git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},inner/module")
    user_git(root, "commit", "-q", "-m", "all kinds")
    return root


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


@pytest.fixture
def commit(repository):
    return repository.commit_with_file(repository.head_commit(), FILE, b"DEPTH = 6\r\n$Id$\n", "idea", TIME)


@pytest.fixture
def worktree(folder):
    return folder.resolve() / WORKTREE


def entries(folder: Path) -> list[str]:
    return names_in(folder / ".git" / "worktrees")


def test_a_worktree_has_the_files_of_the_commit_and_a_clean_status(repository, worktree, commit):
    repository.add_worktree(worktree, commit)
    assert (worktree / FILE).read_bytes() == b"DEPTH = 6\r\n$Id$\n"
    assert os.access(worktree / "run.sh", os.X_OK)
    assert not os.access(worktree / FILE, os.X_OK)
    assert (worktree / "link").readlink() == Path("trainer")
    assert names_in(worktree / "inner" / "module") == []
    assert len(names_in(worktree / "trainer")) == 2
    assert user_git(worktree, "status", "--porcelain") == ""
    assert user_git(worktree, "rev-parse", "HEAD") == commit
    assert names_in(worktree.parent) == ["alice"]
    linked = GitRepository.discover(worktree)
    assert (linked.root, linked.common_dir) == (worktree, repository.common_dir)
    assert linked.head_branch() is None


def test_the_repository_around_stays_as_it_is(repository, folder, worktree, commit):
    (folder / "notes.txt").write_text("dirty\n")
    (folder / "staged").write_text("staged\n")
    user_git(folder, "add", "staged")
    (folder / "untracked").write_text("untracked\n")
    before = private_state(folder), user_git(folder, "status", "--porcelain"), user_git(folder, "for-each-ref")
    repository.add_worktree(worktree, commit)
    after = private_state(folder), user_git(folder, "status", "--porcelain"), user_git(folder, "for-each-ref")
    assert after == before
    assert repository.head_branch() == "refs/heads/main"


def test_git_knows_the_worktree_and_does_not_clean_it_away(repository, folder, worktree, commit):
    repository.add_worktree(worktree, commit)
    assert f"worktree {worktree}\nHEAD {commit}\ndetached" in user_git(folder, "worktree", "list", "--porcelain")
    user_git(folder, "worktree", "prune")
    user_git(folder, "clean", "-fdx")
    assert user_git(worktree, "status", "--porcelain") == ""
    repository.add_worktree(worktree, commit)
    assert user_git(folder, "status", "--porcelain", "--ignored").endswith("!! .autoresearch/")


def test_line_endings_and_filters_of_the_repository_change_no_byte(repository, folder, worktree):
    user_git(folder, "config", "core.autocrlf", "true")
    user_git(folder, "config", "filter.upper.smudge", "tr a-z A-Z")
    (folder / ".gitattributes").write_text("notes.txt filter=upper\n*.py ident\n")
    user_git(folder, "add", ".gitattributes")
    user_git(folder, "commit", "-q", "-m", "attributes")
    commit = repository.commit_with_file(repository.head_commit(), FILE, b"x = 1\r\ny = 2\r\n# $Id$\r\n", "idea", TIME)
    repository.add_worktree(worktree, commit)
    assert (worktree / FILE).read_bytes() == b"x = 1\r\ny = 2\r\n# $Id$\r\n"
    assert (worktree / "notes.txt").read_bytes() == b"mine\n"
    assert (worktree / ".gitattributes").read_bytes() == b"notes.txt filter=upper\n*.py ident\n"
    assert user_git(worktree, "status", "--porcelain") == ""


def test_a_second_call_leaves_the_researchers_work_alone(repository, folder, worktree, commit):
    repository.add_worktree(worktree, commit)
    (worktree / FILE).write_text("being edited\n")
    (worktree / "notes.txt").unlink()
    (worktree / "new").write_text("new\n")
    user_git(worktree, "add", "new")
    user_git(worktree, "checkout", "-q", "-b", "mine")
    before = private_state(worktree), user_git(worktree, "status", "--porcelain")
    repository.add_worktree(worktree, repository.head_commit())
    assert (private_state(worktree), user_git(worktree, "status", "--porcelain")) == before
    assert user_git(worktree, "symbolic-ref", "HEAD") == "refs/heads/mine"


@pytest.mark.parametrize("also", ["", "pruned", "entry"])
def test_a_deleted_folder_is_made_again_at_the_commit_of_the_call(repository, folder, worktree, commit, also):
    repository.add_worktree(worktree, repository.head_commit())
    shutil.rmtree(worktree)
    if also == "pruned":
        user_git(folder, "worktree", "prune")
    elif also == "entry":  # half of it is left
        (folder / ".git" / "worktrees" / entries(folder)[0] / "HEAD").unlink()
    repository.add_worktree(worktree, commit)
    assert user_git(worktree, "rev-parse", "HEAD") == commit
    assert user_git(worktree, "status", "--porcelain") == ""
    assert len(entries(folder)) == 1


def test_files_of_a_folder_that_is_no_worktree_any_more_are_kept(repository, worktree, commit):
    repository.add_worktree(worktree, commit)
    (worktree / ".git").unlink()
    (worktree / FILE).write_text("the researcher's\n")
    shutil.rmtree(worktree / "inner")
    (worktree / "inner").write_text("in the way of a folder\n")
    (worktree / "run.sh").unlink()
    (worktree / "run.sh").symlink_to("/nonexistent")
    (worktree / "notes.txt").unlink()
    repository.add_worktree(worktree, commit)
    assert (worktree / FILE).read_text() == "the researcher's\n"
    assert (worktree / "inner").read_text() == "in the way of a folder\n"
    assert (worktree / "run.sh").readlink() == Path("/nonexistent")
    assert (worktree / "notes.txt").read_text() == "mine\n"
    assert f" M {FILE}" in user_git(worktree, "status", "--porcelain").splitlines()


def test_a_moved_lab_gets_its_worktrees_back_as_they_were(repository, folder, worktree, commit, tmp_path):
    repository.add_worktree(worktree, commit)
    (worktree / "new").write_text("new\n")
    user_git(worktree, "add", "new")
    folder.rename(tmp_path / "moved")
    moved = GitRepository.discover(tmp_path / "moved")
    moved.add_worktree(moved.root / WORKTREE, moved.head_commit())
    assert user_git(moved.root / WORKTREE, "status", "--porcelain") == "A  new"
    assert user_git(moved.root / WORKTREE, "rev-parse", "HEAD") == commit
    assert len(entries(moved.root)) == 1


def test_a_copied_lab_does_not_take_the_worktree_of_the_original(repository, folder, worktree, commit, tmp_path):
    repository.add_worktree(worktree, commit)
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    copy = GitRepository.discover(tmp_path / "copy")
    copy.add_worktree(copy.root / WORKTREE, commit)
    shutil.copytree(worktree, worktree.parent / "bob", symlinks=True)
    repository.add_worktree(worktree.parent / "bob", commit)
    places = (worktree, worktree.parent / "bob", copy.root / WORKTREE)
    repository.add_worktree(worktree, commit)
    assert len({user_git(place, "rev-parse", "--absolute-git-dir") for place in places}) == 3
    for place in places:
        assert user_git(place, "rev-parse", "--show-toplevel") == str(place)
        assert user_git(place, "status", "--porcelain") == ""
    assert Path(user_git(copy.root / WORKTREE, "rev-parse", "--git-common-dir")) == copy.common_dir


def test_a_worktree_of_the_user_with_the_same_name_is_left_alone(repository, folder, worktree, commit, tmp_path):
    user_git(folder, "worktree", "add", "-q", "-b", "mine", str(tmp_path / "alice"))
    repository.add_worktree(worktree, commit)
    assert user_git(tmp_path / "alice", "symbolic-ref", "HEAD") == "refs/heads/mine"
    assert user_git(tmp_path / "alice", "status", "--porcelain") == ""
    assert len(entries(folder)) == 2


def test_several_processes_may_make_one_worktree_at_once(repository, worktree, commit):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: repository.add_worktree(worktree, commit), range(4)))
    assert user_git(worktree, "status", "--porcelain") == ""


# A child is killed at its n-th change of the disk or start of a process, for every n until one lives to the end.
KILLED = """
import os, signal, sys
from pathlib import Path
from autoresearch_mcp.lab.git import GitRepository

repository = GitRepository.discover(Path(sys.argv[1]))
worktrees, commit = Path(sys.argv[2]), sys.argv[3]
changes = ("os.mkdir", "os.link", "os.rename", "os.remove", "os.symlink", "subprocess.Popen")

def watch(event, arguments):
    global left
    if event in changes or (event == "open" and arguments[2] & os.O_CREAT):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

for point in range(1, 1000):
    child = os.fork()
    if child == 0:
        left = point
        sys.addaudithook(watch)
        repository.add_worktree(worktrees / f"w{point}", commit)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(point)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_next_call_finishes(repository, folder, worktree, commit, tmp_path):
    command = [sys.executable, "-c", KILLED, str(folder), str(worktree.parent), commit]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    places = [worktree.parent / f"w{point}" for point in range(1, int(done.stdout) + 1)]
    assert len(places) > 30
    for place in places:
        repository.add_worktree(place, commit)
        assert user_git(place, "status", "--porcelain") == "", place
        assert (place / FILE).stat().st_nlink == 1
        assert user_git(place, "rev-parse", "HEAD") == commit
    assert names_in(worktree.parent) == sorted(place.name for place in places)
    assert len(entries(folder)) == len(places)


def test_an_interrupted_worktree_is_finished_at_the_commit_it_was_begun_with(repository, worktree, folder, commit):
    repository.add_worktree(worktree, commit)
    (folder / ".git" / "worktrees" / entries(folder)[0] / "index").unlink()
    (worktree / "notes.txt").unlink()
    repository.add_worktree(worktree, repository.head_commit())
    assert user_git(worktree, "rev-parse", "HEAD") == commit
    assert user_git(worktree, "status", "--porcelain") == ""


@pytest.mark.parametrize("planted", [".autoresearch", ".autoresearch/worktrees", WORKTREE, ".git/worktrees"])
def test_a_link_on_the_way_is_refused_and_nothing_is_written_behind_it(repository, folder, worktree, commit, tmp_path, planted):
    (tmp_path / "elsewhere").mkdir()
    (folder / planted).parent.mkdir(parents=True, exist_ok=True)
    (folder / planted).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GitError, match=r"is a link or a file: move it away, then call again"):
        repository.add_worktree(worktree, commit)
    assert names_in(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("planted", ["HEAD", "gitdir", "commondir", "index"])
def test_links_in_the_worktrees_entry_are_not_followed(repository, folder, worktree, commit, tmp_path, planted):
    repository.add_worktree(worktree, commit)
    (precious := tmp_path / "precious").write_text("precious\n")
    (link := folder / ".git" / "worktrees" / entries(folder)[0] / planted).unlink()
    link.symlink_to(precious)
    (worktree / ".git").unlink()
    repository.add_worktree(worktree, commit)
    assert precious.read_text() == "precious\n"
    assert user_git(worktree, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "git~1"])
def test_a_tree_that_leads_out_of_the_worktree_is_refused(repository, folder, worktree, name):
    inner = bytes.fromhex(repository.store_blob(b"planted\n"))
    for entry in (b"100644 escaped\0", b"40000 " + name.encode() + b"\0"):
        done = subprocess.run(
            ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
            cwd=folder,
            input=entry + inner,
            capture_output=True,
            check=True,
        )
        inner = bytes.fromhex(done.stdout.decode())
    commit = user_git(folder, "commit-tree", "-m", "planted", inner.hex())
    with pytest.raises(GitError, match="invalid path"):
        repository.add_worktree(worktree, commit)
    assert names_in(worktree) == [".git"]
    assert not (worktree.parent / "escaped").exists()


def test_a_repository_in_the_place_of_the_worktree_is_refused(repository, worktree, commit):
    GitRepository.create(worktree)
    with pytest.raises(GitError, match="a repository of its own: move it away"):
        repository.add_worktree(worktree, commit)
    assert (worktree / ".git" / "HEAD").exists()


@pytest.mark.parametrize("where", ["alice", "../alice", "/elsewhere/alice", ".git/worktrees/alice", "x/../../alice", "a/b\nc"])
def test_a_worktree_lies_below_a_folder_of_the_repository(repository, folder, commit, where):
    with pytest.raises(GitError, match=r"cannot be a worktree|not a path inside"):
        repository.add_worktree(folder.resolve() / where, commit)


def test_a_commit_that_is_not_there_is_refused_and_the_right_one_accepted_later(repository, worktree, commit):
    with pytest.raises(GitError, match="failed"):
        repository.add_worktree(worktree, "1" * 40)
    repository.add_worktree(worktree, commit)
    assert user_git(worktree, "rev-parse", "HEAD") == commit


def test_a_partial_clone_without_the_files_is_refused_with_the_command_that_fetches_them(folder, tmp_path, repository):
    user_git(folder, "rm", "-q", "-r", "--cached", "inner")
    user_git(folder, "commit", "-q", "-m", "without the submodule")
    user_git(folder, "config", "uploadpack.allowFilter", "true")
    arguments = ("--filter=blob:none", "--no-checkout", f"file://{folder}", str(tmp_path / "partial"))
    user_git(tmp_path, "clone", "-q", *arguments)
    partial = GitRepository.discover(tmp_path / "partial")
    worktree = partial.root / WORKTREE
    with pytest.raises(GitError, match="fetch --refetch --no-filter"):
        partial.add_worktree(worktree, partial.head_commit())
    user_git(partial.root, "fetch", "-q", "--refetch", "--no-filter")
    partial.add_worktree(worktree, partial.head_commit())
    assert user_git(worktree, "status", "--porcelain") == ""


def test_refs_in_another_format_are_refused(repository, folder, worktree, commit):
    (folder / ".git" / "reftable").mkdir()
    with pytest.raises(GitError, match="reftable"):
        repository.add_worktree(worktree, commit)


def test_a_full_disk_is_told_and_the_next_call_goes_on(repository, worktree, commit):
    script = (
        "import resource, signal, sys; from pathlib import Path; from autoresearch_mcp.lab.git import GitRepository\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))\n"
        "GitRepository.discover(Path(sys.argv[1])).add_worktree(Path(sys.argv[2]), sys.argv[3])\n"
    )
    arguments = (str(repository.root), str(worktree), commit)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert "make room for it, then call again" in done.stderr
    repository.add_worktree(worktree, commit)
    assert user_git(worktree, "status", "--porcelain") == ""
