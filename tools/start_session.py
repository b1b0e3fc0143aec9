"""start_session: begin a research effort, or go on with one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import researchers
from ..lab.caller import caller
from ..lab.lab import Lab
from ..lab.ledger import Event
from ..lab.records import Researcher
from ..lab.researchers import MAX_NAME
from ..lab.rules import unaccepted_changes
from .describe import next_without_experiment, train_file_of
from .results import SessionAnswer


def start_session(
    lab: Lab,
    tag: Annotated[
        str,
        Field(description="Name of the session and its branch, such as 'nov23'; 'new': a new one; empty: the latest."),
    ] = "",
    researcher: Annotated[
        str,
        Field(
            description="Your name, such as 'claude-2', where several agents research at once; each after the first gets a "
            "folder of its own. Empty: whoever works in the lab's own folder.",
            max_length=MAX_NAME,
        ),
    ] = "",
) -> SessionAnswer:
    """Begin a session, or go on with an earlier one; the answer says which train.py is yours to edit.

    Call it once when research begins, after read_program, and again after losing context. Next: in a new session
    run_experiment with the unchanged file, the baseline. All clients of one server work in one session.
    """
    before, names, restored = lab.started_session, set(lab.presence.names), lab.ledger.latest("train_file_restored")
    session, is_new = lab.start_session(tag.strip() or None, researchers.one_line(researcher))
    who = researchers.find(lab, session, researcher)
    moved = lab.align_branch(session)
    config = lab.session_config(session)
    noise = lab.noise(session)
    champion = lab.champion(session)
    return SessionAnswer(
        tag=session.tag,
        is_new=is_new,
        branch=session.branch.removeprefix("refs/heads/"),
        budget_seconds=config.budget.seconds,
        clock=config.clock_kind,
        profile=config.profile,
        gate=config.gate.rule,
        sigma=noise.sigma,
        sigma_source=noise.words,
        comparability_group=session.group,
        champion=champion.id if champion else None,
        champion_val_bpb=champion.val_bpb if champion else None,
        researcher=who.name,
        train_file=str(train_file_of(lab, who)),
        experiments=lab.ledger.count_experiments("session = ?", session.tag),
        warnings=[
            *([moved] if moved else []),
            *_moved_others(before, session.tag),
            *(_same_name(lab, who) if before == session.tag and who.name in names else []),
            *_saved(restored, lab.ledger.latest("train_file_restored"), who),
            *researchers.shared_folder(lab, who),
            *unaccepted_changes(lab),
        ],
        next=next_without_experiment(lab, session, who),
        ledger_head=lab.ledger.head(),
    )


def _same_name(lab: Lab, who: Researcher) -> list[str]:
    """Say that a client of this server has this name already."""
    if not lab.presence.serves_many:
        return []
    if caller():
        return [
            f"A client with the token of {who.name!r} has started before. If that was you, go on. If it was another agent, "
            "tell the human that each needs a token of its own: `autoresearch token NAME`."
        ]
    return [
        f"A client of this server has started as {who.name!r} before. If that was another agent, call "
        "start_session(researcher='<a name of your own>'): you get a folder of your own. If it was you, go on."
    ]


def _saved(before: Event | None, now: Event | None, who: Researcher) -> list[str]:
    """Say where this call has saved what the researcher's train.py held."""
    if now is None or now == before or now.body["backup"] is None or now.body.get("researcher") != who.name:
        return []
    return [
        f"Your train.py held something else, from an earlier session; it is the champion's now. What it held is saved as "
        f"{now.body['backup']} (git cat-file blob {now.body['backup']})."
    ]


def _moved_others(before: str | None, now: str) -> list[str]:
    """Say what this call means for the other clients of the same server process."""
    if before is None or before == now:
        return []
    return [
        f"Until now this server worked in session {before}; every client connected to it works in {now} from now on. "
        f'start_session("{before}") goes back.'
    ]
