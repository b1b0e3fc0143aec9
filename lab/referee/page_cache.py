"""Making what a process may read equally fast to read, whoever read it before.

The bulk process knows the true tokens. After it is gone, which pages of a file are still in memory could tell the audit process
what it knew, read off by timing: 2 kbit/s were measured. So between the two everything that the audit process can read is
brought into memory. Guarantees nothing where memory is short, or on a GPU, where a scoring process may read far more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def warm(paths: Iterable[str]) -> None:
    """Bring every regular file at or below ``paths`` into memory; follows no links, and passes over what cannot be read."""
    for path in _files(paths):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        for folder, _, names in os.walk(path):
            for name in names:
                yield f"{folder}/{name}"
