"""The installed harness is hashed again when, and only when, a file of it changed, however it was changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from autoresearch_mcp.lab import installed
from autoresearch_mcp.lab.installed import installed_harness
from autoresearch_mcp.lab.referee.harness import harness_sha256


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small harness, all of whose files count as settled."""
    for name in ("lab/rules.py", "lab/referee/runner.py", "prepare/corpus.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    monkeypatch.setattr(installed, "_SETTLED_SECONDS", 0.0)
    return tmp_path


def test_what_did_not_change_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = installed_harness(root)
    assert first == harness_sha256(root)
    monkeypatch.setattr(installed, "harness_sha256", lambda _: pytest.fail("it was read again"))
    assert installed_harness(root) == first


def test_bytes_changed_in_place_with_the_size_and_the_time_set_back_are_seen(root: Path) -> None:
    before, path = installed_harness(root), root / "lab" / "referee" / "runner.py"
    facts = path.stat()
    content = path.read_bytes()
    path.write_bytes(b"%" + content[1:])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    assert installed_harness(root) == harness_sha256(root) != before


@pytest.mark.parametrize("change", ["new", "gone", "moved"])
def test_a_file_that_came_went_or_moved_is_seen(root: Path, change: str) -> None:
    before, path = installed_harness(root), root / "lab" / "rules.py"
    if change == "new":
        (root / "prepare" / "more.py").write_text("")
    elif change == "gone":
        path.unlink()
    else:
        path.rename(root / "lab" / "laws.py")
    assert installed_harness(root) == harness_sha256(root) != before


def test_what_changed_a_moment_ago_is_read_again_next_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_SETTLED_SECONDS", 3600.0)
    read = []
    monkeypatch.setattr(installed, "harness_sha256", lambda where: read.append(where) or str(time.monotonic_ns()))
    assert installed_harness(root) != installed_harness(root)
    assert len(read) == 2
