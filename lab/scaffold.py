"""Making a folder a lab: the files that a lab has, where they are missing, and a repository around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from .config import CONFIG_NAME, ProfileName, load_config, new_config, render_config
from .errors import GitError, NotReadyError
from .files import write_atomically
from .git import GitRepository
from .paths import TRAIN_FILE

_PACKAGE = Path(__file__).resolve().parent.parent

_GITIGNORE = "/.autoresearch/\n/progress.png\n/results.tsv\n__pycache__/\n"


def create_lab(
    folder: Path,
    *,
    budget_seconds: float | None = None,
    profile: ProfileName = "cpu",
    also: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Write what is missing of a lab into ``folder`` and return the names; nothing that exists is changed.

    ``also`` holds further files by their names, such as a client's configuration, which this package knows nothing of.

    A new folder becomes a git repository with one commit. In a repository that has commits the new files stay uncommitted,
    for its owner to look at. Raises `NotReadyError` inside another repository's working tree, unless that ignores the folder.
    """
    folder = folder.resolve()
    wanted = {
        CONFIG_NAME: render_config(new_config(budget_seconds=budget_seconds, profile=profile)).encode(),
        "program.md": (_PACKAGE / "program.md").read_bytes(),
        "AGENTS.md": (_PACKAGE / "AGENTS.md").read_bytes(),
        TRAIN_FILE: (_PACKAGE / "trainer" / "train.py").read_bytes(),
        **(also or {}),
        ".gitignore": _GITIGNORE.encode(),
    }
    git = _repository(folder)
    made = []
    for name, content in wanted.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content, beneath=folder)
            made.append(name)
    load_config(folder / CONFIG_NAME)  # an existing file that is broken is told now
    if git.head_commit() is None:
        files = {name: (folder / name).read_bytes() for name in wanted}
        git.initial_commit(files, "A lab, made by autoresearch init\n", int(time.time()))
    return made


def _repository(folder: Path) -> GitRepository:
    """Return the repository whose top is ``folder``, creating it where that hides nothing from another one."""
    if (folder / ".git").exists():
        return GitRepository.discover(folder)
    try:
        around = GitRepository.discover(folder)
    except GitError:
        return GitRepository.create(folder)
    if not around.is_ignored(folder.relative_to(around.root).as_posix()):
        raise NotReadyError(
            f"{folder} lies inside the repository {around.root}, and a lab is a repository of its own. "
            f"Run `autoresearch init {around.root}`, or choose a folder that git ignores or that lies outside."
        )
    return GitRepository.create(folder)
