"""Ways out that once worked: each is tried from inside a sandbox that is started as a candidate's is, and gets nowhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from autoresearch_mcp.lab import local_executor
from autoresearch_mcp.lab.paths import RunPaths
from autoresearch_mcp.lab.referee import sandbox
from autoresearch_mcp.lab.referee.processes import ProcessTree
from autoresearch_mcp.lab.referee.sandbox import filters
from autoresearch_mcp.lab.referee.scoring_meter import ProcessMeter
from autoresearch_mcp.lab.referee.scratch import folder_bytes, remove_folder

from .staging import run_staged

LEVELS = [sandbox.IsolationLevel.BUBBLEWRAP, sandbox.IsolationLevel.LANDLOCK]
# What every source begins with: the descriptor of the tokens, and a way to say what came of something.
_WORDS = """
import ctypes, errno, fcntl, json, mmap, os, signal, socket, struct, sys, threading, time
scratch, channel = os.environ["HOME"], socket.socket(fileno=int(os.environ["CHANNEL"]))
tokens = socket.recv_fds(channel, 1, 1)[1][0]
libc = ctypes.CDLL(None, use_errno=True)
def outcome(action):
    try:
        return str(action())
    except OSError as error:
        return errno.errorcode[error.errno]
"""
_REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT", "ENOSYS"}


class Inside:
    """A started candidate, and what it may and may not touch."""

    def __init__(self, level: sandbox.IsolationLevel, source: str, folder: Path) -> None:
        self.scratch, code, self.tokens = folder / "scratch", folder / "code", folder / "tokens.bin"
        (self.scratch / "tmp").mkdir(parents=True)
        code.mkdir()
        (code / "train.py").write_text(_WORDS + source)
        self.tokens.write_bytes(bytes(4096))
        interpreter = sandbox.make_interpreter(None, folder / "python")
        ours, theirs = socket.socketpair()
        tokens_fd = os.open(self.tokens, os.O_RDONLY)
        socket.send_fds(ours, [b"x"], [tokens_fd])
        os.close(tokens_fd)
        self._output = folder / "output"
        with self._output.open("wb") as output, ours, theirs:
            self.started = sandbox.start(
                sandbox.LADDER[level],
                sandbox.Confinement(
                    argv=(str(interpreter.program), "-I", "-B", "train.py"),
                    environment=sandbox.environment(scratch=self.scratch, cores=1, extra={"CHANNEL": str(theirs.fileno())}),
                    view=sandbox.view_for(interpreter.view, "cpu", code),
                    writable=(self.scratch,),
                    folder=code,
                    limits=sandbox.Limits(memory_mb=1000, file_mb=100, processes=32),
                    descriptors=(theirs.fileno(),),
                    device="cpu",
                ),
                python=interpreter.program,
                output=output,
            )
            self.started.wait_until_confined()
        self.tree = ProcessTree(self.started.process.pid, set())

    def answers(self) -> dict[str, Any]:
        """Wait for its end and return the JSON object that it printed."""
        code = self.started.process.wait(timeout=30)
        assert code == 0, self._output.read_text()
        return json.loads(self._output.read_text())

    def wait_for(self, name: str) -> None:
        """Wait until it has made that file in its scratch folder."""
        deadline = time.monotonic() + 20
        while not (self.scratch / name).exists():
            assert self.started.process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)


MakeInside = Callable[[str], Inside]


@pytest.fixture(params=LEVELS)
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeInside]:
    """Return a function that starts source on each of the levels that this machine has."""
    if problem := sandbox.problem_of(request.param):
        pytest.skip(problem)
    made: list[Inside] = []

    def make(source: str) -> Inside:
        made.append(Inside(request.param, source, tmp_path))
        return made[-1]

    yield make
    for one in made:
        assert one.tree.kill() == 0
        one.started.process.wait()


def test_no_setting_of_the_machine_and_no_score_for_the_oom_killer_can_be_written(inside: MakeInside) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    tried = inside("""
places = ("/proc/sys/vm/swappiness", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", "/proc/pressure/cpu",
          "/proc/sys/kernel/ns_last_pid", "/dev/shm/../x", "/dev/x")
