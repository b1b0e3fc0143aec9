"""The processes of a run: none is missed, none of anybody else's is touched, on Linux and by the portable way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from autoresearch_mcp.lab.referee.processes import ProcessTree, can_adopt_orphans
from autoresearch_mcp.lab.referee.tracing import MARK_VARIABLE, Trace, environment_of

# The test process is no subreaper, so a daemon's parent is init here: what these tests see is what macOS sees.
_DAEMON = """
import os, sys, time
say, hear, clear = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "clear"
def go():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if clear:
                code = f"import os, time; os.write({say}, str(os.getpid()).encode()); time.sleep(600)"
                os.execve(sys.executable, [sys.executable, "-c", code], {})
            os.write(say, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.wait()
go()
os.read(hear, 1)
"""


class Started:
    """A leader that started a daemon, waits, and exits when told."""

    def __init__(self, mark: str, *, clear: bool = False) -> None:
        say_out, say_in = os.pipe()
        hear_out, self._tell = os.pipe()
        self.leader = subprocess.Popen(
            [sys.executable, "-c", _DAEMON, str(say_in), str(hear_out), "clear" if clear else "keep"],
            env={**os.environ, MARK_VARIABLE: mark},
            pass_fds=(say_in, hear_out),
            start_new_session=True,
        )
        os.close(say_in)
        os.close(hear_out)
        self.daemon = psutil.Process(int(os.read(say_out, 20)))
        os.close(say_out)

    def end_leader(self) -> None:
        os.close(self._tell)
        self.leader.wait()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process, in a session of its own and with another run's mark."""
    environment = {**os.environ, MARK_VARIABLE: "another"}
    process = subprocess.Popen(
        ["sleep", "600"], start_new_session=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


def test_a_daemon_that_left_its_family_is_found_by_its_mark_and_ended(bystander: subprocess.Popen[bytes]) -> None:
    started = Started("ours")
    started.end_leader()
    tree = ProcessTree(started.leader.pid, {bystander.pid}, Trace(["ours"]))
    assert [process.pid for process in tree.members()] == [started.daemon.pid]
    assert tree.kill() == 0
    assert not started.daemon.is_running() or started.daemon.status() == psutil.STATUS_ZOMBIE
    assert bystander.poll() is None


def test_without_the_mark_a_daemon_that_was_never_seen_escapes() -> None:
    """The reason why the level of such a machine is "none"."""
    started = Started("ours", clear=True)
    started.end_leader()
    assert ProcessTree(started.leader.pid, set(), Trace(["ours"])).members() == []
    started.daemon.kill()


def test_who_shares_a_session_with_a_member_belongs_and_who_was_seen_still_does(bystander: subprocess.Popen[bytes]) -> None:
    shell = "env -i sleep 600 & echo $!; exec env -i sleep 600"  # two without a mark, in one session
    leader = subprocess.Popen(["sh", "-c", shell], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    with leader.stdout:
        second = psutil.Process(int(leader.stdout.readline()))
    tree = ProcessTree(leader.pid, {bystander.pid}, Trace(["ours"]))
    assert {process.pid for process in tree.members()} == {leader.pid, second.pid}  # the leader as a child of this process
    leader.kill()
    leader.wait()
    assert environment_of(second).get(MARK_VARIABLE) is None
    assert [process.pid for process in tree.members()] == [second.pid]  # an orphan now
    assert tree.kill() == 0
    with suppress(psutil.NoSuchProcess):
        second.wait(timeout=10)
    assert bystander.poll() is None


def test_the_kernel_is_asked_without_changing_anything() -> None:
    assert can_adopt_orphans() == sys.platform.startswith("linux")
    started = Started("probe")
    started.end_leader()
    assert started.daemon.ppid() != os.getpid()  # this process did not become a subreaper
    started.daemon.kill()
