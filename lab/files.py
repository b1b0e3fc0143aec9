"""Reading and writing single files in folders that an agent controls.

Guarantees: a read follows no symbolic link below ``root``, never blocks on a pipe or a device, and never returns more
than its limit; a write is seen whole or not at all, survives a power cut, and replaces a symbolic link instead of
following it. The folder of the file is opened once and everything happens relative to it, so a folder that is swapped
for a link half-way changes nothing.

Does not: lock. Two writers of one path leave the bytes of one of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .disk import named
from .errors import CandidateError

SETTLED_SECONDS = 0.02  # a file that has not changed for this long is not half-written
_RESTLESS_SECONDS = 2.0
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_regular_file(root: Path, relative: str, limit_bytes: int) -> bytes:
    """Return the bytes of ``root/relative``, which must be an ordinary file with a single name.

    Args:
        root: an existing folder; it may itself be reached through links.
        relative: a POSIX path below it, without ``..``.
        limit_bytes: the most that the file may hold.

    Raises:
        CandidateError: the file is missing, unreadable or too large, is not a regular file, has a second hard link, or
            one of the components below ``root`` is a symbolic link.
        ValueError: ``relative`` is not a plain relative path.
    """
    *folders, name = _components(relative)
    with _opened_folder(root, folders, relative) as folder:
        try:
            # O_NONBLOCK: opening a pipe would otherwise wait for a writer that never comes.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise _refusal(folder, name, relative, error)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise CandidateError(f"{relative} is not a regular file: put a plain file there and try again")
            if facts.st_nlink != 1:
                raise CandidateError(
                    f"{relative} has {facts.st_nlink} hard links, so its bytes can change under another name: "
                    "replace it with a copy of its own and try again"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    if len(data) > limit_bytes:
        size_bytes = max(facts.st_size, len(data))
        raise CandidateError(f"{relative} has {size_bytes} bytes; the limit is {limit_bytes}: shorten it and try again")
    return data


def read_settled_file(root: Path, relative: str, limit_bytes: int, *, settled_seconds: float = SETTLED_SECONDS) -> bytes:
    """Like `read_regular_file`, of a file that an editor may be writing at this moment: not half of what it writes.

    A file that was changed within the last ``settled_seconds`` is read again until it rests. An editor that pauses longer in
    the middle of writing is not noticed; half a file has no call of evaluate_bpb at its end, and is refused for that.

    Raises:
        CandidateError: also, that it does not come to rest.
    """
    deadline = time.monotonic() + _RESTLESS_SECONDS
    while True:
        before = _changed_at_ns(root / relative)
        data = read_regular_file(root, relative, limit_bytes)
        age_seconds = abs(time.time_ns() - before) / 1e9  # abs: the clock may have been set back
        if before == _changed_at_ns(root / relative) and age_seconds > settled_seconds:
            return data
        if time.monotonic() > deadline:
            raise CandidateError(f"{relative} is being written all the time: try again once it is saved")
        time.sleep(settled_seconds)


def write_atomically(path: Path, data: bytes, mode: int = 0o644, *, beneath: Path | None = None, durable: bool = True) -> None:
    """Make ``path`` a regular file with exactly ``data``, by way of a temporary file beside it.

    Args:
        path: the file; its folder must exist. A symbolic link at ``path`` is replaced, its target is left alone.
        data: the whole content.
        mode: permission bits, applied whatever the umask is.
        beneath: a folder above ``path``; no folder between the two may be a symbolic link. Give it wherever an agent
            owns the folders. Default: only the last component is guarded.
        durable: wait for the disk; without it a power cut may leave the old content, or none.

    Raises:
        CandidateError: with ``beneath``, a folder on the way is missing or is a symbolic link.
        ValueError: ``path`` does not lie beneath ``beneath``.
        OSError: the folder is missing, the disk is full (the error names ``path``), or ``path`` is a folder. ``path`` is
            then as it was.
    """
    root = path.parent if beneath is None else beneath
    relative = path.relative_to(root).as_posix()
    *folders, name = _components(relative)
    with _opened_folder(root, folders, relative) as folder:
        try:
            _replace(folder, name, data, mode, durable=durable)
        except OSError as error:
            raise named(error, path)


def _replace(folder: int, name: str, data: bytes, mode: int, *, durable: bool) -> None:
    _remove_abandoned(folder, name)
    temporary, descriptor = _open_temporary(folder, name, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(descriptor)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)  # while it is locked, or it looks abandoned
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)


def _open_temporary(folder: int, name: str, mode: int) -> tuple[str, int]:
    """Make a temporary file beside ``name`` and lock it, which says that its writer lives."""
    while True:
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode, dir_fd=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another writer removed it before it was locked


def _remove_abandoned(folder: int, name: str) -> None:
    """Remove the temporary files of writers of ``name`` that were killed."""
    for entry in os.listdir(folder):
        if re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp", entry):
            with contextlib.suppress(OSError):  # a living writer's is locked; a link or a closed file is not one of ours
                descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry, dir_fd=folder)
                finally:
                    os.close(descriptor)


def _changed_at_ns(path: Path) -> int:
    """Return when the file was changed; 0 where there is none, which reading it says better."""
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _components(relative: str) -> tuple[str, ...]:
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in relative:
        raise ValueError(f"not a relative path without '..': {relative!r}")
    return parts


@contextlib.contextmanager
def _opened_folder(root: Path, folders: list[str], relative: str) -> Iterator[int]:
    """Yield a descriptor of ``root/folders``, opened one component at a time without following links."""
    descriptor = os.open(root, _FOLDER_FLAGS)
    try:
        for name in folders:
            try:
                inner = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                raise _refusal(descriptor, name, relative, error)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _refusal(folder: int, name: str, relative: str, error: OSError) -> CandidateError:
    """Say why ``name`` could not be opened; the kernel's own code does not tell a link from a file in the way."""
    where = relative if relative.endswith(name) else f"{name} on the way to {relative}"
    try:
        facts = os.lstat(name, dir_fd=folder)
    except OSError:
        return CandidateError(f"{relative} does not exist ({name} is missing): restore it and try again")
    if stat.S_ISLNK(facts.st_mode):
        return CandidateError(f"{where} is a symbolic link: replace it with a real file or folder and try again")
    return CandidateError(f"{where} cannot be opened ({error.strerror}): make it readable and try again")
