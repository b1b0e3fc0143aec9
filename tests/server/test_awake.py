"""The machine is kept awake while a run trains and for a while after, by a process that ends with whoever started it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server import awake, doctor_machine
from autoresearch_mcp.server.awake import Awake
from autoresearch_mcp.server.check import Level
from autoresearch_mcp.server.host import Host

from ..polling import until
from .stdio_server import StdioServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stands in for systemd-inhibit")
LINUX = Host(system="Linux", name="Linux", wsl=None, manager="apt-get", is_root=True)

# Says what it was asked, then ends when its input does, or at once.
_HOLDS = '#!/bin/sh\necho "held $$ $*" >> "$0.log"\n[ "$5" = true ] && exit 0\ncat\necho "ended $$" >> "$0.log"\n'
_REFUSES = '#!/bin/sh\necho "refused $*" >> "$0.log"\nexit 1\n'
_REFUSES_SLEEP = '#!/bin/sh\ncase "$1" in *sleep*) echo "refused $1" >> "$0.log"; exit 1;; esac\n' + _HOLDS.partition("\n")[2]


class Inhibitor:
    """A program that stands where systemd-inhibit does, and what it wrote down."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def becomes(self, text: str) -> None:
        self._path.write_text(text)
        self._path.chmod(0o755)

    def said(self) -> list[str]:
        log = self._path.with_name(f"{self._path.name}.log")
        return log.read_text().splitlines() if log.exists() else []

    def until_said(self, *words: str) -> list[str]:
        def look() -> list[str] | None:
            said = self.said()
            return said if [line.split()[0] for line in said] == list(words) else None

        return until(look)


@pytest.fixture
def inhibitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inhibitor:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AUTORESEARCH_KEEP_AWAKE", "1")
    made = Inhibitor(folder / "systemd-inhibit")
    made.becomes(_HOLDS)
    monkeypatch.setattr(awake, "_END_SECONDS", 60.0)  # it writes its last line before it ends, also on a busy machine
    return made


@pytest.fixture
def hold(inhibitor: Inhibitor) -> Iterator[Awake]:
    hold = Awake()
    yield hold
    hold.close()


def test_one_hold_is_taken_when_a_run_starts_kept_between_runs_and_let_go_after(
    hold: Awake, inhibitor: Inhibitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold.look(is_running=False)
    assert inhibitor.said() == []
    hold.look(is_running=True)
    (held,) = inhibitor.until_said("held")
    assert held.split(maxsplit=2)[2] == (
        "--what=idle:sleep --who=autoresearch --why=an experiment of autoresearch trains --mode=block cat"
    )
    for is_running in (True, False, True, False):
        hold.look(is_running)
    assert inhibitor.said() == [held]
    monkeypatch.setattr(awake, "LINGER_SECONDS", 0.0)
    hold.look(is_running=True)
    assert inhibitor.until_said("held", "ended")
    hold.close()


def test_closing_lets_go_at_once_and_leaves_no_process_and_no_descriptor(hold: Awake, inhibitor: Inhibitor) -> None:
    this = psutil.Process()
    children, descriptors = this.children(recursive=True), this.num_fds()
    hold.look(is_running=True)
    inhibitor.until_said("held")
    hold.close()
    hold.close()
    assert inhibitor.said()[1:] == [inhibitor.said()[0].replace("held", "ended").partition(" --")[0]]
    assert set(this.children(recursive=True)) <= set(children)
    assert this.num_fds() <= descriptors


def test_the_child_has_no_part_in_the_servers_group_and_descriptors(hold: Awake, inhibitor: Inhibitor) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        hold.look(is_running=True)
        pid = int(inhibitor.until_said("held")[0].split()[1])
        assert os.getsid(pid) == pid != os.getsid(0)
        opened = [str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in (0, 1, 2)]
        assert opened[0].startswith("pipe:")
        assert opened[1:] == ["/dev/null", "/dev/null"]
        assert not Path(f"/proc/{pid}/fd/{write}").exists()
    finally:
        os.close(read)
        os.close(write)


def test_a_machine_that_refuses_is_asked_for_less_and_then_left_alone(hold: Awake, inhibitor: Inhibitor) -> None:
    inhibitor.becomes(_REFUSES)

    def look() -> bool:
        hold.look(is_running=True)
        return len(inhibitor.said()) == 2

    until(look)
    for _ in range(100):
        time.sleep(0.002)  # for the second one to have ended
        hold.look(is_running=True)
    assert [line.split()[1] for line in inhibitor.said()] == ["--what=idle:sleep", "--what=idle"]


def test_where_only_the_idle_sleep_may_be_held_off_it_is(hold: Awake, inhibitor: Inhibitor) -> None:
    inhibitor.becomes(_REFUSES_SLEEP)
    until(lambda: (hold.look(is_running=True), len(inhibitor.said()) == 2)[1])
    assert inhibitor.said()[1].split()[2] == "--what=idle"


def test_where_there_is_nothing_to_ask_nothing_happens(
    hold: Awake, inhibitor: Inhibitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_KEEP_AWAKE", "0")
    hold.look(is_running=True)
    assert inhibitor.said() == []
    monkeypatch.setenv("AUTORESEARCH_KEEP_AWAKE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    Awake().look(is_running=True)
    assert awake.inhibitors() == []


def test_doctor_says_whether_the_machine_can_be_kept_awake(inhibitor: Inhibitor, monkeypatch: pytest.MonkeyPatch) -> None:
    can = doctor_machine.check_awake(LINUX)
    assert (can.level, can.found.startswith("kept awake")) == (Level.OK, True)
    inhibitor.becomes(_REFUSES)
    assert "cannot be" in doctor_machine.check_awake(LINUX).found
    windows = Host(system="Linux", name="WSL 2", wsl=2, manager=None, is_root=False)
    assert "powercfg" in doctor_machine.check_awake(windows).advice
    monkeypatch.setenv("AUTORESEARCH_KEEP_AWAKE", "0")
    assert "AUTORESEARCH_KEEP_AWAKE is 0" in doctor_machine.check_awake(LINUX).found


@pytest.mark.slow
def test_a_server_holds_the_machine_awake_while_a_run_trains_and_the_hold_ends_with_it(
    make_quick_lab: Callable[..., Lab], inhibitor: Inhibitor
) -> None:
    lab = make_quick_lab(seconds=30.0)
    lab.workspace.train.write_text(lab.workspace.train.read_text().replace("val_bpb=2.0", "seconds=4"))
    server = StdioServer(lab.root)
    try:
        server.connect().call("start_session", tag="new")
        experiment = server.call("run_experiment", description="baseline", wait_seconds=0.0)["experiment"]["id"]
        inhibitor.until_said("held")
        assert server.call("wait_experiment", experiment_id=experiment, wait_seconds=30.0)["state"] == "finished"
        assert len(inhibitor.said()) == 1  # the agent thinks about the next
        server.kill()
        inhibitor.until_said("held", "ended")
    finally:
        server.kill()
