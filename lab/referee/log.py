"""The candidate's output, kept within a limit: its beginning as it comes, and its end, where a traceback is.

A full disk ends no run: what it does not take counts as left out, and the end is written once the candidate's files are gone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TAIL_BYTES = 16_384
_CHUNK_BYTES = 65_536


class CappedLog:
    """Reads a non-blocking pipe into a file of at most ``limit_bytes`` plus the tail."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._file = path.open("wb", buffering=0)
        self._room = limit_bytes
        self._tail = b""
        self.total_bytes = 0

    def read_from(self, fd: int) -> bool:
        """Take what the pipe holds, a bounded amount for each call; False at its end."""
        for _ in range(16):
            try:
                chunk = os.read(fd, _CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._add(chunk)
        return True

    def close(self) -> None:
        """Append the tail that did not fit, and say what is missing."""
        if self._file.closed:
            return
        if self._tail:
            missing = self.total_bytes - self._file.tell() - len(self._tail)
            gap = f"\n... {missing} bytes left out ...\n".encode() if missing else b""
            self._write(gap + self._tail)
        self._file.close()

    def _add(self, chunk: bytes) -> None:
        self.total_bytes += len(chunk)
        kept = self._write(chunk[: self._room])
        self._room = 0 if kept < min(len(chunk), self._room) else self._room - kept
        if rest := chunk[kept:]:
            self._tail = (self._tail + rest)[-_TAIL_BYTES:]

    def _write(self, data: bytes) -> int:
        """Write as much as the disk takes; return how many bytes that was."""
        written = 0
        with suppress(OSError):
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        return written
