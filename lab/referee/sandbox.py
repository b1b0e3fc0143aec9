"""Starting a process that runs a candidate's code, confined as far as this module goes.

In force: a session of its own, an environment made from nothing, no inherited descriptor but the named ones, limits on
memory per process (not on a GPU), file size, open files and core dumps, and death with the runner (Linux). Not in force here:
a file system or network boundary. Every result says which guarantees held.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..executor import RunSpec

_PR_SET_PDEATHSIG = 1
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "SYSTEMROOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Per process; the watchdog of the runner adds the limits of the whole tree."""

    memory_mb: int | None  # None: only the watchdog's
    file_mb: int
    open_files: int = 4096


GUARANTEES: Mapping[str, str] = {
    "clock": "the referee's, started before the data is handed over",
    "training data before START": "held back by the referee",
    "validation data": "scored in other processes than the trainer's",
    "environment": "rebuilt from nothing",
    # macOS takes RLIMIT_DATA and does not count what malloc maps.
    "memory": "RLIMIT_DATA per process, watchdog for the tree" if sys.platform.startswith("linux") else "watchdog for the tree",
}


def environment(*, scratch: Path, cores: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a candidate's process; caches are fresh, because a cache can carry weights."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **inherited,
        "HOME": str(scratch),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(cores),
        "OMP_WAIT_POLICY": "passive",  # spinning threads collapse when the machine is shared: 142 ms a step became 902
        # glibc gives the buffers of a step's logits back to the kernel and faults them in again: 8 to 13 % of a step.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "HF_HUB_OFFLINE": "1",
        **extra,
    }


def device_environment(device: str) -> dict[str, str]:
    """Return the variable that shows a process exactly one device, "cpu" or "cuda:UUID"; there it is "cuda:0"."""
    return {"CUDA_VISIBLE_DEVICES": device.partition(":")[2]}


def python_environment(python: str | None) -> dict[str, str]:
    """Return what a configured interpreter needs: the programs beside it come first, as in an activated environment."""
    if python is None:
        return {}
    return {"PATH": os.pathsep.join([str(Path(python).parent), *filter(None, [os.environ.get("PATH")])])}


def guarantees(device: str) -> dict[str, str]:
    """Return `GUARANTEES` as they hold on a device."""
    memory = {} if device == "cpu" else {"memory": "watchdog for the tree"}  # see `limits_of`
    return {**GUARANTEES, **memory}


def limits_of(spec: RunSpec) -> Limits:
    """Return the limits of one process of a run.

    CUDA maps address space far beyond what it uses, so there the memory of a process is not capped; the watchdog counts
    what is really used.
    """
    return Limits(memory_mb=spec.memory_mb if spec.device == "cpu" else None, file_mb=spec.disk_mb)


def start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    limits: Limits,
    pass_fds: Sequence[int],
    output: int | IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start a confined process. The caller must be single-threaded: death with the parent is bound to its thread."""
    runner_pid = os.getpid()

    def confine() -> None:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != runner_pid:  # the runner died before the line above took effect
                os._exit(1)
            with suppress(OSError):  # read-only in some containers
                Path("/proc/self/oom_score_adj").write_text("1000")
        os.umask(0o077)
        wanted = [
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, limits.file_mb << 20),
            (resource.RLIMIT_NOFILE, limits.open_files),
        ]
        if limits.memory_mb is not None:
            wanted.append((resource.RLIMIT_DATA, limits.memory_mb << 20))
        for kind, limit in wanted:
            _, hard = resource.getrlimit(kind)
            capped = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (capped, capped))

    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        preexec_fn=confine,
    )
