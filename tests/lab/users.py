"""What a user, or an agent, does to a repository with the real git, in a clean environment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from autoresearch_mcp.lab.git import GitRepository
from autoresearch_mcp.lab.merging import merge_file

FILE = "trainer/train.py"
CHAMPION = "refs/heads/autoresearch/oct5"
IDEA = "refs/autoresearch/oct5/e0001"
TIME = 1_760_000_000
WORKTREE = ".autoresearch/worktrees/alice"

ENVIRONMENT = {
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

HOOKS = (
    "reference-transaction",
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "post-checkout",
    "post-merge",
    "post-index-change",
    "post-rewrite",
    "pre-auto-gc",
    "fsmonitor-watchman",
    "update",
    "pre-push",
)


def user_git(folder: Path, *arguments: str) -> str:
    """Run git as the user would; a failure is an error of the test."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(root: Path) -> Path:
    """Make a user's repository with one commit that holds a train.py."""
    (root / "trainer").mkdir(parents=True)
    (root / FILE).write_bytes(b"DEPTH = 4\n")
    (root / "notes.txt").write_text("mine\n")
    user_git(root, "init", "-q", "--template=", "-b", "main")
    user_git(root, "add", ".")
    user_git(root, "commit", "-q", "-m", "first")
    return root


def work(repository: GitRepository) -> str:
    """Every operation of a lab once; returns the champion."""
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
    repository.head_branch()
    worktree = repository.root / WORKTREE
    for _ in range(2):
        repository.add_worktree(worktree, commit)
        assert (worktree / FILE).read_bytes() == b"x = 1\r\n"
        shutil.rmtree(worktree)
    repository.add_worktree(worktree, commit)
    repository.add_worktree(worktree, commit)
    assert GitRepository.discover(worktree).head_commit() == commit
    assert merge_file(b"a\nb\n", b"a\nB\n", b"a\nb\nc\n").conflicts == 1
    return commit


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def private_state(root: Path, *, but: str = "") -> dict[str, str]:
    """Every file of the working tree but one, the index, HEAD and the configuration, by digest."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != ".autoresearch"]
    paths = [path for path in paths if ".git" not in path.relative_to(root).parts and path != root / but]
    git_dir = Path(user_git(root, "rev-parse", "--absolute-git-dir"))
    paths += [path for name in ("HEAD", "index", "config") if (path := git_dir / name).exists()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _setting(item: tuple[str, str]) -> str:
    section, _, key = item[0].rpartition(".")
    name, _, inner = section.partition(".")
    title = f'{name} "{inner}"' if inner else name
    return f"[{title}]\n\t{key} = {json.dumps(item[1])}\n"


def plant(folder: Path, markers: Path, *, in_worktrees: bool = False) -> None:
    """Put a program that leaves a marker wherever git's configuration can name one.

    ``in_worktrees``: into the configuration of single worktrees (config.worktree) where there is such a thing.
    """
    markers.mkdir()
    programs = markers.parent / f"{markers.name}-programs"
    programs.mkdir()

    def program(name: str) -> str:
        path = programs / name
        path.write_text(f"#!/bin/sh\ntouch '{markers / name}'\nexit 0\n")
        path.chmod(0o755)
        return str(path)

    common = folder / ".git"
    (common / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        shutil.copy(program(f"hook-{name}"), common / "hooks" / name)
    settings = {
        "core.hooksPath": str(common / "hooks"),
        "core.fsmonitor": program("fsmonitor"),
        "core.pager": program("pager"),
        "core.editor": program("editor"),
        "core.askPass": program("askpass"),
        "core.sshCommand": program("ssh"),
        "core.gitProxy": program("proxy"),
        "core.alternateRefsCommand": program("alternates"),
        "credential.helper": "!" + program("credential"),
        "filter.planted.process": program("process"),
        "filter.simple.clean": program("clean"),
        "filter.simple.smudge": program("smudge"),
        "diff.external": program("diff"),
        "diff.shown.textconv": program("textconv"),
        "diff.planted.command": program("diff-command"),
        "merge.planted.driver": program("merge"),
        "merge.default": "planted",
        "gpg.program": program("gpg"),
        "gpg.ssh.program": program("gpg-ssh"),
        "commit.gpgSign": "true",
        "tag.gpgSign": "true",
        "log.showSignature": "true",
        "remote.origin.url": f"ext::{program('ext')}",
        "remote.origin.uploadpack": program("uploadpack"),
        "remote.origin.vcs": "planted",
        "protocol.allow": "always",
        "gc.auto": "1",
        "maintenance.auto": "true",
        "core.useReplaceRefs": "true",
        "core.splitIndex": "true",
        "core.untrackedCache": "true",
        "core.logAllRefUpdates": "always",
        "core.autocrlf": "true",
        "core.eol": "crlf",
        "trace2.eventTarget": str(markers / "trace"),
    }
    for command in ("update-ref", "commit-tree", "cat-file", "rev-parse", "ls-tree", "mktree", "hash-object", "init"):
        settings[f"alias.{command}"] = "!" + program(f"alias-{command}")
        settings[f"pager.{command}"] = program(f"pager-{command}")
    for command in ("read-tree", "symbolic-ref", "for-each-ref", "check-ignore", "merge-file"):
        settings[f"alias.{command}"] = "!" + program(f"alias-{command}")
    included = markers.parent / f"{markers.name}-included"
    config = common / "config.worktree" if in_worktrees else included
    config.write_text("".join(map(_setting, settings.items())))
    if in_worktrees:
        user_git(folder, "config", "core.repositoryFormatVersion", "1")
        user_git(folder, "config", "extensions.worktreeConfig", "true")
        for entry in (common / "worktrees").glob("*"):
            shutil.copy(config, entry / "config.worktree")
    else:
        user_git(folder, "-c", "core.hooksPath=/dev/null", "config", "include.path", str(included))
    attributes = "* filter=planted diff=planted merge=planted text\n*.py filter=simple diff=shown\n"
    (folder / ".gitattributes").write_text(attributes)
    (common / "info").mkdir(exist_ok=True)
    (common / "info" / "attributes").write_text(attributes)
