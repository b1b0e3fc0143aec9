"""The programs that experiments ran under: found by the digits of their hash, and summed up for comparison."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence

from ..lab.errors import NotReadyError, UnknownNameError
from ..lab.lab import Lab
from ..lab.programs import DIGITS, ProgramRecord, ProgramShare, compare_programs, program_title
from .describe import clean
from .results import ProgramSummary

_LISTED = 20  # programs in an error
_TITLE_CHARACTERS = 50
_PREFIX = re.compile(r"[0-9a-f]{4,64}")

_GROUPS_DIFFER = (
    "They were measured in different comparability groups (other corpus, budget, device, harness or torch): compare only rows "
    "of the same group."
)
_HARDER = "A later program starts from a better champion, where gains are harder to find."


def find_program(lab: Lab, prefix: str) -> str:
    """Return the SHA-256 of the one program whose hash begins with ``prefix``; otherwise the error lists those there are."""
    known, prefix = _known(lab), prefix.strip().lower()
    is_prefix = _PREFIX.fullmatch(prefix) is not None
    found = sorted(sha256 for sha256 in known if is_prefix and sha256.startswith(prefix))
    if len(found) == 1:
        return found[0]
    if not known:
        raise NotReadyError(f"No program {prefix!r}: no session has begun in {lab.root}. Call start_session first.")
    digits = max([DIGITS, *(_shared_digits(a, b) + 1 for a, b in itertools.pairwise(found))])
    listed = [f"{sha256[:digits]} ({words})" for sha256, words in known.items()][-_LISTED:]
    problem = (
        f"{len(found)} programs begin with {prefix!r}"
        if found
        else f"No program {prefix!r} (4 or more digits of its SHA-256 name one)"
    )
    raise UnknownNameError(f"{problem}. The programs of this lab are: {'; '.join(listed)}.")


def summarise_programs(
    lab: Lab, shares: Sequence[ProgramShare], *, newest: int | None = None
) -> tuple[list[ProgramSummary], str]:
    """Return what each program of ``shares`` (the oldest first) came to, at most the ``newest`` ones, and how to read that."""
    records = compare_programs(shares, {session.tag: session.group for session in lab.ledger.sessions()})
    older = 0 if newest is None else max(0, len(records) - newest)
    notes = []
    if len({record.sha256 for record in records}) > 1:
        notes.append(_HARDER)
    if len({record.group for record in records}) > 1:
        notes.append(_GROUPS_DIFFER)
    if older:
        notes.append(f"{older} older rows are left out: filter by session or program.")
    return [_summary(lab, record) for record in records[older:]], " ".join(notes)


def program_text(lab: Lab, sha256: str) -> str:
    """Return the text of a program by its full hash."""
    return clean(lab.ledger.stored(sha256))


def _known(lab: Lab) -> dict[str, str]:
    """Return the hash of every program that counted here -> its title and when it was accepted, the oldest first."""
    known: dict[str, str] = {}
    events = [*lab.ledger.events_of("rules_accepted"), *lab.ledger.events_of("session_started")]
    for event in sorted(events, key=lambda event: event.at):
        sha256 = event.body["program_sha256"]
        known.setdefault(sha256, f"{program_title(program_text(lab, sha256), _TITLE_CHARACTERS)}, {_date(event.at)}")
    return known


def _summary(lab: Lab, record: ProgramRecord) -> ProgramSummary:
    return ProgramSummary(
        program=record.sha256[:DIGITS],
        title=program_title(program_text(lab, record.sha256), _TITLE_CHARACTERS),
        group=record.group,
        began=_date(record.began_at),
        first=record.first,
        last=record.last,
        experiments=record.experiments,
        kept=record.kept,
        without_number=record.without_number,
        best_val_bpb=None if record.best_val_bpb is None else round(record.best_val_bpb, 6),
        mean_delta=None if record.mean_delta is None else round(record.mean_delta, 6),
        median_delta=None if record.median_delta is None else round(record.median_delta, 6),
        total_gain=round(record.total_gain, 6),
    )


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


def _shared_digits(one: str, other: str) -> int:
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
