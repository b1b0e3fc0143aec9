"""Three-way merges of one file's bytes, outside of every repository.

`git merge-file` runs in a temporary folder, so no configuration, attribute or merge driver of a lab is read. Guarantees:
bytes outside of the merged places stay exact, line endings included; equal arguments give the equal answer.

Does not: know what a merge means for an experiment, or resolve a conflict.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import GitError
from .git_command import run_git

_MOST_CONFLICTS = 127  # git counts no further


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """A merged text; where ``conflicts`` (127: or more) is not 0, with both sides between diff3's markers."""

    content: bytes
    conflicts: int


def merge_file(base: bytes, ours: bytes, theirs: bytes, *, labels: tuple[str, str, str] = ("base", "ours", "theirs")) -> Merge:
    """Apply the change from ``base`` to ``theirs`` onto ``ours``; ``labels`` name the three at conflict markers.

    Raises:
        GitError: one of the three is binary (holds a zero byte near its start), so lines cannot be merged.
    """
    sides = dict(zip(("base", "ours", "theirs"), (base, ours, theirs), strict=True))
    if ours in (base, theirs) or theirs == base:  # also for what git calls binary
        return Merge(content=theirs if ours == base else ours, conflicts=0)
    names = dict(zip(sides, map(_label, labels), strict=True))
    with tempfile.TemporaryDirectory(prefix="autoresearch-merge-") as name:
        folder = Path(name).resolve()
        for side, content in sides.items():
            (folder / side).write_bytes(content)
        order = ("ours", "base", "theirs")
        answer = run_git(
            folder,
            *("merge-file", "--quiet", "--stdout", "--diff3"),
            *(word for side in order for word in ("-L", names[side])),
            *order,
            git_dir=None,
            # Keeps git from a repository that the folder of temporary files may lie in.
            environment={"GIT_CEILING_DIRECTORIES": str(folder.parent)},
            accept=(*range(_MOST_CONFLICTS + 1), 255),
        )
    if answer.status == 255:
        reason = answer.complaint or "one of the versions is binary"
        raise GitError(f"The three versions cannot be merged ({reason}): repeat the change by hand.")
    return Merge(content=answer.stdout, conflicts=answer.status)


def _label(text: str) -> str:
    """Return ``text`` as one printable line."""
    return "".join(character if character.isprintable() else " " for character in text)
