"""The SHA-256 of the harness that is installed, for whoever asks often: it is computed again when one of its files changed.

A file counts as unchanged while its path, inode, size and times are the same. Who writes to a file moves its time of change,
which no call can set back. What changed within the last two seconds is read again next time, since two writes can fall into
one tick of the file system's clock. Guarantees: the answer is that of `harness_sha256` on the same files. Does not: replace the
check of the pinned copy before each run, which reads every byte (`pinned_package`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from .referee.harness import PARTS, harness_sha256, package_root

_SETTLED_SECONDS = 2.0

_Stamp = tuple[tuple[str, int, int, int, int], ...]
_known: dict[Path, tuple[_Stamp, str]] = {}  # one root in a server


def installed_harness(root: Path | None = None) -> str:
    """Return the SHA-256 of the harness below ``root``; None: of the running code."""
    root = package_root() if root is None else root
    stamp = tuple(sorted(entry for part in PARTS for entry in _stamps(root / part)))
    known = _known.get(root)
    if known is not None and known[0] == stamp:
        return known[1]
    sha256 = harness_sha256(root)
    if all(changed_ns < time.time_ns() - _SETTLED_SECONDS * 1e9 for *_, changed_ns in stamp):
        _known[root] = (stamp, sha256)
    else:
        _known.pop(root, None)
    return sha256


def _stamps(folder: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield what tells one state of a module from another: path, inode, size, and both times in nanoseconds."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _stamps(Path(entry.path))
            elif entry.name.endswith(".py"):
                facts = entry.stat()
                yield entry.path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
