"""How a run ends without a score, and what ends it that concerns training and scoring alike: no room, and survivors."""

from __future__ import annotations

from pathlib import Path

from ..executor import RunSpec
from ..states import Outcome
from . import sandbox
from .processes import ProcessTree
from .sandbox import IsolationLevel
from .scratch import folder_bytes, is_disk_full
from .tracing import Trace

REASON_CHARACTERS = 2000


class RunEndedError(Exception):
    """The run ended without a score; carries the outcome and the reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason[:REASON_CHARACTERS]


def tree_of(spec: RunSpec, root_pid: int | None, spared: set[int], *marks: str) -> ProcessTree:
    """Return the processes of a run, found in the way that its isolation level has."""
    trace = Trace(marks) if spec.isolation == IsolationLevel.NONE else None
    return ProcessTree(root_pid, spared, trace)


def require_room(spec: RunSpec, tree: ProcessTree, memory_bytes: int, processes: int, folder: Path) -> None:
    """End the run when its processes have more memory, siblings or disk than they may; memory is confirmed by PSS."""
    limit_bytes = spec.memory_mb << 20
    if memory_bytes > limit_bytes and tree.proportional_memory_bytes() > limit_bytes:
        raise RunEndedError(Outcome.CRASHED, f"used more than {spec.memory_mb} MB of memory ([limits] memory_mb)")
    if processes > spec.processes or tree.threads > sandbox.thread_limit(spec.processes):
        raise RunEndedError(Outcome.CRASHED, f"started more than {spec.processes} processes ([limits] processes)")
    if folder_bytes(folder, limit_bytes=spec.disk_mb << 20) + tree.deleted_bytes() > spec.disk_mb << 20:
        raise RunEndedError(
            Outcome.CRASHED,
            f"wrote more than {spec.disk_mb} MB to disk ([limits] disk_mb), or into folders that cannot be measured",
        )
    if is_disk_full(folder):
        raise RunEndedError(Outcome.CRASHED, "the disk is full")


def require_no_survivor(survivors: int) -> None:
    """Nothing of a run lives on into the next one: a run that something survives has no number."""
    if survivors:
        raise RunEndedError(Outcome.INVALID, f"{survivors} processes of the run could not be ended")


def broken_promise(spec: RunSpec, why: str) -> RunEndedError:
    """Return the end of a run that cannot have the isolation that it was promised: it is lost, and none of its code began."""
    reason = f"the isolation {spec.isolation!r}, which the run was promised, cannot be had: {why}"
    return RunEndedError(Outcome.LOST, reason)
