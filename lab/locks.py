"""Locks between processes that vanish with their holder (flock). The file says who took it last, for people."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def open_lock(path: Path) -> int:
    """Return a descriptor of the lock file, made when missing; on a read-only disk, of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path if path.exists() else path.parent, os.O_RDONLY | os.O_CLOEXEC)  # a lock needs no writing


def try_lock(path: Path) -> int | None:
    """Take the lock and return the descriptor that holds it, or None when somebody else does."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    with suppress(OSError):  # a full disk
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def stopped_holder(path: Path) -> int | None:
    """Return the process that holds the lock, where it is stopped (as by Ctrl-Z) and will not let go by itself."""
    with locked_if_free(path) as free:
        if free:
            return None
    try:
        process = psutil.Process(int(path.read_text()))
        return process.pid if process.status() == psutil.STATUS_STOPPED else None
    except (OSError, ValueError, psutil.Error):
        return None


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock for a block; yields False, at once, when somebody else holds it."""
    fd = try_lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)
