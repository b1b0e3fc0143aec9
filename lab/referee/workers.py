"""The processes that score a model: started beside the candidate, so that torch is imported when they are needed.

Those of the bulk pass are kept apart from those of the audit: a folder and an output file for each process, a copy of the model
for each pass, because whatever they share (a file offset, the size of a log) could carry the true next tokens to the audit.
Where there is Landlock they come from one sandboxed process that imports torch once, and each confines itself once more before
it meets the model: none sees another's folder or /proc, nor signals it. Elsewhere each has a sandbox of its own. The audit's
meet the model only after those of the bulk pass are gone, so there is nothing to listen to.

Where they part on a CPU, several share a pass: one thread in each is worth more than several in one, which wake each other up.
"""

from __future__ import annotations

import base64
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
from itertools import chain
from pathlib import Path
from typing import Any

from ...prepare import landlock
from ...prepare.channel import Channel, ChannelClosedError, ProtocolError
from ...prepare.files import mapped_files
from ..executor import RunSpec
from ..paths import RunPaths
from . import sandbox
from .page_cache import warm
from .processes import END_SECONDS
from .sandbox import filters
from .sandbox.view import process_facts
from .scoring_meter import ProcessMeter, find_process
from .tracing import MARK_VARIABLE

NAMES = ("bulk", "audit")  # of the passes
_MOST_PROCESSES = 4  # for each pass; beyond, each has more threads
_FILTERED = (sandbox.IsolationLevel.BUBBLEWRAP, sandbox.IsolationLevel.LANDLOCK, sandbox.IsolationLevel.SECCOMP)
_POLL_SECONDS = 0.1
_COPY_BYTES = 1 << 20
_LAST_WORDS_BYTES = 500


class WorkerError(Exception):
    """A scoring process did not become ready; the text says why."""