print(json.dumps({place: outcome(lambda: os.open(place, os.O_WRONLY | os.O_CREAT)) for place in places}))
""").answers()
    assert set(tried.values()) <= _REFUSED, tried
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_it_is_the_first_that_is_killed_when_memory_runs_out(inside: MakeInside) -> None:
    one = inside("open(scratch + '/ready', 'w').close()\ntime.sleep(30)\n")
    one.wait_for("ready")
    scores = {Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() for process in one.tree.members()}
    assert scores == {"1000"}


def test_nothing_about_the_files_whose_descriptors_it_holds_can_be_changed(inside: MakeInside) -> None:
    one = inside("""
link = f"/proc/self/fd/{tokens}"
def wide_lease():  # the kernel looks at half of the number
    if libc.fcntl(tokens, ctypes.c_long(1 << 32 | 1024), 0) < 0:
        raise OSError(ctypes.get_errno(), "")
outcome(lambda: os.fchmod(tokens, 0)), outcome(lambda: os.chmod(link, 0)), outcome(lambda: os.utime(tokens, (1, 1)))
outcome(lambda: os.setxattr(tokens, "user.note", b"1"))
flags = outcome(lambda: fcntl.ioctl(tokens, 0x40086602, struct.pack("l", 0x80)))
print(json.dumps({"flags": flags, "write": outcome(lambda: os.open(link, os.O_RDWR)),
                  "lease": outcome(lambda: fcntl.fcntl(tokens, 1024, 0)),
                  "wide lease": outcome(lambda: wide_lease())}))
""")
    before = one.tokens.stat()
    tried = one.answers()
    assert set(tried.values()) <= _REFUSED, tried
    after = one.tokens.stat()
    assert (after.st_mode, after.st_mtime, after.st_ctime) == (before.st_mode, before.st_mtime, before.st_ctime)


def test_memory_that_no_process_shows_as_its_own_cannot_be_had(inside: MakeInside) -> None:
    tried = inside("""
print(json.dumps({
    "file in memory": outcome(lambda: os.memfd_create("a")),
    "shared and anonymous": outcome(lambda: mmap.mmap(-1, 1 << 20)),
    "zeros": outcome(lambda: os.open("/dev/zero", os.O_RDWR)),
}))
""").answers()
    assert set(tried.values()) <= _REFUSED, tried


def test_what_waits_in_a_socket_cannot_grow(inside: MakeInside) -> None:
    waiting = inside("""
ours, theirs = socket.socketpair()
ours.setblocking(False)
ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 20)
sent = 0
try:
    while True:
        sent += ours.send(bytes(4096))
except BlockingIOError:
    print(json.dumps({"sent": sent}))
""").answers()
    standard = int(Path("/proc/sys/net/core/wmem_default").read_text())
    assert 0 < waiting["sent"] <= 2 * standard


def test_threads_whose_first_has_ended_still_count(inside: MakeInside) -> None:
    one = inside("""
def work():
    hoard = bytearray(b"x") * (64 << 20)
    open(scratch + "/ready", "w").close()
    while True:
        hash(hoard[0])
threading.Thread(target=work).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit, of this thread only
""")
    one.wait_for("ready")
    before, _, _ = one.tree.sample()
    time.sleep(0.3)
    cpu_seconds, memory_bytes, processes = one.tree.sample()
    assert cpu_seconds > before
    assert memory_bytes > 64 << 20
    assert processes >= 1
    assert one.tree.proportional_memory_bytes() > 64 << 20
    assert one.tree.kill() == 0


def test_threads_are_counted(inside: MakeInside) -> None:
    one = inside("""
threading.stack_size(65536)
for _ in range(150):
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
open(scratch + "/ready", "w").close()
time.sleep(30)
""")
    one.wait_for("ready")
    one.tree.sample()
    assert one.tree.threads > 150


def test_disk_cannot_be_hidden_in_depth_behind_permissions_or_without_a_name(inside: MakeInside) -> None:
    one = inside("""
os.chdir(scratch)
for _ in range(30):
    os.mkdir("d" * 200), os.chdir("d" * 200)
