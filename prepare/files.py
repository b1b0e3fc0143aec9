"""Files that are either whole or absent: hashing, atomic writes, and a lock between processes.

Guarantees: a file written by `write_atomically` is complete and on disk before its name exists. The lock belongs to an open
file and is dropped by the kernel when its holder dies, so there are no stale locks. Not covered: network file systems
whose `flock` does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mapped_files(pid: int | str = "self") -> tuple[str, ...]:
    """Return the files that a process has mapped into its memory, such as its libraries (Linux).

    Raises `OSError` where that is hidden.
    """
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return tuple(sorted({line.split(maxsplit=5)[5] for line in lines if "/" in line}))


def flush_to_disk(file: BinaryIO) -> None:
    """Return only when the bytes written to ``file`` would survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Return only when the names in the folder ``path`` would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            flush_to_disk(file)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    flush_directory(path.parent)


@contextmanager
def exclusive_lock(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` (made when missing, never deleted) while the body runs; wait for another holder.

    Args:
        on_wait: called once, before waiting, when another process or thread holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
