"""The rungs without a boundary for files: a system call filter alone, a process of its own, or not even that.

No run starts on them before the human has allowed it (see `lab.isolation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..processes import can_adopt_orphans
from . import filters
from .confinement import Confinement
from .rung import IsolationLevel, Restrictions

_NOT_TOGETHER = "the kernel cannot keep the processes of a run together"


class Filtered:
    """seccomp and limits: no network; files and the signals of other processes are the user's. Implements `rung.Rung`."""

    level = IsolationLevel.SECCOMP

    def missing(self) -> str | None:
        if not filters.is_available():
            return "libseccomp is not installed"
        return None if can_adopt_orphans() else _NOT_TOGETHER

    def command(self, stage: list[str], confinement: Confinement) -> list[str]:
        return stage

    def restrictions(self, confinement: Confinement) -> Restrictions:
        compiled = filters.compile_filter(scores=confinement.scores, alone=True, counted=confinement.device == "cpu")
        return Restrictions(filter=compiled, drop_capabilities=True)

    def exit_code(self, code: int) -> int:
        return code

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        return {
            "network": "seccomp refuses sockets of every family",
            "ends with its run": "process group pinned by seccomp, child subreaper, death with the runner",
        }


class Unfiltered:
    """A session of its own with limits; ``level`` says whether the kernel keeps its processes together."""

    def __init__(self, level: IsolationLevel) -> None:
        self.level = level

    def missing(self) -> str | None:
        keeps = self.level is IsolationLevel.NONE or can_adopt_orphans()
        return None if keeps else _NOT_TOGETHER

    def command(self, stage: list[str], confinement: Confinement) -> list[str]:
        return stage

    def restrictions(self, confinement: Confinement) -> Restrictions:
        return Restrictions()

    def exit_code(self, code: int) -> int:
        return code

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        if self.level is IsolationLevel.NONE:
            return {"ends with its run": "traced by parent, session and environment, which a daemon can clear"}
        return {"ends with its run": "child subreaper, death with the runner"}