open("deep", "wb").write(bytes(4 << 20))
os.chdir(scratch)
os.mkdir("closed", 0o300)
open("closed/file", "wb").write(bytes(4 << 20))
unnamed = open("unnamed", "wb")
unnamed.write(bytes(8 << 20)), unnamed.flush(), os.unlink("unnamed")
open("ready", "w").close()
time.sleep(30)
""")
    one.wait_for("ready")
    # Root may look into the closed folder; to its owner without such powers it counts as more than any limit.
    assert folder_bytes(one.scratch, limit_bytes=1 << 40) >= 8 << 20
    assert folder_bytes(one.scratch, limit_bytes=5 << 20) > 5 << 20
    assert one.tree.deleted_bytes() >= 8 << 20
    one.tree.kill()
    remove_folder(one.scratch)
    assert not one.scratch.exists()


def test_folders_deeper_than_any_honest_run_makes_count_as_too_much(tmp_path: Path) -> None:
    here = tmp_path
    for _ in range(150):
        here /= "d"
        here.mkdir()
    assert folder_bytes(tmp_path, limit_bytes=1 << 40) > 1 << 40


def test_a_folder_whose_place_is_taken_by_a_link_is_not_followed(tmp_path: Path) -> None:
    outside, inner = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    (outside / "large").write_bytes(bytes(1 << 20))
    inner.mkdir()
    (inner / "link").symlink_to(outside)
    assert folder_bytes(inner, limit_bytes=1 << 40) < 1 << 20
    (tmp_path / "swapped").symlink_to(outside)
    assert folder_bytes(tmp_path / "swapped", limit_bytes=1 << 40) == 0


def test_the_connections_and_mounts_of_the_machine_are_not_told(inside: MakeInside) -> None:
    one = inside("""
def read(name):
    return open("/proc/self/" + name).read()
print(json.dumps({name: outcome(lambda: read(name)) for name in ("net/unix", "net/tcp", "mountinfo", "status")}))
""")
    seen = one.answers()
    assert "Name:" in seen["status"]
    if one.started.rung.level is sandbox.IsolationLevel.LANDLOCK:
        assert {seen["net/unix"], seen["net/tcp"], seen["mountinfo"]} == {"EACCES"}
    else:  # namespaces of its own
        assert len(seen["net/unix"].splitlines()) <= 5


def test_the_death_of_its_parent_cannot_be_ignored(inside: MakeInside) -> None:
    told = inside("""
libc.prctl(1, 0, 0, 0, 0)
signal_number = ctypes.c_int()
libc.prctl(2, ctypes.byref(signal_number), 0, 0, 0)
print(json.dumps({"signal": signal_number.value}))
""").answers()
    assert told == {"signal": signal.SIGKILL}


def test_what_a_scoring_process_starts_stays_in_its_group(tmp_path: Path) -> None:
    if not filters.is_available():
        pytest.skip("no libseccomp")
    source = """
if os.fork():
    os.wait()
else:
    os.setsid()
    os.setpgid(0, 0)
    print(json.dumps({"group": os.getpgid(0), "pid": os.getpid()}))
"""
    answers = run_staged(source, tmp_path, filter=filters.compile_pin(may_fork=True)).answers
    assert answers["group"] != answers["pid"]


def test_what_the_bulk_process_has_orphaned_ends_with_it(tmp_path: Path) -> None:
    source = f"""
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        open({str(tmp_path / "orphan")!r}, "w").close()
        time.sleep(30)
    os._exit(0)
os.wait()
time.sleep(30)
"""
    leader = subprocess.Popen([sys.executable, "-c", source], start_new_session=True)
    try:
        while not (tmp_path / "orphan").exists():
            assert leader.poll() is None
            time.sleep(0.02)
        ProcessMeter(psutil.Process(leader.pid)).kill()
        assert leader.wait(timeout=10) == -signal.SIGKILL
        assert is_gone(leader.pid)
    finally:
        leader.kill()


def is_gone(group: int) -> bool:
    """Wait until a process group has no member."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_daemon_that_forks_all_the_time_does_not_outlive_a_killed_runner(tmp_path: Path) -> None:
    """What is left when the runner is killed is ended by its group, since looking does not find it."""
    busy = """
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    time.sleep(0.01)
"""
    leader = subprocess.Popen([sys.executable, "-c", busy], start_new_session=True, cwd="/")
    leader.wait()
    paths = RunPaths(tmp_path)
    paths.spec.write_text("{}")
    paths.processes.write_text(json.dumps({"sessions": [leader.pid], "marks": []}))
    os.killpg(leader.pid, 0)  # the group is there
    local_executor._end_orphans(paths)
    assert is_gone(leader.pid)
