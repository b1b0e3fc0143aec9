"""Keeps the machine awake while research is really going on: no sleep for want of a user, between runs either.

Who holds it: each server of a lab in which a run trains, until `LINGER_SECONDS` after the last one, in which an agent thinks
about the next. Where every server ended while a run trains, nobody holds it: a machine that falls asleep then pauses that run,
which loses nothing but its number.

The hold is a child (`systemd-inhibit … cat`, `caffeinate -w`) that ends with this process, however that ends: the first reads
a pipe that only this process can write, the second watches it. It has a session of its own and none of our descriptors, so a
client that ends a process group, or waits for outputs to be closed, is not in its way. Where there is nothing to ask (a
container, a machine without logind), it is quiet, and tries again only now and then. Does not: keep a closed lid from ending
the night, or the screen on.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from contextlib import suppress

KEEP_AWAKE_VARIABLE = "AUTORESEARCH_KEEP_AWAKE"  # "0": never
LINGER_SECONDS = 600.0
_RETRY_SECONDS = 600.0
_WHAT = ("idle:sleep", "idle")  # whoever has no seat at the machine, as over SSH, may be allowed the second only
_END_SECONDS = 2.0


def is_wanted() -> bool:
    """Say whether the human lets us keep the machine awake."""
    return os.environ.get(KEEP_AWAKE_VARIABLE, "1") != "0"


def inhibitors(then: str | None = None) -> list[list[str]]:
    """Return the commands that keep this machine awake until their input ends or this process does, the best first.

    Empty: there are none here. ``then``: they hold for as long as that command runs, instead.
    """
    system = platform.system()
    if system == "Darwin" and (path := shutil.which("caffeinate")):
        return [[path, "-i", *([then] if then else ["-w", str(os.getpid())])]]
    if system == "Linux" and (path := shutil.which("systemd-inhibit")):
        rest = ["--who=autoresearch", "--why=an experiment of autoresearch trains", "--mode=block", then or "cat"]
        return [[path, f"--what={what}", *rest] for what in _WHAT]
    return []


class Awake:
    """One server's hold on the machine. Call `look` about every second, from one thread at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._until = self._not_before = 0.0  # on the monotonic clock
        self._refused = 0  # of the inhibitors, the first ones

    def look(self, is_running: bool) -> None:
        """Hold on while a run trains and for a while after the last one; let go then."""
        now = time.monotonic()
        if is_running:
            self._until = now + LINGER_SECONDS
        if self._child is not None and self._child.poll() is not None:  # it could not hold, or somebody ended it
            self._let_go()
            self._refused += 1
        if self._child is not None and now >= self._until:
            self._let_go()
        elif self._child is None and is_running and now >= self._not_before:
            self._hold()
            if self._child is None:
                self._refused, self._not_before = 0, now + _RETRY_SECONDS

    def close(self) -> None:
        if self._child is not None:
            self._let_go()

    def _hold(self) -> None:
        if not is_wanted() or not (commands := inhibitors()[self._refused :]):
            return
        with suppress(OSError):  # no process to be had
            self._child = subprocess.Popen(
                commands[0],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def _let_go(self) -> None:
        child, self._child = self._child, None
        assert child is not None
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.close()
        if platform.system() == "Darwin":  # it watches this process, not its input
            child.terminate()
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
