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
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..prepare import landlock
from .errors import NotReadyError
from .machine import command_path, machine_name
from .referee.sandbox import LADDER as RUNGS
from .referee.sandbox import IsolationLevel, guarantees_of, problem_of, trial_of

if TYPE_CHECKING:
    from .lab import Lab
    from .ledger import Ledger

_FILES = "read and change every file of this user (the lab's record is one)"
_NETWORK = "use the network"
_OTHERS = "signal and trace this user's other processes"
_SIGNALS = "signal this user's other processes, and reach into them through /proc"
_SIGNALS_ONLY = "signal this user's other processes (not the runner)"
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


def landlock_of(abi: int) -> Isolation:
    """Return what the level is with this version of the kernel's Landlock; before version 6 it cannot hold signals back."""
    scopes = abi >= landlock.SCOPES_SIGNALS
    return Isolation(
        level=IsolationLevel.LANDLOCK,
        mechanism="Landlock, seccomp, rlimits",
        prevents=(
            *(_KEPT_FROM_FILES, _KEPT_FROM_NETWORK),
            *((_KEPT_FROM_OTHERS,) if scopes else ()),
            _KEPT_FROM_OUTLIVING,
        ),
        can=() if scopes else (_SIGNALS_ONLY,),
        needs_acceptance=False,
    )


BUBBLEWRAP = Isolation(
    level=IsolationLevel.BUBBLEWRAP,
    mechanism="bubblewrap (namespaces), Landlock inside, seccomp, rlimits",
    prevents=(_KEPT_FROM_FILES, _KEPT_FROM_NETWORK, _KEPT_FROM_OTHERS, _KEPT_FROM_OUTLIVING),
    can=(),
    needs_acceptance=False,
)
LANDLOCK = landlock_of(landlock.abi())
SECCOMP = Isolation(
    level=IsolationLevel.SECCOMP,
    mechanism="seccomp, rlimits; no boundary for files",
    prevents=(_KEPT_FROM_NETWORK, _KEPT_FROM_OUTLIVING),
    can=(_FILES, _SIGNALS),
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


def is_allowed(lab: Lab) -> bool:
    """True where runs may start under the lab's level; what the human accepted is read only where that matters."""
    if not lab.isolation.needs_acceptance:
        return True
    return lab.config().sandbox.allow_unsandboxed or acceptance(lab.ledger, lab.isolation) is not None


def require_allowed(lab: Lab) -> None:
    """Raise `NotReadyError`, naming the command of the human's, where no run may start yet."""
    if not is_allowed(lab):
        isolation, root = lab.isolation, lab.root
        raise NotReadyError(
            f"This machine ({platform.system()}) cannot keep a train.py from this user's files (level {isolation.level}): "
            f"{isolation.warning}. "
            "No experiment runs until the human has chosen, in a terminal: what would give a stronger level, as "
            f"`{command_path()} doctor --lab {root}` says; or this one, by {command_path()} accept-isolation --lab {root} "
            "(or [sandbox] allow_unsandboxed = true in autoresearch.toml and accept-config)."
        )


def obstacles(isolation: Isolation) -> dict[IsolationLevel, str]:
    """Return why this machine does not have each level above this one, the strongest first."""
    problems = {above.level: problem_of(above.level) for above in LADDER[: LADDER.index(isolation)]}
    return {level: problem for level, problem in problems.items() if problem is not None}


def guarantees_here(isolation: Isolation) -> dict[str, str]:
    """Return what holds for a run on this machine at this level, as name -> mechanism, as a trial process found it."""
    trial = trial_of(isolation.level)
    in_force = RUNGS[isolation.level].guarantees(trial.status) if trial.problem is None else {}
    return {**guarantees_of("cpu"), **in_force}


def guarantees_not_given(isolation: Isolation) -> tuple[str, ...]:
    """Return the names of what the strongest level guarantees and this one does not, on any machine."""
    given = RUNGS[isolation.level].guarantees({})
    return tuple(name for name in RUNGS[BUBBLEWRAP.level].guarantees({}) if name not in given)


def accept(ledger: Ledger, isolation: Isolation) -> bool:
    """Record the human's acceptance of this level; False, recording nothing, where it is not needed or was given before."""
    with ledger.transaction():
        if not isolation.needs_acceptance or acceptance(ledger, isolation) is not None:
            return False
        ledger.append("isolation_accepted", {"level": isolation.level, "machine": machine_name()})
    return True


def label(isolation: Isolation, accepted_on: str | None) -> str:
    """Return what a result says about isolation; ``accepted_on`` is the date of the acceptance, if there was one."""
    accepted = f"; accepted by the human on {accepted_on}" if accepted_on else ""
    return f"{isolation.level}: {isolation.mechanism}{accepted}"


def listed(parts: tuple[str, ...], last: str = "and") -> str:
    """Return "a, b and c"."""
    return ", ".join(parts[:-1]) + (f" {last} " if parts[:-1] else "") + parts[-1]
