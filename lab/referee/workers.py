"""The two processes that score a model: started beside the candidate, so that torch is imported when they are needed.

They are kept apart from each other: a folder, an output file and a copy of the model of its own for each, because whatever
they share (a file offset, the size of a log) could carry the true next tokens from the one that sees them to the other.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...prepare.channel import Channel, ChannelClosedError, ProtocolError
from ..executor import RunSpec
from ..isolation import IsolationLevel
from ..paths import RunPaths
from . import sandbox
from .processes import END_SECONDS
from .tracing import MARK_VARIABLE

NAMES = ("bulk", "audit")
_POLL_SECONDS = 0.1
_LAST_WORDS_BYTES = 500


class WorkerError(Exception):
    """A scoring process did not become ready; the text says why."""


class ScoringWorkers:
    """Both workers of one run; `end` them whatever happens."""

    def __init__(self, spec: RunSpec, paths: RunPaths, limits: sandbox.Limits, *, mark: str) -> None:
        self._spec = spec
        self._mark = mark
        self._paths = paths
        self._limits = limits
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[Channel] = []
        self._ready = False

    @property
    def pids(self) -> set[int]:
        return {process.pid for process in self._processes}

    @property
    def channels(self) -> tuple[Channel, Channel]:
        bulk, audit = self._channels
        return bulk, audit

    def start(self) -> None:
        """Start both: on Linux from one process that imports torch once and parts, elsewhere one by one.

        The level "none" takes the way of elsewhere, which is how that way is tested.
        """
        pairs = [Channel.pair() for _ in NAMES]
        self._channels = [ours for ours, _ in pairs]
        targets = [(theirs, self._paths.scratch / name) for (_, theirs), name in zip(pairs, NAMES, strict=True)]
        together = sys.platform.startswith("linux") and self._spec.isolation != IsolationLevel.NONE
        for group in [targets] if together else [[target] for target in targets]:
            self._processes.append(self._start(group))
        for theirs, _ in targets:
            theirs.close()

    def wait_until_ready(self, while_waiting: Callable[[], None]) -> None:
        """Wait until both have imported torch; ``while_waiting`` is called often and may raise."""
        if self._ready:
            return
        for channel, name in zip(self._channels, NAMES, strict=True):
            while True:
                try:
                    channel.receive(timeout_seconds=_POLL_SECONDS)
                    break
                except TimeoutError:
                    while_waiting()
                except (ChannelClosedError, ProtocolError) as error:
                    words = self._paths.workers_log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace")
                    raise WorkerError(f"the scoring process {name!r} did not start: {error}. {words}") from None
        self._ready = True

    def copy_model(self, model_fd: int) -> int:
        """Return a read-only descriptor of a private copy of the model: another inode, with an offset of its own."""
        with tempfile.NamedTemporaryFile(dir=self._paths.root) as copy:
            os.lseek(model_fd, 0, os.SEEK_SET)
            with os.fdopen(os.dup(model_fd), "rb") as source:
                shutil.copyfileobj(source, copy)
            copy.flush()
            return os.open(copy.name, os.O_RDONLY)

    def end(self) -> None:
        """Close and kill both; what they started is a matter of the run's whole tree."""
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_SECONDS)
        self._channels.clear()
        self._processes.clear()

    def _start(self, targets: list[tuple[socket.socket, Path]]) -> subprocess.Popen[bytes]:
        spec = self._spec
        worker = Path(spec.harness) / "prepare" / "scoring_worker.py"
        scratch = targets[0][1]
        threads = max(1, spec.cores // len(NAMES))  # they work side by side
        fds = [theirs.fileno() for theirs, _ in targets]
        sockets = [f"{theirs.fileno()}:{folder}" for theirs, folder in targets]
        with self._paths.workers_log.open("ab") as output:
            return sandbox.start(
                [spec.python or sys.executable, "-s", "-B", str(worker), spec.device.partition(":")[0], *sockets],
                cwd=scratch,
                env=sandbox.environment(
                    scratch=scratch,
                    cores=threads,
                    extra={
                        **sandbox.python_environment(spec.python),
                        **sandbox.device_environment(spec.device),
                        MARK_VARIABLE: self._mark,
                    },
                ),
                limits=self._limits,
                pass_fds=fds,
                output=output,
            )
