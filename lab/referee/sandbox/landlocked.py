"""The rung without namespaces: Landlock for files and signals, a system call filter for the rest.

Works where user namespaces are forbidden, such as in the usual GPU container, as root and as an ordinary user. Its limits:
processes that share memory through /dev/shm, as a DataLoader with workers does, cannot; and before ABI 6 (Linux 6.12) only the
runner, not every other process of this user, is safe from signals.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ....prepare import landlock
from . import filters
from .confinement import Confinement, file_guarantees
from .rung import IsolationLevel, Restrictions
from .view import own_facts, process_facts

_KNOWS_TRUNCATION = 3


class Landlocked:
    """Implements `rung.Rung`."""

    level = IsolationLevel.LANDLOCK

    def missing(self) -> str | None:
        if not landlock.abi():
            return "the kernel has no Landlock (Linux 5.13 or newer, not switched off)"
        return None if filters.is_available() else "libseccomp is not installed"

    def command(self, stage: list[str], confinement: Confinement) -> list[str]:
        return stage

    def restrictions(self, confinement: Confinement) -> Restrictions:
        view, abi = confinement.view, landlock.abi()
        own = ("/proc/self",) if confinement.device != "cpu" else ()  # CUDA names its threads
        return Restrictions(
            access={
                "readable": (*view.readable, *process_facts(), *(own or own_facts())),
                "listable": view.listable,
                "writable": (*map(str, confinement.writable), *own),
                "devices": view.devices,
            },
            filter=filters.compile_filter(
                scores=confinement.scores,
                alone=True,
                counted=confinement.device == "cpu",
                truncation=abi < _KNOWS_TRUNCATION,
                protected=() if abi >= landlock.SCOPES_SIGNALS else (os.getpid(),),
            ),
            drop_capabilities=True,
        )

    def exit_code(self, code: int) -> int:
        return code

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        abi = status.get("landlock", 0)
        signals = "Landlock scope" if abi >= landlock.SCOPES_SIGNALS else "seccomp, for the runner only"
        return {
            "files": f"Landlock ABI {abi}: only what training needs, read-only; seccomp for metadata",
            "secrets": f"Landlock ABI {abi}, /proc narrowed to the process itself",
            **file_guarantees(f"Landlock ABI {abi}"),
            "network": "seccomp refuses sockets of every family",
            "other processes": f"{signals}; seccomp against ptrace and the like",
            "ends with its run": "process group pinned by seccomp, child subreaper, death with the runner",
        }
