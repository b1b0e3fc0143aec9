"""What keeps a candidate apart from this machine, as a value, and the human's permission where too little does.

A level says what a run can rely on; each is a rung of the ladder in `referee.sandbox`. `probe` finds the strongest that works
here by starting something on each; the lab carries it, each run is promised it, and a runner that cannot keep the promise
does not run. Where a candidate reaches the user's files (below "landlock") nothing starts until the human has allowed it:
`allow_unsandboxed = true` in autoresearch.toml, or once for a lab by `autoresearch accept-isolation`; every result says so.

Guarantees: no run starts under a level that needs permission and has none. Does not: isolate anything itself.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .errors import NotReadyError
from .machine import command_path
from .referee.sandbox import IsolationLevel, problem_of

if TYPE_CHECKING:
    from .config import LabConfig
    from .ledger import Ledger

_FILES = "read and change every file of this user (the lab's record is one)"
_NETWORK = "use the network"
_OTHERS = "signal and trace this user's other processes"
_DAEMONS = "leave processes running after its run, which slow later runs down and can do all of this at any time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What one level is.

    Attributes:
        mechanism: how it is done; stands on every result.
        prevents: what a train.py cannot do, each as the rest of a sentence that begins "it cannot".
        can: what a train.py can still do, each as the rest of a sentence that begins "it can".
        needs_acceptance: True where no run may start before the human has agreed.
    """

    level: IsolationLevel
    mechanism: str
    prevents: tuple[str, ...]
    can: tuple[str, ...]
    needs_acceptance: bool

    @property
    def warning(self) -> str:
        """One sentence for people: what a train.py can do here; empty where nothing is known."""
        return f"a train.py that means harm can {listed(self.can)}" if self.can else ""


_KEPT_FROM_FILES = "read or change a file that training does not need"
_KEPT_FROM_NETWORK = "use the network"
_KEPT_FROM_OTHERS = "reach another process"
_KEPT_FROM_OUTLIVING = "outlive its run"

BUBBLEWRAP = Isolation(
    level=IsolationLevel.BUBBLEWRAP,
    mechanism="bubblewrap (namespaces), Landlock inside, seccomp, rlimits",
    prevents=(_KEPT_FROM_FILES, _KEPT_FROM_NETWORK, _KEPT_FROM_OTHERS, _KEPT_FROM_OUTLIVING),
    can=(),
    needs_acceptance=False,
)
LANDLOCK = Isolation(
    level=IsolationLevel.LANDLOCK,
    mechanism="Landlock, seccomp, rlimits",
    prevents=(_KEPT_FROM_FILES, _KEPT_FROM_NETWORK, _KEPT_FROM_OTHERS, _KEPT_FROM_OUTLIVING),
    can=(),
    needs_acceptance=False,
)
SECCOMP = Isolation(
    level=IsolationLevel.SECCOMP,
    mechanism="seccomp, rlimits; no boundary for files",
    prevents=(_KEPT_FROM_NETWORK, _KEPT_FROM_OUTLIVING),
    can=(_FILES,),
    needs_acceptance=True,
)
PROCESS = Isolation(
    level=IsolationLevel.PROCESS,
    mechanism="own session, rlimits, death with the runner, whole tree ended by a child subreaper",
    prevents=(_KEPT_FROM_OUTLIVING,),
    can=(_FILES, _OTHERS, _NETWORK),
    needs_acceptance=True,
)
NONE = Isolation(
    level=IsolationLevel.NONE,
    mechanism="own session, rlimits, processes traced by parent, session and environment",
    prevents=(),
    can=(_FILES, _OTHERS, _NETWORK, _DAEMONS),
    needs_acceptance=True,
)
# The strongest first.
LADDER = (BUBBLEWRAP, LANDLOCK, SECCOMP, PROCESS, NONE)
LEVELS: Mapping[str, Isolation] = MappingProxyType({isolation.level: isolation for isolation in LADDER})


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
    """Return the strongest level that works on this machine, by starting a process on each until one does."""
    return next((isolation for isolation in LADDER if problem_of(isolation.level) is None), NONE)


def acceptance(ledger: Ledger, isolation: Isolation) -> Acceptance | None:
    """Return the human's acceptance of this level in this lab; None where it was not given (or is not needed)."""
    for event in ledger.events_of("isolation_accepted"):
        if event.body["level"] == isolation.level:
            return Acceptance(level=isolation.level, machine=event.body["machine"], at=event.at)
    return None


def is_allowed(ledger: Ledger, isolation: Isolation, config: LabConfig) -> bool:
    """True where runs may start under this level; ``config`` is the one that the human accepted."""
    return not isolation.needs_acceptance or config.sandbox.allow_unsandboxed or acceptance(ledger, isolation) is not None


def require_allowed(ledger: Ledger, isolation: Isolation, config: LabConfig, root: Path) -> None:
    """Raise `NotReadyError`, naming the command of the human's, where no run may start yet."""
    if not is_allowed(ledger, isolation, config):
        raise NotReadyError(
            f"This machine ({platform.system()}) cannot isolate a train.py (level {isolation.level}): {isolation.warning}. "
            f"No experiment runs until the human has accepted that once. {advice(isolation)} Or ask the human to accept it, in "
            f"a terminal: {command_path()} accept-isolation --lab {root}"
        )


def advice(isolation: Isolation) -> str:
    """Return the one command that gives this machine a stronger level, with what stands in the way; empty where none does."""
    if platform.system() != "Linux":
        return "A container or a virtual machine with Linux isolates better."
    stronger = LADDER[: LADDER.index(isolation)]
    problems = {above.level: problem_of(above.level) or "" for above in stronger}
    if any("libseccomp" in problem for problem in problems.values()):
        return "For a stronger level: apt-get install libseccomp2 (Fedora: dnf install libseccomp)."
    bubblewrap = problems.get(IsolationLevel.BUBBLEWRAP, "")
    if "not installed" in bubblewrap:
        return "For a stronger level: apt-get install bubblewrap (Fedora: dnf install bubblewrap)."
    if bubblewrap:
        return f"bubblewrap is not allowed here ({bubblewrap}): a host that permits user namespaces gives a stronger level."
    return ""


def accept(ledger: Ledger, isolation: Isolation) -> bool:
    """Record the human's acceptance of this level; False, recording nothing, where it is not needed or was given before."""
    with ledger.transaction():
        if not isolation.needs_acceptance or acceptance(ledger, isolation) is not None:
            return False
        ledger.append("isolation_accepted", {"level": isolation.level, "machine": platform.node() or "unknown"})
    return True


def label(isolation: Isolation, accepted_on: str | None) -> str:
    """Return what a result says about isolation; ``accepted_on`` is the date of the acceptance, if there was one."""
    accepted = f"; accepted by the human on {accepted_on}" if accepted_on else ""
    return f"{isolation.level}: {isolation.mechanism}{accepted}"


def listed(parts: tuple[str, ...]) -> str:
    """Return "a, b and c"."""
    return ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1]
