"""The two processes that score a model: started beside the candidate, so that torch is imported when they are needed.

They are kept apart from each other: a folder, an output file and a copy of the model of its own for each, because whatever
they share (a file offset, the size of a log) could carry the true next tokens from the one that sees them to the other.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...prepare.channel import Channel, ChannelClosedError, ProtocolError
from ..executor import RunSpec
from ..paths import RunPaths
from . import sandbox
from .processes import END_SECONDS

NAMES = ("bulk", "audit")
_POLL_SECONDS = 0.1


class WorkerError(Exception):
    """A scoring process did not become ready; the text says why."""


class ScoringWorkers:
    """Both workers of one run; `end` them whatever happens."""

    def __init__(self, spec: RunSpec, paths: RunPaths, limits: sandbox.Limits) -> None:
        self._spec = spec
        self._paths = paths
        self._limits = limits
        self._started: list[tuple[subprocess.Popen[bytes], Channel]] = []
        self._ready = False

    @property
    def pids(self) -> set[int]:
        return {process.pid for process, _ in self._started}

    @property
    def channels(self) -> tuple[Channel, Channel]:
        (_, bulk), (_, audit) = self._started
        return bulk, audit

    def start(self) -> None:
        for name in NAMES:
            self._started.append(self._start(self._paths.scratch / name))

    def wait_until_ready(self, while_waiting: Callable[[], None]) -> None:
        """Wait until both have imported torch; ``while_waiting`` is called often and may raise."""
        if self._ready:
            return
        for (_, channel), name in zip(self._started, NAMES, strict=True):
            while True:
                try:
                    channel.receive(timeout_seconds=_POLL_SECONDS)
                    break
                except TimeoutError:
                    while_waiting()
                except (ChannelClosedError, ProtocolError) as error:
                    words = (self._paths.scratch / name / "output").read_bytes()[-500:].decode(errors="replace")
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
        for process, channel in self._started:
            channel.close()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_SECONDS)
        self._started.clear()

    def _start(self, scratch: Path) -> tuple[subprocess.Popen[bytes], Channel]:
        ours, theirs = Channel.pair()
        spec = self._spec
        worker = Path(spec.harness) / "prepare" / "scoring_worker.py"
        kind = spec.device.partition(":")[0]
        with theirs, (scratch / "output").open("wb") as output:
            process = sandbox.start(
                [sys.executable, "-s", "-B", str(worker), str(theirs.fileno()), kind],
                cwd=scratch,
                env=sandbox.environment(scratch=scratch, cores=spec.cores, extra=sandbox.device_environment(spec.device)),
                limits=self._limits,
                pass_fds=(theirs.fileno(),),
                output=output,
            )
        return process, ours
