"""What may be a tag, a ref, an object name or a path; everything else is refused before git is asked."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.git import GitRepository, validate_tag

from .users import FILE, TIME, make_repository


@pytest.fixture
def folder(tmp_path):
    """A user's repository with one commit that holds a train.py."""
    return make_repository(tmp_path / "lab")


@pytest.fixture
def repository(folder):
    return GitRepository.discover(folder)


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
