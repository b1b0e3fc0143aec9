"""Waiting for room: as long as the disk is full, and no longer."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from autoresearch_mcp.lab.paths import RunPaths
from autoresearch_mcp.lab.referee.room import when_there_is_room


class Writing:
    """Fails as a full disk does, a number of times, and does something each time."""

    def __init__(self, failures: int, number: int = errno.ENOSPC) -> None:
        self.left, self.number, self.calls = failures, number, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise OSError(self.number, "no")
        return "written"


def test_it_is_written_as_soon_as_the_disk_takes_it(tmp_path: Path) -> None:
    writing = Writing(1)
    assert when_there_is_room(RunPaths(tmp_path), writing) == "written"
    assert writing.calls == 2


def test_a_cancelled_run_does_not_wait(tmp_path: Path) -> None:
    paths, writing = RunPaths(tmp_path), Writing(1_000)
    paths.cancel.touch()
    with pytest.raises(OSError, match="no"):
        when_there_is_room(paths, writing)
    assert writing.calls == 1


def test_the_wait_has_an_end_and_other_errors_none(tmp_path: Path) -> None:
    for writing, limit in ((Writing(1_000), 0.0), (Writing(1_000, errno.EACCES), 3600.0)):
        with pytest.raises(OSError, match="no"):
            when_there_is_room(RunPaths(tmp_path), writing, limit_seconds=limit)
        assert writing.calls == 1
