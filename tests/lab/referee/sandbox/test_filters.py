"""The system call filter, loaded by the stage in a process of its own that then tries what it should not."""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.referee.sandbox import filters

from .staging import Staged, run_staged

pytestmark = [
    pytest.mark.skipif(not filters.is_available(), reason="there is no libseccomp here"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the numbers of system calls are those of two"),
]

NUMBERS = {
    "x86_64": {"clone": 56, "clone3": 435, "fcntl": 72, "kill": 62, "inotify_init1": 294, "mincore": 27, "io_uring_setup": 425},
    "aarch64": {
        "clone": 220,
        "clone3": 435,
        "fcntl": 25,
        "kill": 129,
        "inotify_init1": 26,
        "mincore": 232,
        "io_uring_setup": 425,
    },
}.get(platform.machine(), {})

ESCAPES = """
import socket
NEWUSER, NEWNS, SIGCHLD = 0x10000000, 0x00020000, 17
def traced():
    if libc.ptrace(0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "")
def unshared():
    if libc.unshare(NEWUSER) < 0:
        raise OSError(ctypes.get_errno(), "")
def cloned(flags):
    answer = libc.syscall(ctypes.c_long(number["clone"]), ctypes.c_long(flags | SIGCHLD), *[ctypes.c_long(0)] * 4)
    if answer == 0:
        os._exit(0)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "")
    os.waitpid(answer, 0)
def opened(family, kind=socket.SOCK_STREAM):
    socket.socket(family, kind).close()
def forked():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
print(json.dumps({
    "ptrace": outcome(traced),
    "unshare": outcome(unshared),
    "a user namespace": outcome(lambda: cloned(NEWUSER)),
    "a mount namespace": outcome(lambda: cloned(NEWNS)),
    "clone3": outcome(lambda: call(number["clone3"], 0, 0)),
    "io_uring": outcome(lambda: call(number["io_uring_setup"], 1, 0)),
    "a descriptor of the parent": outcome(lambda: os.pidfd_open(os.getppid())),
    "INET": outcome(lambda: opened(socket.AF_INET)),
    "INET6": outcome(lambda: opened(socket.AF_INET6, socket.SOCK_DGRAM)),
    "NETLINK": outcome(lambda: opened(socket.AF_NETLINK, socket.SOCK_RAW)),
    "VSOCK": outcome(lambda: opened(40)),
    "UNIX": outcome(lambda: opened(socket.AF_UNIX)),
    "a pair": outcome(lambda: [end.close() for end in socket.socketpair()]),
    "a child": outcome(forked),
}))
"""

LOCKS = """
import fcntl
file = open("file", "w+")
high = 1 << 32
print(json.dumps({
    "flock": outcome(lambda: fcntl.flock(file, fcntl.LOCK_EX)),
    "fcntl": outcome(lambda: fcntl.lockf(file, fcntl.LOCK_EX)),
    "fcntl with high bits": outcome(lambda: call(number["fcntl"], file.fileno(), high | fcntl.F_SETLEASE, fcntl.F_WRLCK)),
    "inotify": outcome(lambda: call(number["inotify_init1"], 0)),
    "mincore": outcome(lambda: call(number["mincore"], 0, 0, 0)),
    "fadvise": outcome(lambda: os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)),
    "descriptor flags": outcome(lambda: fcntl.fcntl(file, fcntl.F_GETFD)),
}))
"""

METADATA = """
import resource, stat
open("file", "w").close()
os.chmod("file", 0o600)
before, session, group = os.stat("file"), os.getsid(0), os.getpgid(0)
answers = {
    "chmod": outcome(lambda: os.chmod("file", 0o777)),
    "utime": outcome(lambda: os.utime("file", (1, 1))),
    "setxattr": outcome(lambda: os.setxattr("file", "user.word", b"x")),
    "setsid": outcome(os.setsid),
    "setpgid": outcome(lambda: os.setpgid(0, 0)),
    "own limits": outcome(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
    "limits of the parent": outcome(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE)),
    "cores of the parent": outcome(lambda: os.sched_setaffinity(os.getppid(), {0})),
}
after = os.stat("file")
answers["mode"] = stat.S_IMODE(after.st_mode)
answers["changed"] = [after.st_mtime != before.st_mtime, os.listxattr("file") != [], os.getsid(0) != session]
print(json.dumps(answers))
"""

MEMORY = """
import mmap
print(json.dumps({
    "a file in memory": outcome(lambda: os.memfd_create("name")),
    "shared": outcome(lambda: mmap.mmap(-1, 4096)),
    "private": outcome(lambda: mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
}))
"""

TRUNCATION = """
open("file", "w").write("text")
print(json.dumps({
    "by path": outcome(lambda: os.truncate("file", 0)),
    "by opening for reading": outcome(lambda: os.open("file", os.O_RDONLY | os.O_TRUNC)),
    "for writing": outcome(lambda: os.open("file", os.O_WRONLY | os.O_TRUNC)),
}))
"""

SIGNALS = """
target = int(os.environ["TARGET"])
print(json.dumps({
    "it": outcome(lambda: os.kill(target, 0)),
    "it, with high bits": outcome(lambda: call(number["kill"], 1 << 32 | target, 0)),
    "its group": outcome(lambda: os.kill(-target, 0)),
    "its group, unsigned": outcome(lambda: call(number["kill"], -target & 0xFFFFFFFF, 0)),
    "everybody": outcome(lambda: call(number["kill"], 0xFFFFFFFF, 0)),
    "itself": outcome(lambda: os.kill(os.getpid(), 0)),
}))
"""


def made(*, scores: bool = False, alone: bool = True, counted: bool = True, **more: Any) -> bytes:
    return filters.compile_filter(scores=scores, alone=alone, counted=counted, **more)


def tried(source: str, folder: Path, compiled: bytes, **order: object) -> Staged:
    return run_staged(f"number = {NUMBERS}\n{source}", folder, filter=compiled, **order)


@pytest.mark.parametrize("alone", [False, True], ids=["in namespaces", "alone"])
def test_other_processes_namespaces_and_the_network_are_out_of_reach(tmp_path: Path, alone: bool) -> None:
    compiled = made(alone=alone)
    staged = tried(ESCAPES, tmp_path, compiled)
    assert staged.said == [{"limits": [], "seccomp": True}]
    answers = staged.answers
    allowed = {"a pair", "a child"} if alone else {"a pair", "a child", "UNIX"}
    assert {name for name, came in answers.items() if came == "done"} == allowed
    for name in ("ptrace", "unshare", "a user namespace", "a mount namespace", "io_uring"):
        assert answers[name] == "EPERM", name
    for family in ("INET", "INET6", "NETLINK", "VSOCK"):
        assert answers[family] == "EACCES", family
    assert answers["clone3"] == "ENOSYS"  # libc falls back to clone, whose flags a filter can see


def test_a_scoring_process_has_nothing_to_signal_through(tmp_path: Path) -> None:
    compiled = made(scores=True, alone=False)
    answers = tried(LOCKS, tmp_path, compiled).answers
    assert answers.pop("descriptor flags") == "done"
    assert set(answers.values()) == {"EPERM"}, answers
    sockets = tried(ESCAPES, tmp_path, compiled).answers
    assert (sockets["UNIX"], sockets["a pair"]) == ("EACCES", "done")


def test_a_candidate_may_lock_files(tmp_path: Path) -> None:
    answers = tried(LOCKS, tmp_path, made()).answers
    assert (answers["flock"], answers["fcntl"]) == ("done", "done")


@pytest.mark.parametrize("alone", [False, True], ids=["in namespaces", "alone"])
def test_changes_of_metadata_and_alone_of_groups_are_done_and_nothing_changed(tmp_path: Path, alone: bool) -> None:
    (tmp_path / "file").touch(0o600)
    answers = tried(METADATA, tmp_path, made(alone=alone)).answers
    assert [answers[name] for name in ("chmod", "utime", "setxattr", "own limits")] == ["done"] * 4
    leads = "done" if alone else "EPERM"  # it leads a session already, so the kernel itself would refuse
    assert (answers["setsid"], answers["setpgid"]) == (leads, leads)
    assert answers["mode"] == 0o600
    assert answers["changed"] == [False, False, False]
    if alone:
        assert (answers["limits of the parent"], answers["cores of the parent"]) == ("EPERM", "EPERM")


def test_memory_that_no_process_shows_as_its_own_is_refused_on_a_cpu(tmp_path: Path) -> None:
    counted = tried(MEMORY, tmp_path, made(alone=False)).answers
    assert (counted["a file in memory"], counted["shared"], counted["private"]) == ("ENOSYS", "EPERM", "done")
    on_gpu = tried(MEMORY, tmp_path, made(alone=False, counted=False)).answers
    assert set(on_gpu.values()) == {"done"}


def test_truncating_by_path_is_refused_where_landlock_cannot(tmp_path: Path) -> None:
    refusing = made(truncation=True)
    answers = tried(TRUNCATION, tmp_path, refusing).answers
    assert answers == {"by path": "EPERM", "by opening for reading": "EACCES", "for writing": "done"}
    leaving = made()
    assert tried(TRUNCATION, tmp_path, leaving).answers["by path"] == "done"


def test_no_signal_reaches_a_protected_process_however_its_number_is_written(tmp_path: Path) -> None:
    compiled = made(protected=(os.getpid(),))
    answers = tried(SIGNALS, tmp_path, compiled, environment={"TARGET": str(os.getpid())}).answers
    assert answers.pop("itself") == "done"
    assert set(answers.values()) == {"EPERM"}, answers


def test_every_filter_is_far_below_what_the_kernel_takes() -> None:
    for scores, alone, counted, truncation in itertools.product([False, True], repeat=4):
        compiled = made(scores=scores, alone=alone, counted=counted, truncation=truncation, protected=(1000, 1001))
        assert len(compiled) % 8 == 0
        assert 50 < len(compiled) // 8 < 2048
