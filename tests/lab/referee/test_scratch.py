"""A run's folders are gone when its result is written, whatever a candidate made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.lab.referee.scratch import removing


def test_folders_are_removed_meanwhile_and_gone_behind_also_those_that_lock_themselves(tmp_path: Path) -> None:
    locked, missing = tmp_path / "locked", tmp_path / "missing"
    (locked / "inside").mkdir(parents=True)
    (locked / "inside" / "model.pkl").write_bytes(b"weights")
    (locked / "inside").chmod(0o000)
    done = []
    with removing(locked, missing):
        done.append("something else")
    assert done
    assert not locked.exists()


def test_what_the_block_raises_is_raised_and_the_folders_are_gone_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with pytest.raises(OSError, match="full"), removing(folder):
        raise OSError("full")
    assert not folder.exists()
