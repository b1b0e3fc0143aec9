"""What keeps a candidate apart from this machine, as a value, and the human's acceptance where nothing does.

A level says what a run can rely on. `probe` finds the level of this machine; the lab carries it, each run is promised it, and
the runner refuses a promise that it cannot keep. Where candidates can outlive their run ("none"), nothing starts until the
human has accepted that once (`autoresearch accept-isolation`); it is recorded, and every result says so.

Guarantees: no run starts under a level that needs acceptance and has none. Does not: isolate anything; `referee.sandbox`,
`referee.processes` and the runner do. A stronger level is a new member of `IsolationLevel` with an `Isolation` of its own.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .errors import NotReadyError
from .machine import command_path
from .referee.processes import can_adopt_orphans

if TYPE_CHECKING:
    from .ledger import Ledger

_FILES = "read and change every file of this user (the lab's record is one)"
_NETWORK = "use the network"
_DAEMONS = "leave processes running after its run, which slow later runs down and can do all of this at any time"


class IsolationLevel(StrEnum):
    """How far a candidate is kept apart, the weakest first."""

    NONE = "none"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What one level is.

    Attributes:
        mechanism: how it is done; stands on every result.
        can: what a train.py can still do, each as the rest of a sentence that begins "it can".
        needs_acceptance: True where no run may start before the human has agreed.
    """

    level: IsolationLevel
    mechanism: str
    can: tuple[str, ...]
    needs_acceptance: bool

    @property
    def warning(self) -> str:
        """One sentence for people: what a train.py can do here."""
        return f"a train.py that means harm can {_listed(self.can)}"


PROCESS = Isolation(
    level=IsolationLevel.PROCESS,
    mechanism="own session, rlimits, death with the runner, whole tree ended by a child subreaper",
    can=(_FILES, _NETWORK),
    needs_acceptance=False,
)
NONE = Isolation(
    level=IsolationLevel.NONE,
    mechanism="own session, rlimits, processes traced by parent, session and environment",
    can=(_FILES, _NETWORK, _DAEMONS),
    needs_acceptance=True,
)
LEVELS: Mapping[str, Isolation] = MappingProxyType({isolation.level: isolation for isolation in (NONE, PROCESS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """The human's agreement to run under a level, as recorded."""

    level: IsolationLevel
    machine: str
    at: float  # seconds since the epoch

    @property
    def date(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self.at))


def probe() -> Isolation:
    """Return what this machine gives a candidate, by asking the kernel."""
    return PROCESS if can_adopt_orphans() else NONE


def acceptance(ledger: Ledger, isolation: Isolation) -> Acceptance | None:
    """Return the human's acceptance of this level in this lab; None where it was not given (or is not needed)."""
    for event in ledger.events_of("isolation_accepted"):
        if event.body["level"] == isolation.level:
            return Acceptance(level=isolation.level, machine=event.body["machine"], at=event.at)
    return None


def is_allowed(ledger: Ledger, isolation: Isolation) -> bool:
    """True where runs may start under this level."""
    return not isolation.needs_acceptance or acceptance(ledger, isolation) is not None


def require_allowed(ledger: Ledger, isolation: Isolation, root: Path) -> None:
    """Raise `NotReadyError`, naming the command of the human's, where no run may start yet."""
    if not is_allowed(ledger, isolation):
        raise NotReadyError(
            f"This machine ({platform.system()}) cannot isolate a train.py (level {isolation.level}): {isolation.warning}. "
            "No experiment runs until the human has accepted that once. Ask the human to run in a terminal: "
            f"{command_path()} accept-isolation --lab {root}"
        )


def accept(ledger: Ledger, isolation: Isolation) -> bool:
    """Record the human's acceptance of this level; False, recording nothing, where it is not needed or was given before."""
    with ledger.transaction():
        if is_allowed(ledger, isolation):
            return False
        ledger.append("isolation_accepted", {"level": isolation.level, "machine": platform.node() or "unknown"})
    return True


def label(isolation: Isolation, accepted_on: str | None) -> str:
    """Return what a result says about isolation; ``accepted_on`` is the date of the acceptance, if there was one."""
    accepted = f"; accepted by the human on {accepted_on}" if accepted_on else ""
    return f"{isolation.level}: {isolation.mechanism}{accepted}"


def _listed(parts: tuple[str, ...]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]
