"""Starting a confined process on a rung, and trying whether a rung works here."""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

from ....prepare import stage as stage_module
from ...executor import RunSpec
from .bubblewrap import Bubblewrap
from .confinement import Confinement, Limits, environment, library_folders
from .interpreter import InterpreterError, make_interpreter
from .landlocked import Landlocked
from .rung import IsolationLevel, Rung
from .unboxed import Filtered, Unfiltered
from .view import View, system_view

STAGE = Path(stage_module.__file__)
_START_SECONDS = 30.0
_OUTPUT_BYTES = 1200
_THREADS_PER_CORE = 32  # pools of threads of an honest process, with room

LADDER: Mapping[IsolationLevel, Rung] = {
    rung.level: rung
    for rung in (
        Bubblewrap(),
        Landlocked(),
        Filtered(),
        Unfiltered(IsolationLevel.PROCESS),
        Unfiltered(IsolationLevel.NONE),
    )
}


class SandboxError(Exception):
    """A process could not be confined as promised, and was not started; the text says why."""


@dataclass(kw_only=True)
class Sandboxed:
    """A started process. `wait_until_confined` before anything is believed of it."""

    rung: Rung
    process: subprocess.Popen[bytes]
    status_fd: int

    def wait_until_confined(self) -> dict[str, Any]:
        """Return what the stage put in force, as it became the program; raises `SandboxError` where it did not."""
        said, deadline = b"", time.monotonic() + _START_SECONDS
        try:
            while not said.endswith(b"\n"):
                ready, _, _ = select.select([self.status_fd], [], [], max(0.0, deadline - time.monotonic()))
                more = os.read(self.status_fd, 65536) if ready else b""
                if not more:
                    break
                said += more
        finally:
            os.close(self.status_fd)
        try:
            *_, status = map(json.loads, said.splitlines())  # a second line says that the program did not start after all
        except ValueError:
            raise SandboxError(f"the sandbox ({self.rung.level}) could not be made; the log says why") from None
        if "error" in status:
            raise SandboxError(f"the sandbox ({self.rung.level}) could not be made: {status['error']}")
        return status


def rung_of(spec: RunSpec) -> Rung:
    """Return the rung that a run was promised; raises `SandboxError` for a level that this version does not have."""
    if spec.isolation not in LADDER:
        raise SandboxError(f"there is no isolation level {spec.isolation!r} here")
    return LADDER[IsolationLevel(spec.isolation)]


