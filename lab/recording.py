"""Recording an experiment: its commit, its event, and its first run in the queue, in the caller's transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .candidate import check_candidate
from .dispatch import queue_run
from .files import sha256_hex
from .paths import TRAIN_FILE
from .records import Experiment, Session

if TYPE_CHECKING:
    from .lab import Lab


def record_experiment(
    lab: Lab,
    session: Session,
    source: bytes,
    *,
    researcher: str,
    parent: Experiment | None,
    parent_version: int,
    description: str,
    hypothesis: str,
    rebase_of: str | None = None,
) -> str:
    """Record ``source`` as an experiment that is judged against ``parent``, and queue its run; returns its id.

    Call it inside a transaction. Raises `CandidateError` for what cannot be a fair experiment.
    """
    facts = check_candidate(source, None if parent is None else lab.ledger.stored(parent.candidate_sha256))
    experiment_id = lab.ledger.next_experiment_id()
    committed_at = int(time.time())
    commit = lab.git.commit_with_file(
        session.base_commit if parent is None else parent.commit,
        TRAIN_FILE,
        source,
        commit_message(
            experiment_id,
            session=session.tag,
            parent=None if parent is None else parent.id,
            description=description,
            hypothesis=hypothesis,
            ledger_head=lab.ledger.head(),
        ),
        committed_at,
    )
    lab.ledger.append(
        "experiment_recorded",
        {
            "id": experiment_id,
            "session": session.tag,
            "researcher": researcher,
            "parent": None if parent is None else parent.id,
            "parent_version": parent_version,
            "description": description,
            "hypothesis": hypothesis,
            "candidate_sha256": sha256_hex(source),
            "commit": commit,
            "committed_at": committed_at,
            "program_sha256": session.program_sha256,
            "lines": facts.lines,
            "lines_delta": 0 if parent is None else facts.lines - parent.lines,
            "rebase_of": rebase_of,
        },
        blobs=(source,),
    )
    queue_run(lab, experiment_id, lab.session_config(session))
    return experiment_id


def ensure_ref(lab: Lab, experiment: Experiment) -> None:
    """Make the ref that protects a candidate's commit, if a process died before it did."""
    if lab.git.ref(experiment.ref) is None:
        lab.git.update_ref(experiment.ref, experiment.commit, None)


def commit_message(
    experiment_id: str, *, session: str, parent: str | None, description: str, hypothesis: str, ledger_head: str
) -> str:
    """Return the message of an experiment's commit; it depends on the record alone, so that `repair` can make it again."""
    body = f"{hypothesis}\n\n" if hypothesis else ""
    return (
        f"{experiment_id}: {description}\n\n{body}"
        f"Autoresearch-Session: {session}\n"
        f"Autoresearch-Parent: {parent or 'none'}\n"
        f"Autoresearch-Ledger: {ledger_head}\n"
    )
