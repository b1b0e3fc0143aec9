"""start_session: begin a research effort, or go on with one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab.lab import Lab
from ..lab.rules import unaccepted_changes
from .describe import next_without_experiment
from .results import SessionAnswer


def start_session(
    lab: Lab,
    tag: Annotated[
        str,
        Field(description="Name of the session and its branch, such as 'nov23'; 'new': a new one; empty: the latest."),
    ] = "",
    researcher: Annotated[str, Field(description="Who researches, such as 'claude'.", max_length=64)] = "agent",
) -> SessionAnswer:
    """Begin a session, or go on with an earlier one. Then run the unchanged train.py once as the baseline.

    A server works in one session at a time, because there is one train.py: all clients of one server share it.
    """
    before = lab.started_session
    session, is_new = lab.start_session(tag.strip() or None, researcher.strip() or "agent")
    moved = lab.align_branch(session)
    config = lab.session_config(session)
    champion = lab.champion(session)
    return SessionAnswer(
        tag=session.tag,
        is_new=is_new,
        branch=session.branch.removeprefix("refs/heads/"),
        budget_seconds=config.budget.seconds,
        clock=config.clock_kind,
        profile=config.profile,
        gate=config.gate.rule,
        sigma=config.sigma,
        sigma_is_prior=config.sigma_is_prior,
        comparability_group=session.group,
        champion=champion.id if champion else None,
        champion_val_bpb=champion.val_bpb if champion else None,
        experiments=lab.ledger.count_experiments("session = ?", session.tag),
        warnings=[*([moved] if moved else []), *_moved_others(before, session.tag), *unaccepted_changes(lab)],
        next=next_without_experiment(lab, session),
        ledger_head=lab.ledger.head(),
    )


def _moved_others(before: str | None, now: str) -> list[str]:
    """Say what this call means for the other clients of the same server process."""
    if before is None or before == now:
        return []
    return [
        f"Until now this server worked in session {before}; every client connected to it works in {now} from now on. "
        f'start_session("{before}") goes back.'
    ]