class ScoringWorkers:
    """The workers of one run; `end` them whatever happens."""

    def __init__(self, spec: RunSpec, paths: RunPaths, *, mark: str) -> None:
        self._spec = spec
        self.mark = mark  # in the environment of all
        self._paths = paths
        self._started: list[sandbox.Sandboxed] = []
        self._channels: dict[str, list[Channel]] = {name: [] for name in NAMES}
        self._ready = False
        self._readable: tuple[str, ...] = ()  # what the audit process can read, where that is little
        self._meters: dict[str, list[ProcessMeter]] = {name: [] for name in NAMES}

    @property
    def pids(self) -> set[int]:
        return {started.process.pid for started in self._started}

    def channels(self, name: str) -> list[Channel]:
        """Return the channels to the processes of a pass."""
        return self._channels[name]

    def pids_of(self, name: str) -> list[int]:
        """Return the processes of a pass, as this one counts them; fewer than there are where some were not found."""
        return [meter.pid for meter in self._meters[name]]

    def start(self, interpreter: sandbox.Interpreter) -> None:
        """Start them; raises `SandboxError` where they cannot be confined as promised."""
        rung = sandbox.rung_of(self._spec)
        parting = _can_part(rung.level)
        count = min(self._spec.cores, _MOST_PROCESSES) if parting and self._spec.device == "cpu" else 1
        targets: list[tuple[socket.socket, Path]] = []
        for name in NAMES:
            for index in range(count):
                ours, theirs = Channel.pair()
                self._channels[name].append(ours)
                folder = self._paths.scoring / (f"{name}-{index}" if index else name)
                (folder / "tmp").mkdir(parents=True, exist_ok=True)
                targets.append((theirs, folder))
        for group in [targets] if parting else [[target] for target in targets]:
            self._started.append(self._start(rung, interpreter, group))
        for theirs, _ in targets:
            theirs.close()

    def wait_until_confined(self) -> None:
        """Wait until the sandboxes are made; raises `SandboxError` where one was not."""
        for started in self._started:
            started.wait_until_confined()

    def wait_until_ready(self, while_waiting: Callable[[], None]) -> None:
        """Wait until all have imported torch; ``while_waiting`` is called often and may raise."""
        if self._ready:
            return
        for name, channel in [(name, channel) for name, channels in self._channels.items() for channel in channels]:
            while True:
                try:
                    frame = channel.receive(timeout_seconds=_POLL_SECONDS)
                    self._meter(name, frame.header.get("pid"))
                    break
                except TimeoutError:
                    while_waiting()
                except (ChannelClosedError, ProtocolError) as error:
                    words = self._paths.workers_log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace")
                    raise WorkerError(f"the scoring process {name!r} did not start: {error}. {words}") from None
        self._ready = True

    def sample_cpu(self) -> None:
        """Read the CPU time of all, as far as they live."""
        for meter in chain(*self._meters.values()):
            meter.sample()

    def cpu_seconds(self, name: str) -> float | None:
        """Return the CPU seconds that a pass has used since its processes were ready; None: they were not found."""
        meters = self._meters[name]
        return round(sum(meter.seconds for meter in meters), 3) if meters else None

    def end_bulk(self) -> None:
        """Kill the bulk processes and what they started: they have said all that is asked for, and know the true tokens."""
        if len(self._started) > 1:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._started[0].process.pid, signal.SIGKILL)
        for meter in self._meters["bulk"]:
            meter.kill()
        for meter in self._meters["audit"][:1]:
            libraries: tuple[str, ...] = ()
            with suppress(OSError):  # hidden, or gone
                libraries = mapped_files(meter.pid)
            warm((*self._readable, *libraries))

    def copy_model(self, model_fd: int) -> tuple[int, ...]:
        """Return read-only descriptors of a private copy of the model: another inode, and an offset for each process."""
        with tempfile.NamedTemporaryFile(dir=self._paths.root) as copy:
            os.lseek(model_fd, 0, os.SEEK_SET)
            with os.fdopen(os.dup(model_fd), "rb") as source:
                shutil.copyfileobj(source, copy, _COPY_BYTES)
            copy.flush()
            return tuple(os.open(copy.name, os.O_RDONLY) for _ in self._channels["bulk"])

    def end(self) -> None:
        """Close and kill all; what they started is a matter of the run's whole tree."""
        for channel in chain(*self._channels.values()):
            channel.close()
        for started in self._started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(started.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(timeout=END_SECONDS)
        self._started.clear()

    def _meter(self, name: str, pid: object) -> None:
        """Find the process that has just become ready, from outside of its sandbox."""
        found = (find_process(started.process.pid, pid) for started in self._started_for(name) if type(pid) is int)
        if (process := next(found, None)) is not None:
            self._meters[name].append(ProcessMeter(process))

    def _started_for(self, name: str) -> list[sandbox.Sandboxed]:
        """Return the sandbox that a process lives in: one for all, or the one of its place."""
        return self._started if len(self._started) == 1 else [self._started[NAMES.index(name)]]

    def _start(
        self, rung: sandbox.Rung, interpreter: sandbox.Interpreter, targets: list[tuple[socket.socket, Path]]
    ) -> sandbox.Sandboxed:
        spec = self._spec
        worker = Path(spec.harness) / "prepare" / "scoring_worker.py"
        folders = tuple(folder for _, folder in targets)
        view = sandbox.view_for(interpreter.view, spec.device)
        on_cpu = spec.device == "cpu"
        given_up: dict[str, Any] = {"access": None, "filter": None}  # once they have parted
        if len(targets) > 1:
            if landlock.abi():
                # Beside its own folder and the libraries in its memory. On a GPU the first forward may compile kernels.
                kept = interpreter.scoring if on_cpu else view
                readable = (*kept.readable, str(worker.parent))
                self._readable = readable if on_cpu else ()
                given_up["access"] = {
                    "readable": (*readable, *process_facts()),
                    "listable": kept.listable,
                    "devices": view.devices,
                }
            if rung.level in _FILTERED:
                given_up["filter"] = base64.b64encode(filters.compile_pin(may_fork=not on_cpu)).decode()
        sockets = [f"{theirs.fileno()}:{folder}" for theirs, folder in targets]
        extra = {
            **sandbox.device_environment(spec.device),
            **({"TORCH_COMPILE_DISABLE": "1"} if on_cpu else {}),  # a compiled part of a model is scored as it was written
            MARK_VARIABLE: self.mark,
        }
        confinement = sandbox.Confinement(
            argv=(
                str(interpreter.program),
                "-I",
                "-B",
                str(worker),
                spec.device.partition(":")[0],
                json.dumps(given_up),
                *sockets,
            ),
            environment=sandbox.environment(scratch=folders[0], cores=spec.cores, extra=extra),  # one pass at a time
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
    """Say whether all may come from one process: each can confine itself, or the level promises nothing about files.

    The level "none" takes the way of systems that cannot, which is how that way is tested.
    """
    if not sys.platform.startswith("linux") or level is sandbox.IsolationLevel.NONE:
        return False
    return level is not sandbox.IsolationLevel.BUBBLEWRAP or landlock.abi() > 0
