"""The one place that runs git: fixed plumbing commands in a repository that an agent can write to.

Everything in ``.git`` may have been planted, so git is reached through GitPython's ``Git.execute`` with an environment
rebuilt from nothing and options that outrank ``.git/config``.

Guarantees: no hook, filter, fsmonitor, alias, pager, signing program, transport or helper named there is executed, as long
as callers use plumbing that reads no working tree; bytes go in and out unchanged; git ends after a minute at the latest,
and nothing of it (process, descriptor, temporary file) is left between calls.

Does not: check what callers pass; `git_names` does.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from .disk import named, told_by_git
from .errors import GitError

# Far above any honest duration: it ends a git that waits for a pipe which somebody put into .git.
_TIMEOUT_SECONDS = 60

_IDENTITY = ("autoresearch", "autoresearch@localhost")

_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    # Outranks protocol.<name>.allow in .git/config, which protocol.allow does not: a partial clone whose remote is
    # "ext::<command>" would otherwise run that command to fetch a missing object.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_AUTHOR_NAME": _IDENTITY[0],
    "GIT_AUTHOR_EMAIL": _IDENTITY[1],
    "GIT_COMMITTER_NAME": _IDENTITY[0],
    "GIT_COMMITTER_EMAIL": _IDENTITY[1],
}

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=committed",
    "core.fsyncMethod=fsync",
    "core.splitIndex=false",
    "core.untrackedCache=false",
    "core.sparseCheckout=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "i18n.commitEncoding=UTF-8",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a git command said."""

    status: int
    stdout: bytes
    complaint: str

    @property
    def line(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def run_git(
    folder: Path,
    *arguments: str,
    git_dir: Path | None,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    accept: tuple[int, ...] = (0,),
) -> Answer:
    """Run one git command in ``folder``; a status outside ``accept`` raises ``GitError`` with git's own words.

    A disk that takes nothing is a ``DiskError``, whatever is accepted.

    Args:
        folder: the current folder of git, and the working tree of ``git_dir``.
        arguments: the command and its options, all of them fixed or checked.
        git_dir: the repository (a ``.git`` folder or file); None: the command needs none, or finds it by itself.
        stdin: what git reads; None: nothing.
        environment: variables beside the fixed ones.
        accept: the statuses that are answers.
    """
    env_program, git_program = _programs()
    try:
        # Takes 0.2 s and runs `git version`, so it waits until git is needed.
        from git.cmd import Git
    except ImportError as error:
        raise GitError(f"GitPython could not be loaded ({error}): repair the installation with `make setup`")
    # GitPython merges os.environ into whatever it is given; `env -i` is the only way to drop what was inherited.
    command = [env_program, "-i"]
    command += [f"{key}={value}" for key, value in {**_ENVIRONMENT, **(environment or {})}.items()]
    command += [git_program, "--no-pager", "--no-replace-objects"]
    for setting in (*_SETTINGS, f"safe.directory={folder}"):
        command += ["-c", setting]
    if git_dir is not None:
        # Both are given, because core.worktree and core.bare in .git/config could point elsewhere.
        command += [f"--git-dir={git_dir}", f"--work-tree={folder}"]
    with tempfile.TemporaryFile() if stdin else nullcontext() as stream:
        if stream is not None and stdin is not None:
            try:
                stream.write(stdin)
                stream.seek(0)
            except OSError as error:
                raise named(error, Path(tempfile.gettempdir()))
        status, stdout, complaint = Git(str(folder)).execute(
            [*command, *arguments],
            istream=stream,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            shell=False,
            kill_after_timeout=_TIMEOUT_SECONDS,
        )
    if status != 0 and (full := told_by_git(complaint, folder)) is not None:
        raise full
    if status not in accept:
        reason = complaint.strip() or f"it ended with status {status}"
        if "promisor" in reason:
            reason += f". It is a partial clone, and nothing is fetched here: run `git -C {folder} fetch --refetch --no-filter`"
        raise GitError(f"git {arguments[0]} failed in {folder}: {reason}")
    return Answer(status=status, stdout=stdout, complaint=complaint.strip())


@functools.cache
def _programs() -> tuple[str, str]:
    """Return the full paths of ``env`` and ``git``."""
    paths = (shutil.which("env"), shutil.which("git"))
    if paths[0] is None or paths[1] is None:
        raise GitError("git is not installed (or not on PATH): install it, for example with your package manager")
    return paths[0], paths[1]