def start(rung: Rung, confinement: Confinement, *, python: Path, output: int | IO[bytes]) -> Sandboxed:
    """Start a process on a rung; ``python`` runs the stage. The caller must be single-threaded: it dies with the caller."""
    restrictions = rung.restrictions(confinement)
    command_begins_with_stage = not rung.command([], confinement)
    order = {
        "argv": confinement.argv,
        "environment": dict(confinement.environment),
        "folder": str(confinement.folder),
        "limits": _kernel_limits(confinement.limits, confinement.device),
        "parent": os.getpid() if command_begins_with_stage else None,
        "access": restrictions.access,
        "filter": None if restrictions.filter is None else base64.b64encode(restrictions.filter).decode(),
        "drop_capabilities": restrictions.drop_capabilities,
    }
    status_fd, told_fd = os.pipe()
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(order).encode())
        file.seek(0)
        stage = [str(python), "-I", "-S", "-B", str(STAGE), str(file.fileno()), str(told_fd)]
        try:
            process = subprocess.Popen(
                rung.command(stage, confinement),
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(file.fileno(), told_fd, *confinement.descriptors),
                start_new_session=True,
            )
        except OSError as error:
            os.close(status_fd)
            raise SandboxError(f"the sandbox ({rung.level}) could not be started: {error}") from None
        finally:
            os.close(told_fd)
    return Sandboxed(rung=rung, process=process, status_fd=status_fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying a rung.

    ``problem`` is None where the program ran and ended well; ``status`` is what the stage put in force, ``output`` the
    beginning of what the program printed.
    """

    problem: str | None
    status: Mapping[str, Any] = field(default_factory=dict)
    output: str = ""


@cache
def trial_of(level: IsolationLevel) -> Trial:
    """Return what came of starting a process on a rung of this machine; asked once for each process of ours."""
    rung = LADDER[level]
    if (missing := rung.missing()) is not None:
        return Trial(problem=missing)
    trial = try_program(rung, "open('made', 'w').close(); print('made')")
    if trial.problem is None and trial.output != "made\n":
        return Trial(problem=f"a trial process wrote {trial.output!r}")
    return trial


def problem_of(level: IsolationLevel) -> str | None:
    """Return why a rung does not work on this machine; None where a process was started on it."""
    return trial_of(level).problem


def try_program(rung: Rung, source: str, *, python: str | None = None) -> Trial:
    """Run Python source on a rung as a candidate would be run, in a scratch folder of its own, for half a minute at most.

    ``python`` is the configured interpreter, None the one that runs this.
    """
    with tempfile.TemporaryDirectory(prefix="autoresearch-probe-") as name:
        folder = Path(name).resolve()
        scratch, printed = folder / "scratch", folder / "output"
        (scratch / "tmp").mkdir(parents=True)
        status: Mapping[str, Any] = {}
        try:
            interpreter = make_interpreter(python, folder / "python")
            with printed.open("wb") as output:
                started = start(
                    rung,
                    Confinement(
                        argv=(str(interpreter.program), "-I", "-S", "-c", source),
                        environment=environment(scratch=scratch, cores=1, extra={}),
                        view=view_for(interpreter.view, "cpu"),
                        writable=(scratch,),
                        folder=scratch,
                        limits=Limits(memory_mb=None, file_mb=16, processes=16),
                        descriptors=(),
                        device="cpu",
                    ),
                    python=interpreter.program,
                    output=output,
                )
            try:
                status = started.wait_until_confined()
                code = started.process.wait(timeout=_START_SECONDS)
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(started.process.pid, signal.SIGKILL)
                started.process.wait()
        except (SandboxError, InterpreterError, OSError, subprocess.TimeoutExpired) as error:
            words = _words(printed)
            return Trial(problem=" ".join(f"{words or error}".split()), status=status)
        words = _words(printed)
        if code != 0:
            how = f"a trial process ended with {rung.exit_code(code)}"
            return Trial(problem=f"{how}: {words}" if words else how, status=status, output=words)
        return Trial(problem=None, status=status, output=words)


def _words(printed: Path) -> str:
    """Return the beginning of what was printed; empty where nothing was."""
    if not printed.exists():
        return ""
    with printed.open("rb") as file:
        return file.read(_OUTPUT_BYTES).decode(errors="replace")


def view_for(interpreter: View, device: str, *more: Path) -> View:
    """Return the whole view of a process: the system, the interpreter, the stage, and ``more`` paths."""
    system = system_view(device)
    readable = (*system.readable, *interpreter.readable, *library_folders(), str(STAGE.parent), *map(str, more))
    return View(readable=readable, listable=interpreter.listable, hidden=interpreter.hidden, devices=system.devices)


def thread_limit(processes: int) -> int:
    """Return how many threads all processes of a run may have that may be ``processes``."""
    return processes + _THREADS_PER_CORE * (os.cpu_count() or 1) + 256


def _kernel_limits(limits: Limits, device: str) -> dict[str, int]:
    """Return the RLIMIT_ names and values of one process."""
    wanted = {"CORE": 0, "FSIZE": limits.file_mb << 20, "NOFILE": limits.open_files}
    if limits.memory_mb is not None:
        wanted["DATA"] = limits.memory_mb << 20
    if sys.platform.startswith("linux"):
        wanted |= {"MSGQUEUE": 0, "RTPRIO": 0}
        wanted["NPROC"] = _threads_of_this_user() + thread_limit(limits.processes)
    return {name: value for name, value in wanted.items() if hasattr(resource, f"RLIMIT_{name}")}


def _threads_of_this_user() -> int:
    """Return how many threads this user has now; the kernel counts threads, and all of the user's."""
    count, own = 0, os.getuid()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if process.stat().st_uid == own:
                    count += sum(1 for _ in (process / "task").iterdir())
            except OSError:
                continue
    return count
