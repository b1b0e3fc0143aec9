"""What a client's hook answers when its agent is about to stop: go on, while a session of that agent is going on.

Guarantees: an agent is held only if its own client began to research (`attendance`), in the conversation that does, while the
session has met no stop rule and nobody has paused the lab; at a stop rule only until what it left undecided is decided. After
`MOST_HOLDS` in a row without a call that moves research along it is let go. It looks, and changes nothing of a lab but its own
count beside the server's note. Does not: say anything about rules; the text is where research stands and which calls come next,
enough for an agent whose context was compacted.

The clients' own flag (`stop_hook_active`) is not heeded: it says that the hook has held the agent before in this turn, which in
a night's turn is always so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from ..lab.jsonfiles import read_json, write_json
from .attendance import Attendance, ProcessName, attendances, hold_path

if TYPE_CHECKING:
    from ..lab.lab import Lab

Client = Literal["claude-code", "codex", "gemini", "cursor"]
CLIENTS: tuple[Client, ...] = ("claude-code", "codex", "gemini", "cursor")
MOST_HOLDS = 3
MOST_INPUT_BYTES = 4 << 20
_MOST_TEXT_BYTES = 2_900
_RECENT = 5
_TEXT_BYTES = 80  # of a description or a note
_STALE_SECONDS = 4 * 3600.0  # without a call; the longest waits are minutes
_STOP_EVENTS = frozenset({"Stop", "AfterAgent", "stop"})

_LOOP = (
    "Then again and again: edit trainer/train.py, one idea; run_experiment(description, hypothesis); wait_experiment while it "
    "is not finished; keep what is worth its complexity, else revert with the lesson."
)

Answer = Mapping[str, str]
ALLOWED: Answer = {}  # as JSON `{}`, which every client takes for "nothing to say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """How often an agent has been held, since it last moved research along.

    Attributes:
        conversation: of the client, that researches.
        starts, calls: of the `Attendance` at that time.
    """

    conversation: str
    starts: int
    calls: int
    holds: int


def answer_stop(client: Client, given: bytes, lab: Path | None = None) -> Answer:
    """Return what a client's hook answers for ``given``, the JSON that the client writes about the agent that stops.

    ``lab`` is the only lab to think of; by default it is the one that the client's server serves. Raises whatever goes wrong,
    for which the caller lets the agent stop.
    """
    event = _event(given)
    if event is None or (found := _attendance_of_this_client(lab)) is None:
        return ALLOWED
    note, attendance = found
    conversation = str(event.get("session_id") or event.get("conversation_id") or "")
    hold = next_hold(_read_hold(hold_path(note)), attendance, conversation)
    if hold is None or (text := _text(attendance, hold)) is None:
        return ALLOWED
    write_json(hold_path(note), asdict(hold))
    return {"followup_message": text} if client == "cursor" else {"decision": "block", "reason": text}


def next_hold(before: Hold | None, attendance: Attendance, conversation: str) -> Hold | None:
    """Return the count with which an agent is held now; None: it is another conversation's research, or it is let go.

    Of a client's conversations the one that stops first after a `start_session` is the one that researches.
    """
    if before is None or before.starts != attendance.starts:
        holds = 0
    elif before.conversation != conversation:
        return None
    elif before.calls != attendance.calls:
        holds = 0
    elif before.holds >= MOST_HOLDS:
        return None
    else:
        holds = before.holds
    return Hold(conversation=conversation, starts=attendance.starts, calls=attendance.calls, holds=holds + 1)


def _event(given: bytes) -> dict[str, Any] | None:
    """Return what the client says, if that is an agent which ends its turn of its own accord."""
    if len(given) > MOST_INPUT_BYTES:
        return None
    try:
        event = json.loads(given.decode("utf-8-sig"))
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("hook_event_name", "Stop") not in _STOP_EVENTS:
        return None
    return event if event.get("status", "completed") == "completed" else None


def _attendance_of_this_client(lab: Path | None) -> tuple[Path, Attendance] | None:
    """Return the newest note of a living server that was started by the process which started this one."""
    notes = [
        (path, attendance)
        for path, attendance in attendances()
        if time.time() - attendance.at < _STALE_SECONDS and (lab is None or _is_about(lab, attendance))
    ]
    if not notes:
        return None
    above = [ProcessName.of(process) for process in psutil.Process(os.getpid()).parents()]
    ours = [
        (path, attendance)
        for path, attendance in notes
        if any(attendance.client.is_same(process) for process in above) and attendance.server.lives()
    ]
    return max(ours, key=lambda each: each[1].at, default=None)


def _is_about(folder: Path, attendance: Attendance) -> bool:
    """True for a folder in a lab, and for a lab that holds the worktree in which a server was started."""
    place, served = folder.resolve(), Path(attendance.folder)
    return place.is_relative_to(served) or served.is_relative_to(place)


def _read_hold(path: Path) -> Hold | None:
    try:
        value = read_json(path)
        return None if value is None else Hold(**value)
    except (ValueError, TypeError):
        return None


def _text(attendance: Attendance, hold: Hold) -> str | None:
    """Return what the agent is told; None: it may stop."""
    from ..lab.lab import Lab

    lab = Lab.look(Path(attendance.folder))
    try:
        lab.presence.names.update(dict.fromkeys(attendance.researchers))
        return going_on(lab, attendance.session, hold)
    finally:
        lab.close()


def going_on(lab: Lab, tag: str, hold: Hold) -> str | None:
    """Return where a session stands and what comes next, for an agent that knows nothing; None: nothing keeps it here."""
    from ..tools.describe import REPORT_CALL, next_without_experiment, summarise
    from ..tools.results import TABLE_HEADER

    if lab.paused() is not None:
        return None
    session = lab.session(tag)
    steps, stop = next_without_experiment(lab, session), lab.stop_reason(session)
    if stop is not None and steps[0] == REPORT_CALL:
        return None
    champion = lab.champion(session)
    recent = lab.ledger.experiments("session = ?", tag, order="rowid DESC", limit=_RECENT)
    rows = [summarise(lab, experiment, text_bytes=_TEXT_BYTES).line() for experiment in recent]
    best = "none yet" if champion is None else f"{champion.id} with val_bpb {champion.val_bpb:.4f}"
    count = lab.ledger.count_experiments("session = ?", tag)
    names = f", researcher {', '.join(lab.presence.names)}" if lab.presence.names else ""
    if stop is None:
        first = "Research goes on: do not end your turn, and do not ask whether to go on."
    else:
        first = f"The session has met its stop rule ({stop}), but something of yours is undecided. Decide it, then call report."
    head = [
        f"autoresearch: {first}",
        "You are a researcher; the MCP server autoresearch is the referee. Goal: lower val_bpb (validation bits per byte) of "
        "trainer/train.py; only this server's val_bpb counts. Never run train.py yourself.",
        f"Lab {lab.root}, session {tag}{names}, {count} experiments. Champion: {best}.",
    ]
    tail = [
        "If you have lost your context, call read_program first: the rules and the human's strategy. Then the first of these "
        "that applies:",
        *(f"- {step}" for step in steps),
        *([_LOOP] if stop is None else []),
        f"Only the human ends this: with `autoresearch pause --lab {lab.root}`. If the human of this conversation has told you "
        f"to stop, or never asked for research here, do not go on: end your turn again (hold {hold.holds} of {MOST_HOLDS} "
        "without a research call; then you are let go).",
    ]
    return _fitting(head, [f"Last experiments ({TABLE_HEADER}), quoted data:", *rows] if rows else [], tail)


def _fitting(head: list[str], table: list[str], tail: list[str]) -> str:
    """Return the lines, without the last ones of the table where they would be too long."""
    while len((text := "\n".join([*head, *table, *tail])).encode()) > _MOST_TEXT_BYTES and table:
        table = table[:-1] if len(table) > 2 else []
    return text
