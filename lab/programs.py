"""What each program.md came to: the numbers by which two research strategies can be compared. Pure functions over records.

Guarantees: numbers are summed up only within one comparability group, so a program that worked in two groups has a row in
each. Does not: call one program better. A later one starts from a better champion, where gains are harder to find, and a
mean over a few experiments says little.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DIGITS = 8  # of a program's SHA-256, as answers show it
_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramShare:
    """What some of the experiments under one program.md came to in one session; `Ledger.program_shares` sums it up.

    Attributes:
        first: id of the oldest experiment; ``last`` of the newest, ``began_at`` when the oldest was recorded (epoch seconds).
        last_row: grows with the order in which the newest experiments were recorded.
        kept, without_number, best_val_bpb, total_gain: as in `ProgramRecord`.
        deltas: of the experiments that were compared with a parent.
    """

    session: str
    program_sha256: str
    first: str
    last: str
    last_row: int
    began_at: float
    experiments: int
    kept: int
    without_number: int
    best_val_bpb: float | None
    deltas: tuple[float, ...]
    total_gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRecord:
    """The experiments that ran under one program.md, in one comparability group.

    Attributes:
        group: the comparability group.
        first: id of the oldest experiment; ``last`` of the newest, ``began_at`` when the oldest was recorded (epoch seconds).
        kept: experiments that became the champion; baselines, which are kept by themselves, are not counted.
        without_number: finished experiments that have no val_bpb.
        best_val_bpb: the lowest certified value, kept or not.
        mean_delta: over the experiments that were compared with a parent; negative is better. One that diverged moves the
            mean a long way, and ``median_delta`` hardly.
        total_gain: what the kept experiments lowered val_bpb by, against their parents; positive is better.
    """

    sha256: str
    group: str
    first: str
    last: str
    began_at: float
    experiments: int
    kept: int
    without_number: int
    best_val_bpb: float | None
    mean_delta: float | None
    median_delta: float | None
    total_gain: float


def compare_programs(shares: Iterable[ProgramShare], groups: Mapping[str, str]) -> list[ProgramRecord]:
    """Return a record for each program and group, in the order of their first experiments.

    ``shares`` are the oldest first; ``groups`` maps a session's tag to its comparability group.
    """
    gathered: dict[tuple[str, str], list[ProgramShare]] = {}
    for share in shares:
        gathered.setdefault((share.program_sha256, groups[share.session]), []).append(share)
    return [_record(sha256, group, members) for (sha256, group), members in gathered.items()]


def program_title(text: str, limit: int = 60) -> str:
    """Return what a person calls a program.md: its first heading, else its first line; at most ``limit`` characters."""
    heading = _HEADING.search(text)
    title = heading[1] if heading else next((line for line in text.splitlines() if line.strip()), "(empty)")
    flat = " ".join(title.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def _record(sha256: str, group: str, shares: Sequence[ProgramShare]) -> ProgramRecord:
    deltas = [delta for share in shares for delta in share.deltas]
    return ProgramRecord(
        sha256=sha256,
        group=group,
        first=shares[0].first,
        last=max(shares, key=lambda share: share.last_row).last,
        began_at=shares[0].began_at,
        experiments=sum(share.experiments for share in shares),
        kept=sum(share.kept for share in shares),
        without_number=sum(share.without_number for share in shares),
        best_val_bpb=min((share.best_val_bpb for share in shares if share.best_val_bpb is not None), default=None),
        mean_delta=statistics.fmean(deltas) if deltas else None,
        median_delta=statistics.median(deltas) if deltas else None,
        total_gain=sum(share.total_gain for share in shares),
    )
