"""The rungs of the ladder: one way each to confine a process, the strongest first, and what each promises.

A rung turns a `Confinement` into the command that starts it and the order that the stage inside carries out on itself. Whether
a rung works on a machine is found out by starting something on it, never by asking a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from .confinement import Confinement


class IsolationLevel(StrEnum):
    """How far a candidate is kept apart, the weakest first."""

    NONE = "none"
    PROCESS = "process"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    BUBBLEWRAP = "bubblewrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """What the stage does to its own process; None: nothing of that kind.

    Attributes:
        access: the fields of `prepare.landlock.Access`.
        filter: a compiled system call filter.
        drop_capabilities: leave root with the rights of a file's owner.
    """

    access: Mapping[str, tuple[str, ...]] | None = None
    filter: bytes | None = None
    drop_capabilities: bool = False


class Rung(Protocol):
    """One way to confine a process."""

    level: IsolationLevel

    def missing(self) -> str | None:
        """Return what this machine lacks for it, found without starting anything; None: it may work."""
        ...

    def command(self, stage: list[str], confinement: Confinement) -> list[str]:
        """Return the command that starts the stage."""
        ...

    def restrictions(self, confinement: Confinement) -> Restrictions:
        """Return what the stage takes from itself."""
        ...

    def exit_code(self, code: int) -> int:
        """Return the program's own exit code, negative for a signal."""
        ...

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        """Return what holds on this rung, as name -> mechanism, given what the stage said is in force."""
        ...
