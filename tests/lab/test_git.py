"""Reading, storing and moving refs in a real repository, beside a user who works in it."""

from __future__ import annotations

import os

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository

from .users import CHAMPION, FILE, IDEA, TIME, make_repository, private_state, user_git, work


@pytest.fixture
def folder(tmp_path):
    """A user's repository with one commit that holds a train.py."""
    return make_repository(tmp_path / "lab")


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


def test_a_repository_is_found_from_a_folder_inside_it(folder):
    repository = GitRepository.discover(folder / "trainer")
    assert repository.root == folder.resolve()
    assert repository.common_dir == folder.resolve() / ".git"


def test_a_folder_outside_any_repository_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(GitError, match="not inside a git repository: run `git init` there"):
        GitRepository.discover(tmp_path)


def test_a_broken_repository_is_refused_with_gits_words(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(GitError, match="not a git repository"):
        GitRepository.discover(tmp_path)


def test_a_new_repository_has_an_unborn_main_and_no_hooks(tmp_path):
    repository = GitRepository.create(tmp_path / "new" / "lab")
    assert repository.head_commit() is None
    assert user_git(repository.root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert not (repository.common_dir / "hooks").exists()


def test_a_new_repository_may_lie_inside_another_but_not_on_one(folder):
    inner = GitRepository.create(folder / "labs" / "demo")
    assert inner.common_dir == folder.resolve() / "labs" / "demo" / ".git"
    with pytest.raises(GitError, match="already"):
        GitRepository.create(folder)


def test_head_and_files_are_read(repository, folder):
    head = repository.head_commit()
    assert head == user_git(folder, "rev-parse", "HEAD")
    assert repository.read_file(head, FILE) == b"DEPTH = 4\n"
    assert repository.read_file(head, "trainer/none.py") is None
    assert repository.read_file(head, "notes.txt/inner") is None
    with pytest.raises(GitError, match="mode 040000"):
        repository.read_file(head, "trainer")


def test_a_detached_head_is_read(repository, folder):
    head = repository.head_commit()
    user_git(folder, "checkout", "-q", "--detach")
    assert repository.head_commit() == head


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\n\n", b"a\r\nb\n", bytes(range(256)), b"x" * 300_000, b"$Id$\n", b"no newline"]
)
def test_blobs_keep_every_byte(repository, data):
    name = repository.store_blob(data)
    assert repository.read_blob(name) == data
    assert repository.object_exists(name)


def test_bytes_stay_exact_under_line_ending_rules_and_attributes(repository, folder):
    user_git(folder, "config", "core.autocrlf", "true")
    user_git(folder, "config", "core.eol", "crlf")
    user_git(folder, "config", "filter.upper.clean", "tr a-z A-Z")
    (folder / ".gitattributes").write_text("*.py text ident working-tree-encoding=UTF-16 filter=upper\n")
    data = b"x = 1\r\ny = 2\n$Id$\r\n"
    commit = repository.commit_with_file(repository.head_commit(), FILE, data, "idea", TIME)
    assert repository.read_file(commit, FILE) == data


def test_a_commit_is_its_parent_with_one_file_replaced(repository, folder):
    head = repository.head_commit()
    commit = repository.commit_with_file(head, FILE, b"DEPTH = 6\n", "deeper\n\nval_bpb: 2.1", TIME)
    assert user_git(folder, "diff-tree", "-r", "--name-status", head, commit) == f"M\t{FILE}"
    shown = user_git(folder, "show", "-s", "--format=%an <%ae> %cn <%ce> %at %ct %P%n%B", commit)
    who = "autoresearch <autoresearch@localhost>"
    assert shown == f"{who} {who} {TIME} {TIME} {head}\ndeeper\n\nval_bpb: 2.1"
    user_git(folder, "fsck", "--strict")


def test_the_same_arguments_give_the_same_commit_whatever_the_configuration(repository, folder):
    arguments = (repository.head_commit(), FILE, b"DEPTH = 6\n", "grün", TIME)
    commit = repository.commit_with_file(*arguments)
    for key, value in (("i18n.commitEncoding", "latin-1"), ("user.name", "x"), ("commit.gpgSign", "true")):
        user_git(folder, "config", key, value)
    assert repository.commit_with_file(*arguments) == commit


def test_an_options_like_or_odd_message_is_text(repository, folder):
    message = "--amend -F /etc/passwd\0\n# not a comment\n\ud800"
    commit = repository.commit_with_file(repository.head_commit(), FILE, b"", message, TIME)
    assert user_git(folder, "show", "-s", "--format=%B", commit) == "--amend -F /etc/passwd\n# not a comment\n?"


def test_a_new_path_is_added_and_the_mode_of_an_old_one_kept(repository, folder):
    (folder / FILE).chmod(0o755)
    user_git(folder, "commit", "-q", "-am", "executable")
    commit = repository.commit_with_file(repository.head_commit(), FILE, b"new\n", "idea", TIME)
    commit = repository.commit_with_file(commit, "a/b/c.txt", b"c\n", "idea", TIME)
    modes = user_git(folder, "ls-tree", "-r", "--format=%(objectmode) %(path)", commit).splitlines()
    assert modes == ["100644 a/b/c.txt", "100644 notes.txt", f"100755 {FILE}"]


def test_links_submodules_and_odd_names_of_the_parent_survive(repository, folder):
    (folder / "link").symlink_to("notes.txt")
    (folder / "trainer" / "inner-link").symlink_to("/etc/passwd")
    os.close(os.open(os.fsencode(folder) + b'/trainer/\xff\t\n"name', os.O_CREAT | os.O_WRONLY))
    module = "1" * 40
    user_git(folder, "add", "link", "trainer")
    for path in ("module", "trainer/module"):
        user_git(folder, "update-index", "--add", "--cacheinfo", f"160000,{module},{path}")
    user_git(folder, "commit", "-q", "-m", "odd")
    head = repository.head_commit()
    commit = repository.commit_with_file(head, FILE, b"new\n", "idea", TIME)
    assert user_git(folder, "diff-tree", "-r", "--name-status", head, commit) == f"M\t{FILE}"
    assert f"160000 commit {module}\ttrainer/module" in user_git(folder, "ls-tree", "-r", commit)
    with pytest.raises(GitError, match="mode 120000"):
        repository.read_file(commit, "link")
    with pytest.raises(GitError, match="not a file"):
        repository.commit_with_file(head, "module", b"", "idea", TIME)


def test_a_link_at_the_path_becomes_a_regular_file(repository, folder):
    (folder / FILE).unlink()
    (folder / FILE).symlink_to("/etc/passwd")
    user_git(folder, "add", FILE)
    user_git(folder, "commit", "-q", "-m", "link")
    commit = repository.commit_with_file(repository.head_commit(), FILE, b"file\n", "idea", TIME)
    assert user_git(folder, "ls-tree", commit, FILE).startswith("100644 blob")


def test_a_file_in_the_place_of_a_folder_is_refused(repository):
    with pytest.raises(GitError, match=r"notes.txt is a blob in the commit, not a folder"):
        repository.commit_with_file(repository.head_commit(), "notes.txt/train.py", b"", "idea", TIME)


def test_an_unborn_branch_can_be_the_start(tmp_path):
    repository = GitRepository.create(tmp_path)
    commit = repository.commit_with_file(None, FILE, b"x\n", "root", TIME)
    repository.update_ref(CHAMPION, commit, None)
    assert repository.head_commit() is None
    assert repository.read_file(commit, FILE) == b"x\n"
    assert user_git(tmp_path, "rev-list", "--count", CHAMPION) == "1"


def test_the_initial_commit_leaves_a_clean_status(tmp_path):
    repository = GitRepository.create(tmp_path)
    files = {FILE: b"DEPTH = 4\r\n", "program.md": b"# Goal\n", "autoresearch.toml": b""}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    commit = repository.initial_commit(files, "the lab", TIME)
    assert repository.head_commit() == commit
    assert user_git(tmp_path, "status", "--porcelain") == ""
    assert user_git(tmp_path, "ls-tree", "-r", "--name-only", "HEAD").split() == sorted(files)
    with pytest.raises(GitError, match="has commits already"):
        repository.initial_commit(files, "again", TIME)


def test_the_initial_commit_keeps_what_the_user_had_staged(tmp_path):
    repository = GitRepository.create(tmp_path)
    (tmp_path / "mine").write_text("mine\n")
    user_git(tmp_path, "add", "mine")
    (tmp_path / "lab.txt").write_text("lab\n")
    repository.initial_commit({"lab.txt": b"lab\n"}, "the lab", TIME)
    assert user_git(tmp_path, "status", "--porcelain") == "A  mine"


def test_refs_are_created_moved_and_listed(repository):
    head = repository.head_commit()
    assert repository.ref(CHAMPION) is None
    assert repository.refs("refs/autoresearch") == {}
    idea = repository.commit_with_file(head, FILE, b"x\n", "idea", TIME)
    repository.update_ref(IDEA, idea, None)
    repository.update_ref(CHAMPION, head, None)
    repository.update_ref(CHAMPION, idea, head)
    assert repository.ref(CHAMPION) == idea
    assert repository.refs("refs/autoresearch/oct5/") == {IDEA: idea}
    assert repository.refs("refs/heads/autoresearch") == {CHAMPION: idea}


def test_a_ref_that_moved_is_left_alone_and_the_message_says_where_it_is(repository):
    head = repository.head_commit()
    idea = repository.commit_with_file(head, FILE, b"x\n", "idea", TIME)
    with pytest.raises(GitError, match=f"expected at {head} and is missing"):
        repository.update_ref(CHAMPION, idea, head)
    repository.update_ref(CHAMPION, head, None)
    with pytest.raises(GitError, match=f"expected missing and is at {head}"):
        repository.update_ref(CHAMPION, idea, None)
    with pytest.raises(GitError, match=f"expected at {idea} and is at {head}"):
        repository.update_ref(CHAMPION, idea, idea)
    assert repository.ref(CHAMPION) == head


def test_a_ref_that_another_process_has_moved_there_already_is_no_error(repository):
    head = repository.head_commit()
    repository.update_ref(CHAMPION, head, None)
    repository.update_ref(CHAMPION, head, None)
    assert repository.ref(CHAMPION) == head


def test_a_ref_cannot_point_at_nothing_and_a_locked_ref_is_reported(repository, folder):
    with pytest.raises(GitError, match="cannot be set"):
        repository.update_ref(CHAMPION, "1" * 40, None)
    lock = folder / ".git" / (CHAMPION + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with pytest.raises(GitError, match=r"\.lock"):
        repository.update_ref(CHAMPION, repository.head_commit(), None)


def test_missing_objects_are_told_apart(repository):
    assert repository.object_exists(repository.head_commit())
    assert not repository.object_exists("1" * 40)
    with pytest.raises(GitError, match="cat-file failed"):
        repository.read_blob("1" * 40)


def test_ignored_paths_are_known(repository, folder):
    (folder / ".gitignore").write_text("labs/\n*.log\n")
    assert repository.is_ignored("labs/demo")
    assert repository.is_ignored("-q.log")
    assert not repository.is_ignored(FILE)
    assert not repository.is_ignored("*.txt")


def test_head_index_dirty_staged_and_untracked_files_are_left_alone(repository, folder):
    (folder / "notes.txt").write_text("dirty\n")
    (folder / "staged.txt").write_text("staged\n")
    user_git(folder, "add", "staged.txt")
    (folder / "untracked.txt").write_text("untracked\n")
    (folder / FILE).write_text("being edited\n")
    before = private_state(folder)
    status = user_git(folder, "status", "--porcelain")
    work(repository)
    assert private_state(folder) == before
    assert user_git(folder, "status", "--porcelain") == status


def test_a_stale_index_lock_does_not_matter(repository, folder):
    (folder / ".git" / "index.lock").touch()
    work(repository)
    assert (folder / ".git" / "index.lock").exists()


def test_a_linked_worktree_shares_refs_and_has_its_own_head(repository, folder, tmp_path):
    other = tmp_path / "worktree"
    user_git(folder, "worktree", "add", "-q", "--detach", str(other))
    linked = GitRepository.discover(other)
    assert linked.root == other.resolve()
    assert linked.common_dir == repository.common_dir
    (folder / "notes.txt").write_text("newer\n")
    user_git(folder, "commit", "-q", "-am", "second")
    assert linked.head_commit() != repository.head_commit()
    before = private_state(folder)
    champion = work(linked)
    assert repository.ref(CHAMPION) == champion
    assert private_state(folder) == before
    assert user_git(other, "status", "--porcelain") == ""


def test_a_repository_with_sha_256_names_works(tmp_path):
    user_git(tmp_path, "init", "-q", "--object-format=sha256", "-b", "main")
    repository = GitRepository.discover(tmp_path)
    repository.initial_commit({FILE: b"DEPTH = 4\n"}, "first", TIME)
    assert len(work(repository)) == 64
