"""The two processes that score a model: started beside the candidate, so that torch is imported when they are needed.

They are kept apart from each other: a folder, an output file and a copy of the model of its own for each, because whatever
they share (a file offset, the size of a log) could carry the true next tokens from the one that sees them to the other. Where
there is Landlock they come from one sandboxed process that imports torch once, and each confines itself once more before it
meets the model: neither sees the other's folder or /proc, nor signals it. Elsewhere each has a sandbox of its own.
"""

from __future__ import annotations

import json
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

from ...prepare import landlock
from ...prepare.channel import Channel, ChannelClosedError, ProtocolError
from ..executor import RunSpec
from ..paths import RunPaths
from . import sandbox
from .processes import END_SECONDS
from .sandbox.view import process_facts
from .tracing import MARK_VARIABLE

NAMES = ("bulk", "audit")
_POLL_SECONDS = 0.1
_LAST_WORDS_BYTES = 500


class WorkerError(Exception):
    """A scoring process did not become ready; the text says why."""


class ScoringWorkers:
    """Both workers of one run; `end` them whatever happens."""

    def __init__(self, spec: RunSpec, paths: RunPaths, *, mark: str) -> None:
        self._spec = spec
        self._mark = mark
        self._paths = paths
        self._started: list[sandbox.Sandboxed] = []
        self._channels: list[Channel] = []
        self._ready = False

    @property
    def pids(self) -> set[int]:
        return {started.process.pid for started in self._started}

    @property
    def channels(self) -> tuple[Channel, Channel]:
        bulk, audit = self._channels
        return bulk, audit

    def start(self, interpreter: sandbox.Interpreter) -> None:
        """Start both; raises `SandboxError` where they cannot be confined as promised."""
        rung = sandbox.rung_of(self._spec)
        pairs = [Channel.pair() for _ in NAMES]
        self._channels = [ours for ours, _ in pairs]
        targets = [(theirs, self._paths.scoring / name) for (_, theirs), name in zip(pairs, NAMES, strict=True)]
        for group in [targets] if _can_part(rung.level) else [[target] for target in targets]:
            self._started.append(self._start(rung, interpreter, group))
        for theirs, _ in targets:
            theirs.close()

    def wait_until_confined(self) -> None:
        """Wait until the sandboxes are made; raises `SandboxError` where one was not."""
        for started in self._started:
            started.wait_until_confined()

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
        for started in self._started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(started.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(timeout=END_SECONDS)
        self._channels.clear()
        self._started.clear()

    def _start(
        self, rung: sandbox.Rung, interpreter: sandbox.Interpreter, targets: list[tuple[socket.socket, Path]]
    ) -> sandbox.Sandboxed:
        spec = self._spec
        worker = Path(spec.harness) / "prepare" / "scoring_worker.py"
        folders = tuple(folder for _, folder in targets)
        threads = max(1, spec.cores // len(NAMES))  # they work side by side
        view = sandbox.view_for(interpreter.view, spec.device)
        # What each keeps of the view after they have parted, beside its own folder.
        kept = {"readable": (*view.readable, *process_facts()), "listable": view.listable, "devices": view.devices}
        parting = json.dumps(kept) if len(targets) > 1 and landlock.abi() else ""
        sockets = [f"{theirs.fileno()}:{folder}" for theirs, folder in targets]
        extra = {**sandbox.device_environment(spec.device), MARK_VARIABLE: self._mark}
        confinement = sandbox.Confinement(
            argv=(str(interpreter.program), "-I", "-B", str(worker), spec.device.partition(":")[0], parting, *sockets),
            environment=sandbox.environment(scratch=folders[0], cores=threads, extra=extra),
            view=view,
            writable=folders,
            folder=folders[0],
            limits=sandbox.limits_of(spec),
            descriptors=tuple(theirs.fileno() for theirs, _ in targets),
            device=spec.device,
            scores=True,
        )
        with self._paths.workers_log.open("ab") as output:
            return sandbox.start(rung, confinement, python=interpreter.program, output=output)


def _can_part(level: sandbox.IsolationLevel) -> bool:
    """Say whether both may come from one process: each can confine itself, or the level promises nothing about files.

    The level "none" takes the way of systems that cannot, which is how that way is tested.
    """
    if not sys.platform.startswith("linux") or level is sandbox.IsolationLevel.NONE:
        return False
    return level is not sandbox.IsolationLevel.BUBBLEWRAP or landlock.abi() > 0
