"""A disk that is full or takes no writes: how it shows in Python, SQLite and git, and the one error that it becomes.

Guarantees: every such failure is a `DiskError` that names the place and what to do. That nothing is half-done is kept by those
who write: files are replaced whole, lines appended whole, the record's transactions undone. Does not: free space, or wait for
it (`referee.room` does, for a run that has a result).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskError, LedgerError

LEAST_FREE_BYTES = 64 << 20  # below it people are warned, and no run starts

_WHAT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
}
_SQLITE = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk is full or fails",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_CANTOPEN": "it cannot be opened",
}
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_GIT = re.compile("|".join(re.escape(os.strerror(number)) for number in _WHAT))  # git runs with LC_ALL=C
_GIT_WITHOUT_REASON = re.compile(r"(couldn't|could not|unable to|cannot) write")  # what it says of a ref's lock file
_FULL_BYTES = 1 << 20  # with less a failed write counts as the disk's, where nothing else says so


def disk_error(place: Path | str, what: str) -> DiskError:
    """Return the error for a write below ``place`` that the disk did not take."""
    again = "Make it writable" if "read-only" in what or "cannot" in what else "Free some space there"
    return DiskError(f"{place}: {what}. Nothing was lost, and nothing is half-done. {again}, then call again.")


def is_about_disk(error: OSError) -> bool:
    """True where a write failed because the disk takes no more, for whatever reason."""
    return _what(error) is not None


def named(error: OSError, path: Path) -> OSError:
    """Return ``error`` with the file that it is about: a failed write names none, one beside it the temporary file."""
    error.filename, error.filename2 = str(path), None
    return error


@contextmanager
def disk_errors_told() -> Iterator[None]:
    """Turn an `OSError` of a disk that takes no more into a `DiskError`, for those who answer people; others pass."""
    try:
        yield
    except OSError as error:
        if (what := _what(error)) is None:
            raise
        raise disk_error(error.filename or "a file", what) from error


@contextmanager
def record_errors_told(path: Path) -> Iterator[None]:
    """The same for SQLite's complaints about the record at ``path``; a damaged one is a `LedgerError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", None) or ""  # none where the module itself raised it
        if name.startswith(_DAMAGED):
            raise LedgerError(
                f"{path} is damaged ({error}). Restore it from a backup, and run `autoresearch verify`."
            ) from error
        what = next((what for start, what in _SQLITE.items() if name.startswith(start)), None)
        if what is None:
            raise
        raise disk_error(path, f"{what} ({error})") from error


def told_by_git(complaint: str, root: Path) -> DiskError | None:
    """Return the error for what git said in ``root``; None: it was about something else."""
    if (found := _GIT.search(complaint)) is not None:
        return disk_error(root, next(what for number, what in _WHAT.items() if os.strerror(number) == found[0]))
    if _GIT_WITHOUT_REASON.search(complaint) and is_full(root):
        return disk_error(root, _WHAT[errno.ENOSPC])
    return None


def free_bytes(folder: Path) -> int:
    """Return how much may still be written to the disk of ``folder``."""
    return shutil.disk_usage(folder).free


def is_full(folder: Path) -> bool:
    """True where a write that failed without a reason failed because the disk of ``folder`` is full."""
    return free_bytes(folder) < _FULL_BYTES


def disk_warning(folder: Path) -> str | None:
    """Return a sentence where the disk of ``folder`` has too little left for a run; None: there is room."""
    free = free_bytes(folder)
    if free >= LEAST_FREE_BYTES:
        return None
    return (
        f"The disk of {folder} has {free >> 20} MB left: no run starts below {LEAST_FREE_BYTES >> 20} MB, and one that has "
        "ended waits to write its result. Nothing is lost; free some space there."
    )


def _what(error: OSError) -> str | None:
    if error.errno is None and error.args and isinstance(error.args[0], list):  # shutil copied a folder in part
        text = str(error)
        return next((what for number, what in _WHAT.items() if os.strerror(number) in text), None)
    return None if error.errno is None else _WHAT.get(error.errno)
