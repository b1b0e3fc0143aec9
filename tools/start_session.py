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
    """Begin a session, or go on with an earlier one. Then run the unchanged train.py once as the baseline."""
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
        warnings=[*([moved] if moved else []), *unaccepted_changes(lab)],
        next=next_without_experiment(lab, session),
        ledger_head=lab.ledger.head(),
    )
