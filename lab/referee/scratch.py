"""The folder that a candidate may fill: how much lies there, and how it is removed, whatever its depth and permissions."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_BLOCK_BYTES = 4096  # what an empty file or a folder counts for
_REMOVE_SECONDS = 60.0


def folder_bytes(folder: Path, *, limit_bytes: int) -> int:
    """Return what a folder takes on disk, or more than the limit as soon as it is passed; empty files count, too."""
    total, queue = 0, [str(folder)]
    while queue and total <= limit_bytes:
        with suppress(OSError), os.scandir(queue.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += max(_BLOCK_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
                if total > limit_bytes:
                    break
    return total


def remove_folder(folder: Path) -> None:
    """Remove a folder that a candidate has filled; rm copes with depths that Python's own walk does not."""
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["rm", "-rf", "--", str(folder)], capture_output=True, check=False, timeout=_REMOVE_SECONDS)
