"""Recording an experiment: its commit, its event, and its runs in the queue, in the caller's transaction."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from .candidate import check_candidate
from .config import LabConfig
from .confirmation import seed_to_repeat
from .devices import device_kind
from .files import sha256_hex
from .paths import TRAIN_FILE
from .records import Experiment, Run, Session
from .states import Purpose
from .themes import Change, change_of

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
    before = None if parent is None else lab.ledger.stored(parent.candidate_sha256)
    facts = check_candidate(source, before)
    change = None if before is None else change_of(check_candidate(before, None), facts, before, source, description)
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
            **_recorded(change),
        },
        blobs=(source,),
    )
    # What is merged was selected before, by another run: its own first number confirms.
    queue_run(lab, experiment_id, lab.session_config(session), Purpose.PROPOSED if rebase_of is None else Purpose.CONFIRM)
    return experiment_id


def queue_run(lab: Lab, experiment_id: str, config: LabConfig, purpose: Purpose) -> str:
    """Record that an experiment is to be run, or run once more: with a seed of its own, when its kind of device is free.

    A confirmation takes a seed that its bytes were to be confirmed with before, if there is such. Returns the run's id.
    """
    runs = lab.ledger.runs(experiment_id)
    seed = seed_to_repeat(runs, _of_same_bytes(lab, experiment_id)) if purpose is Purpose.CONFIRM else None
    if purpose is Purpose.TEST:  # numbered apart, so that the others tell nothing of them
        run_id = f"{experiment_id}.test{len(lab.ledger.test_runs(experiment_id)) + 1}"
    else:
        run_id = f"{experiment_id}.{len(runs) + 1}"
    lab.ledger.append(
        "run_queued",
        {
            "id": run_id,
            "experiment": experiment_id,
            "seed": secrets.randbelow(2**31) if seed is None else seed,
            "purpose": purpose,
            "device": device_kind(config),
        },
    )
    return run_id


def _of_same_bytes(lab: Lab, experiment_id: str) -> list[Run]:
    """Return the runs of the session's other experiments with the same train.py, the oldest first."""
    experiment = lab.ledger.experiment(experiment_id)
    where = "session = ? AND candidate_sha256 = ? AND id != ?"
    others = lab.ledger.experiments(where, experiment.session, experiment.candidate_sha256, experiment_id)
    return [run for other in others for run in lab.ledger.runs(other.id)]


def _recorded(change: Change | None) -> dict[str, Any]:
    """Return what the record says of a change; a baseline changes nothing."""
    if change is None:
        return {"theme": "baseline", "changes": "{}", "added": 0, "removed": 0}
    changes = json.dumps({name: list(pair) for name, pair in change.constants.items()}, sort_keys=True)
    return {"theme": change.theme, "changes": changes, "added": change.added, "removed": change.removed}


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
