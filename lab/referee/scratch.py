"""The folder that a candidate may fill: how much lies there, and how it is removed, whatever its depth and permissions.

What cannot be measured counts as more than any limit: folders that are closed to their owner, or nested deeper than a path can
name. Not seen here: files without a name (see `ProcessTree.deleted_bytes`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BLOCK_BYTES = 4096  # what an empty file or a folder counts for
_MAX_DEPTH = 100  # below what a path can name, and what an honest run does not come near
_LEAST_FREE_BYTES = 256 << 20
_REMOVE_SECONDS = 60.0


class _TooMuchError(Exception):
    """More than the limit lies there, or it cannot be told."""


def folder_bytes(folder: Path, *, limit_bytes: int) -> int:
    """Return what a folder takes on disk, or more than the limit as soon as it is passed; empty files count, too."""
    try:
        return _bytes_below(str(folder), None, limit_bytes, _MAX_DEPTH)
    except _TooMuchError:
        return limit_bytes + 1


def is_disk_full(folder: Path) -> bool:
    """Say whether the disk of ``folder`` has so little left that others would suffer."""
    return shutil.disk_usage(folder).free < _LEAST_FREE_BYTES


@contextmanager
def removing(*folders: Path) -> Iterator[None]:
    """Have folders removed while the block does something else; they are gone behind it, as `remove_folder` leaves them."""
    rm = subprocess.Popen(["rm", "-rf", "--", *map(str, folders)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            rm.wait(_REMOVE_SECONDS)
        for folder in folders:
            remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder that a candidate has filled; rm copes with depths that Python's own walk does not."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if not os.path.lexists(folder):
            return
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*command, "--", str(folder)], capture_output=True, check=False, timeout=_REMOVE_SECONDS)


def _bytes_below(name: str, parent_fd: int | None, room_bytes: int, depth: int) -> int:
    """Return what lies in the folder ``name`` of ``parent_fd``; by descriptors, so it follows nothing swapped for a link."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except PermissionError:
        raise _TooMuchError from None
    except OSError:  # gone, or no folder any more
        return 0
    total = 0
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += max(_BLOCK_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
                if entry.is_dir(follow_symlinks=False):
                    if depth == 0:
                        raise _TooMuchError
                    total += _bytes_below(entry.name, fd, room_bytes - total, depth - 1)
                if total > room_bytes:
                    raise _TooMuchError
    except PermissionError:  # a folder that may be read and not entered
        raise _TooMuchError from None
    except OSError:  # it went away meanwhile
        pass
    finally:
        os.close(fd)
    return total
