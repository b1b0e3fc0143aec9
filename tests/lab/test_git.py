"""Real git in temporary folders. The user's own git is run with a clean environment, as a user would run it."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository, validate_tag

FILE = "trainer/train.py"
CHAMPION = "refs/heads/autoresearch/oct5"
IDEA = "refs/autoresearch/oct5/e0001"
TIME = 1_760_000_000

USER_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "user",
    "GIT_AUTHOR_EMAIL": "user@example.org",
    "GIT_COMMITTER_NAME": "user",
    "GIT_COMMITTER_EMAIL": "user@example.org",
    "GIT_OPTIONAL_LOCKS": "0",
}


def user_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=USER_ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template") / "lab"
    (root / "trainer").mkdir(parents=True)
    (root / FILE).write_bytes(b"DEPTH = 4\n")
    (root / "notes.txt").write_text("mine\n")
    user_git(root, "init", "-q", "--template=", "-b", "main")
    user_git(root, "add", ".")
    user_git(root, "commit", "-q", "-m", "first")
    return root


@pytest.fixture
def folder(template, tmp_path):
    """A user's repository with one commit that holds a train.py."""
    return shutil.copytree(template, tmp_path / "lab")


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


def private_state(root: Path) -> dict[str, str]:
    """Every file of the working tree, the index, HEAD and the configuration, by digest."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.relative_to(root).parts]
    paths += [path for name in ("HEAD", "index", "config") if (path := root / ".git" / name).exists()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


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


def test_a_machine_without_git_is_told_to_install_it(folder, monkeypatch, tmp_path):
    from autoresearch_mcp.lab import git

    git._programs.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="install it"):
        GitRepository.discover(folder)
    git._programs.cache_clear()


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


def test_a_symbolic_ref_under_our_name_does_not_move_the_users_branch(repository, folder):
    head = repository.head_commit()
    idea = repository.commit_with_file(head, FILE, b"x\n", "idea", TIME)
    user_git(folder, "symbolic-ref", CHAMPION, "refs/heads/main")
    repository.update_ref(CHAMPION, idea, head)
    assert user_git(folder, "rev-parse", "main") == head
    assert repository.ref(CHAMPION) == idea


@pytest.mark.parametrize(
    "name",
    [
        "refs/heads/main",
        "HEAD",
        "refs/heads/autoresearch",
        "refs/heads/autoresearch/../main",
        "refs/autoresearch/a..b",
        "refs/autoresearch/a.lock",
        "refs/autoresearch/-x",
        "refs/autoresearch/oct5/e1\n",
        "--stdin",
    ],
)
def test_refs_that_are_not_ours_are_never_read_or_written(repository, name):
    with pytest.raises(GitError, match="belongs to autoresearch"):
        repository.update_ref(name, repository.head_commit(), None)
    with pytest.raises(GitError, match="belongs to autoresearch"):
        repository.ref(name)


@pytest.mark.parametrize("prefix", ["refs/", "refs/heads", "refs/heads/main", "--exec=x", "refs/autoresearch/*"])
def test_listing_stays_under_our_refs(repository, prefix):
    with pytest.raises(GitError, match="belongs to autoresearch"):
        repository.refs(prefix)


@pytest.mark.parametrize("name", ["HEAD", "main", "--help", "abc", "A" * 40, "0" * 41, ""])
def test_only_full_object_names_are_accepted(repository, name):
    for method in (repository.read_blob, repository.object_exists):
        with pytest.raises(GitError, match="full object name"):
            method(name)
    with pytest.raises(GitError, match="full object name"):
        repository.read_file(name, FILE)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a//b", "a/./b", ".git/config", "x/.GIT/y", "a\nb", "a\0"])
def test_paths_that_leave_the_tree_are_refused(repository, path):
    with pytest.raises(GitError, match="not a path"):
        repository.commit_with_file(None, path, b"", "idea", TIME)
    with pytest.raises(GitError, match="not a path"):
        repository.is_ignored(path)


@pytest.mark.parametrize("tag", ["oct5", "a", "2026-10-05", "a.b_c-d", "x" * 64])
def test_a_plain_tag_is_accepted(tag):
    assert validate_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", "Oct5", "-x", ".x", "a b", "a/b", "a..b", "a.lock", "a.", "x" * 65, "a\n", "é", "a~1", "backup"]
)
def test_any_other_tag_is_refused_with_the_rule(tag):
    with pytest.raises(GitError, match="cannot be a tag: a tag is 1 to 64"):
        validate_tag(tag)


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


def work(repository: GitRepository) -> str:
    """Every operation once; returns the champion."""
    head = repository.head_commit()
    assert head is not None
    commit = repository.commit_with_file(head, FILE, b"x = 1\r\n", "idea", TIME)
    repository.update_ref(IDEA, commit, None)
    repository.update_ref(CHAMPION, head, None)
    repository.update_ref(CHAMPION, commit, head)
    assert repository.read_file(commit, FILE) == b"x = 1\r\n"
    assert repository.refs("refs/autoresearch/") == {IDEA: commit}
    assert repository.object_exists(commit)
    repository.is_ignored(FILE)
    GitRepository.discover(repository.root)
    return commit


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


def test_replaced_objects_are_read_as_they_were(repository, folder):
    head = repository.head_commit()
    fake = repository.store_blob(b"fake\n")
    user_git(folder, "replace", user_git(folder, "rev-parse", f"HEAD:{FILE}"), fake)
    assert repository.read_file(head, FILE) == b"DEPTH = 4\n"


def plant(folder: Path, markers: Path) -> None:
    """Put a program that leaves a marker wherever git's configuration can name one."""
    markers.mkdir()
    programs = folder.parent / "programs"
    programs.mkdir()

    def program(name: str) -> str:
        path = programs / name
        path.write_text(f"#!/bin/sh\ntouch '{markers / name}'\nexit 0\n")
        path.chmod(0o755)
        return str(path)

    hooks = folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "reference-transaction",
        "pre-commit",
        "prepare-commit-msg",
        "commit-msg",
        "post-commit",
        "post-checkout",
        "post-index-change",
        "post-rewrite",
        "pre-auto-gc",
        "fsmonitor-watchman",
        "update",
        "pre-push",
    ):
        shutil.copy(program(f"hook-{name}"), hooks / name)
    settings = {
        "core.hooksPath": str(hooks),
        "core.fsmonitor": program("fsmonitor"),
        "core.pager": program("pager"),
        "core.editor": program("editor"),
        "core.askPass": program("askpass"),
        "core.sshCommand": program("ssh"),
        "core.gitProxy": program("proxy"),
        "core.alternateRefsCommand": program("alternates"),
        "credential.helper": "!" + program("credential"),
        "filter.planted.clean": program("clean"),
        "filter.planted.smudge": program("smudge"),
        "filter.planted.process": program("process"),
        "filter.planted.required": "true",
        "diff.external": program("diff"),
        "diff.planted.textconv": program("textconv"),
        "diff.planted.command": program("diff-command"),
        "merge.planted.driver": program("merge"),
        "gpg.program": program("gpg"),
        "commit.gpgSign": "true",
        "tag.gpgSign": "true",
        "log.showSignature": "true",
        "gc.auto": "1",
        "maintenance.auto": "true",
        "core.useReplaceRefs": "true",
        "core.splitIndex": "true",
        "core.untrackedCache": "true",
        "core.logAllRefUpdates": "always",
        "trace2.eventTarget": str(markers / "trace"),
    }
    for command in ("update-ref", "commit-tree", "cat-file", "rev-parse", "ls-tree", "mktree", "hash-object", "init"):
        settings[f"alias.{command}"] = "!" + program(f"alias-{command}")
        settings[f"pager.{command}"] = program(f"pager-{command}")
    for key, value in settings.items():
        user_git(folder, "-c", "core.hooksPath=/dev/null", "config", key, value)
    (folder / ".gitattributes").write_text("* filter=planted diff=planted merge=planted\n")
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "attributes").write_text("* filter=planted diff=planted merge=planted\n")


