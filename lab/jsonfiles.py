"""JSON files that another process may be reading: a file is written whole or not at all, a line appended whole or not at all.

A write that fails leaves what was there, and nothing beside it. Does not: wait for room (`referee.room`), or lock.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .files import write_atomically


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace ``path`` atomically; ``durable`` also waits for the disk. Raises as `write_atomically` does."""
    write_atomically(path, json.dumps(value, allow_nan=False).encode(), durable=durable)


def read_json(path: Path) -> Any:
    """Return the value of a file, or None where there is none yet."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


class JsonLines:
    """Appends JSON lines to a file; one that the disk does not take is dropped and counted, and leaves no part of itself."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.dropped = 0

    def append(self, value: Any) -> None:
        """Append one line, whole or not at all; never raises for the disk's sake."""
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) == len(line):
                return
        except OSError:
            pass
        self.dropped += 1
        self._file.truncate(end)

    def close(self) -> None:
        self._file.close()
