"""What a writer that was killed leaves beside a file: the next writer of that file removes it, and nothing else."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autoresearch_mcp.lab.files import write_atomically


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    dead, living = tmp_path / f".train.py.{'0' * 16}.tmp", tmp_path / f".train.py.{'1' * 16}.tmp"
    others = [tmp_path / ".train.py.swp", tmp_path / ".train.py.notes.tmp", tmp_path / f".other.py.{'0' * 16}.tmp"]
    for path in (dead, living, *others):
        path.write_bytes(b"half of it")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_atomically(file, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([file, living, *others])
    assert file.read_bytes() == b"whole"


def test_writers_of_one_file_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    contents = [bytes([65 + writer]) * 4096 for writer in range(4)]

    def write(content: bytes) -> None:
        for _ in range(200):
            write_atomically(tmp_path / "train.py", content, durable=False)

    with ThreadPoolExecutor(len(contents)) as writers:
        list(writers.map(write, contents))
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
    assert (tmp_path / "train.py").read_bytes() in contents


def test_what_only_has_such_a_name_stops_nobody(tmp_path: Path) -> None:
    pipe, link, folder = (tmp_path / f".train.py.{digit * 16}.tmp" for digit in "abc")
    os.mkfifo(pipe)
    (tmp_path / "target").write_bytes(b"mine")
    link.symlink_to(tmp_path / "target")
    folder.mkdir()
    write_atomically(tmp_path / "train.py", b"whole")
    assert (tmp_path / "train.py").read_bytes() == b"whole"
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert link.is_symlink()