def test_nothing_that_an_agent_planted_in_the_repository_runs(repository, folder, tmp_path):
    markers = tmp_path / "markers"
    plant(folder, markers)
    work(repository)
    assert names_in(markers) == []


def test_the_planted_programs_would_run_under_plain_git(folder, tmp_path):
    markers = tmp_path / "markers"
    plant(folder, markers)
    subprocess.run(["git", "add", "-A"], cwd=folder, env=USER_ENVIRONMENT, capture_output=True)
    user_git(folder, "update-ref", "refs/heads/other", "HEAD")
    assert {"process", "fsmonitor", "hook-reference-transaction"} <= set(names_in(markers))


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
    subprocess.run(["git", "cat-file", "-e", "1" * 40], cwd=folder, env=USER_ENVIRONMENT, capture_output=True)
    assert marker.exists(), "plain git should have run it, or this test attacks nothing"


def test_a_working_tree_moved_by_configuration_is_ignored(repository, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    user_git(folder, "config", "core.worktree", str(elsewhere))
    assert GitRepository.discover(folder).root == folder.resolve()
    work(repository)
    user_git(folder, "config", "core.bare", "true")
    assert repository.head_commit() is not None


def test_descriptors_do_not_grow_over_two_hundred_operations(repository):
    head = repository.head_commit()
    before = len(names_in(Path("/dev/fd")))
    for number in range(100):
        repository.store_blob(b"%d\n" % number)
        repository.ref(CHAMPION)
    assert repository.head_commit() == head
    assert len(names_in(Path("/dev/fd"))) == before


def test_a_git_that_waits_for_a_planted_pipe_is_ended(repository, folder, monkeypatch):
    monkeypatch.setattr("autoresearch_mcp.lab.git._TIMEOUT_SECONDS", 0.3)
    (folder / ".git" / "config").unlink()
    os.mkfifo(folder / ".git" / "config")
    with pytest.raises(GitError, match=r"did not complete in 0\.3 secs"):
        repository.head_commit()
