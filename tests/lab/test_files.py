import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.files import read_regular_file, read_settled_file, sha256_hex, write_atomically

NAME = "trainer/train.py"


@pytest.fixture
def lab(tmp_path):
    root = tmp_path / "lab"
    (root / "trainer").mkdir(parents=True)
    (root / NAME).write_bytes(b"print(1)\r\n")
    return root


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def open_descriptors():
    return len(list(Path("/dev/fd").iterdir()))


def test_a_regular_file_is_read_byte_for_byte(lab):
    assert read_regular_file(lab, NAME, 100) == b"print(1)\r\n"


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(lab):
    assert len(read_regular_file(lab, NAME, 10)) == 10
    with pytest.raises(CandidateError, match=r"trainer/train.py has 10 bytes; the limit is 9"):
        read_regular_file(lab, NAME, 9)


def test_a_missing_file_and_a_missing_folder_are_refused(lab):
    with pytest.raises(CandidateError, match=r"trainer/other.py does not exist"):
        read_regular_file(lab, "trainer/other.py", 100)
    with pytest.raises(CandidateError, match="nowhere is missing"):
        read_regular_file(lab, "nowhere/train.py", 100)


def test_a_symbolic_link_to_a_file_is_refused(lab, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    (lab / NAME).unlink()
    (lab / NAME).symlink_to(secret)
    with pytest.raises(CandidateError, match=r"trainer/train.py is a symbolic link"):
        read_regular_file(lab, NAME, 100)


def test_a_dangling_symbolic_link_is_called_a_link(lab):
    (lab / NAME).unlink()
    (lab / NAME).symlink_to("nowhere")
    with pytest.raises(CandidateError, match="symbolic link"):
        read_regular_file(lab, NAME, 100)


def test_a_symbolic_link_on_the_way_is_refused(lab):
    (lab / "trainer").rename(lab / "real")
    (lab / "trainer").symlink_to("real")
    with pytest.raises(CandidateError, match=r"trainer on the way to trainer/train.py is a symbolic link"):
        read_regular_file(lab, NAME, 100)


def test_a_root_behind_a_link_is_fine(lab, tmp_path):
    (tmp_path / "link").symlink_to(lab)
    assert read_regular_file(tmp_path / "link", NAME, 100)


def test_a_second_hard_link_is_refused(lab):
    os.link(lab / NAME, lab / "other")
    with pytest.raises(CandidateError, match="2 hard links"):
        read_regular_file(lab, NAME, 100)


def test_a_pipe_a_socket_a_folder_and_a_device_are_refused_without_waiting(lab, monkeypatch):
    path = lab / NAME
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CandidateError, match="not a regular file"):
        read_regular_file(lab, NAME, 100)
    path.unlink()
    path.mkdir()
    with pytest.raises(CandidateError, match="not a regular file"):
        read_regular_file(lab, NAME, 100)
    path.rmdir()
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("train.py")
        with pytest.raises(CandidateError, match=r"cannot be opened"):
            read_regular_file(lab, NAME, 100)


def test_a_file_in_the_place_of_a_folder_is_refused(lab):
    with pytest.raises(CandidateError, match="cannot be opened"):
        read_regular_file(lab, NAME + "/inner.py", 100)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../lab/trainer/train.py", "a/../b", "a\0b"])
def test_a_path_that_could_leave_the_root_is_a_programming_error(lab, path):
    with pytest.raises(ValueError, match="relative path"):
        read_regular_file(lab, path, 100)


def test_reading_leaves_no_descriptor_open(lab):
    before = open_descriptors()
    for path in (NAME, "trainer/none", "none/none", "trainer"):
        for _ in range(20):
            try:
                read_regular_file(lab, path, 100)
            except CandidateError:
                continue
    assert open_descriptors() == before


def test_a_write_replaces_the_content_sets_the_mode_and_leaves_nothing_else(lab):
    write_atomically(lab / NAME, b"new\r\n", mode=0o600)
    assert (lab / NAME).read_bytes() == b"new\r\n"
    assert stat.S_IMODE((lab / NAME).stat().st_mode) == 0o600
    assert names_in(lab / "trainer") == ["train.py"]


def test_the_mode_does_not_depend_on_the_umask(lab):
    old = os.umask(0o077)
    try:
        write_atomically(lab / "fresh", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((lab / "fresh").stat().st_mode) == 0o644


def test_a_write_replaces_a_link_and_leaves_its_target_alone(lab, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (lab / NAME).unlink()
    (lab / NAME).symlink_to(target)
    write_atomically(lab / NAME, b"new")
    assert target.read_bytes() == b"precious"
    assert not (lab / NAME).is_symlink()
    assert (lab / NAME).read_bytes() == b"new"


def test_a_write_to_a_hard_link_leaves_the_other_name_alone(lab):
    os.link(lab / NAME, lab / "other")
    write_atomically(lab / NAME, b"new")
    assert (lab / "other").read_bytes() == b"print(1)\r\n"


def test_a_write_beneath_a_root_refuses_a_linked_folder(lab, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (lab / NAME).unlink()
    (lab / "trainer").rmdir()
    (lab / "trainer").symlink_to(outside)
    with pytest.raises(CandidateError, match="symbolic link"):
        write_atomically(lab / NAME, b"evil", beneath=lab)
    assert names_in(outside) == []


def test_a_write_beneath_a_root_refuses_a_path_outside_it(lab, tmp_path):
    with pytest.raises(ValueError, match="subpath"):
        write_atomically(tmp_path / "elsewhere", b"", beneath=lab)


def test_a_failed_write_leaves_the_old_state_and_no_temporary_file(lab):
    (lab / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(lab / "folder", b"data")
    assert names_in(lab) == ["folder", "trainer"]
    with pytest.raises(FileNotFoundError):
        write_atomically(lab / "nowhere" / "file", b"data")


def test_the_digest_is_sha_256():
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_that_is_being_written_is_not_read_half(lab, monkeypatch):
    half, whole = b"print(1)\nprint", b"print(1)\nprint(2)\n"
    rest = time.sleep

    def the_editor_goes_on(seconds):
        (lab / NAME).write_bytes(whole)
        rest(seconds)

    monkeypatch.setattr("time.sleep", the_editor_goes_on)
    (lab / NAME).write_bytes(half)
    assert read_settled_file(lab, NAME, 100, settled_seconds=0.5) == whole


def test_a_file_that_never_rests_is_refused_and_one_from_the_future_is_read(lab):
    os.utime(lab / NAME, (time.time() + 3600, time.time() + 3600))
    assert read_settled_file(lab, NAME, 100) == b"print(1)\r\n"
    over = threading.Event()

    def never_rest():
        while not over.wait(0.001):
            (lab / NAME).write_bytes(b"print(2)\n")

    (lab / NAME).write_bytes(b"print(2)\n")
    editor = threading.Thread(target=never_rest)
    editor.start()
    try:
        with pytest.raises(CandidateError, match="being written all the time"):
            read_settled_file(lab, NAME, 100, settled_seconds=0.7)
    finally:
        over.set()
        editor.join()
    with pytest.raises(CandidateError, match="does not exist"):
        read_settled_file(lab, "trainer/other.py", 100)
