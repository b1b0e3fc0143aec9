"""What one sandboxed process is started with: its program, what it may see, its limits, and an environment from nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...executor import RunSpec
from .view import View

_SYSTEM_PATH = "/usr/local/cuda/bin:/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_LIBRARIES = "LD_LIBRARY_PATH"  # some containers need it to find the GPU's driver


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Per process; the watchdog of the runner adds the limits of the whole tree."""

    memory_mb: int | None  # None: only the watchdog's
    file_mb: int
    processes: int  # of the tree; the kernel is told a number that honest threads do not reach
    open_files: int = 1024  # of each process: what waits in sockets and pipes is nobody's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """One process to be.

    Attributes:
        argv: the program, with its path.
        view: what it may read; nothing else of the machine's files is there.
        writable: the folders that it may change.
        folder: where it starts.
        descriptors: what it inherits beside its output.
        scores: it scores a model: no socket of any kind, and nothing by which two processes could signal through a file.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    view: View
    writable: tuple[Path, ...]
    folder: Path
    limits: Limits
    descriptors: tuple[int, ...]
    device: str
    scores: bool = False


def environment(*, scratch: Path, cores: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a candidate's process; caches are fresh, because a cache can carry weights."""
    libraries = {_LIBRARIES: os.environ[_LIBRARIES]} if os.environ.get(_LIBRARIES) else {}
    return {
        **libraries,
        "PATH": _SYSTEM_PATH,
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
        "CUDA_CACHE_PATH": str(scratch / "cuda"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "USER": "candidate",
        "HF_HUB_OFFLINE": "1",
        **extra,
    }


def device_environment(device: str) -> dict[str, str]:
    """Return the variable that shows a process exactly one device, "cpu" or "cuda:UUID"; there it is "cuda:0"."""
    return {"CUDA_VISIBLE_DEVICES": device.partition(":")[2]}


def limits_of(spec: RunSpec) -> Limits:
    """Return the limits of one process of a run.

    CUDA maps address space far beyond what it uses, so there the memory of a process is not capped; the watchdog counts
    what is really used.
    """
    memory_mb = spec.memory_mb if spec.device == "cpu" else None
    return Limits(memory_mb=memory_mb, file_mb=spec.disk_mb, processes=spec.processes)


def library_folders() -> tuple[str, ...]:
    """Return the folders of `LD_LIBRARY_PATH`, which the human gave to the server."""
    return tuple(folder for folder in os.environ.get(_LIBRARIES, "").split(":") if folder.startswith("/"))


def guarantees_of(device: str) -> dict[str, str]:
    """Return what holds on every rung, as name -> mechanism."""
    # macOS takes RLIMIT_DATA and does not count what malloc maps; CUDA maps far more than it uses.
    linux = sys.platform.startswith("linux")
    capped = "RLIMIT_DATA for each process, " if linux and device == "cpu" else ""
    return {
        "clock": "the referee's, started before the data is handed over; start-up beyond its allowance is deducted",
        "metric": "certified from audits, in processes that are not the candidate's",
        "environment": "rebuilt from nothing; fresh caches and scratch",
        "memory": f"{capped}watchdog on the tree's {'PSS, first for the OOM killer' if linux else 'resident size'}",
        "processes": f"watchdog{', RLIMIT_NPROC as a last line for ordinary users' if linux else ''}",
        "disk": "watchdog on the scratch folder, RLIMIT_FSIZE for each file",
        "log": "capped; beginning and end are kept",
    }


def file_guarantees(boundary: str) -> dict[str, str]:
    """Return what holds where ``boundary`` keeps a candidate from the files of this machine."""
    return {
        "training data before START": f"{boundary}; its descriptor is handed over at START",
        "validation data": f"{boundary}; the referee sends rows to the two scoring processes, and to nobody else",
    }
