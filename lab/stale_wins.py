"""A win whose champion has moved meanwhile: its change is merged onto the new champion, and that is run.

Guarantees: the champion only ever becomes its parent plus a change that was measured on it, so a later result cannot erase an
earlier win; a change is merged by `git merge-file` or not at all, and on a conflict nothing is changed and both diffs are
shown. Does not: keep what it merged. The new experiment is judged like any other, and it is its own confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .candidate import check_candidate, unified_diff
from .confirmation import doubt_of
from .errors import CandidateError, DecisionError, GitError
from .merging import merge_file
from .recording import record_experiment
from .records import Experiment, Session
from .states import NO_ANSWER, Decision

if TYPE_CHECKING:
    from .lab import Lab

MAX_MERGES = 2  # of one idea, one after another; a third time the queue is too long for it, or it is no longer a gain


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleConflict:
    """Why a stale win cannot be merged, with the two changes that meet, as unified diffs from the common parent."""

    reason: str
    champion_diff: str
    own_diff: str


def merged_experiment(lab: Lab, experiment: Experiment) -> Experiment | None:
    """Return the experiment in which this one's change was merged onto a newer champion; None: it was not."""
    found = lab.ledger.experiments("rebase_of = ?", experiment.id, limit=1)
    return found[0] if found else None


def may_run_again(lab: Lab, experiment: Experiment) -> bool:
    """True for a merge whose runs were no answer: its bytes are in nobody's train.py, so `keep` runs them again."""
    return (
        experiment.rebase_of is not None
        and experiment.verdict is not None
        and experiment.decision is Decision.PENDING
        and not experiment.keepable
        and (experiment.verdict in NO_ANSWER or doubt_of(experiment, lab.ledger.runs(experiment.id)) != "")
        and len(origins(lab, experiment)) <= MAX_MERGES
    )


def merge_stale_win(lab: Lab, experiment: Experiment, session: Session) -> str | StaleConflict:
    """Merge a stale win onto the champion and queue its run; returns the new experiment's id, or why it cannot be.

    Call it inside a transaction. Raises `DecisionError` where merging again would lead nowhere.
    """
    champion = lab.champion(session)
    assert champion is not None, "only a kept experiment makes another one stale"
    try:
        merged = record_experiment(
            lab,
            session,
            _merged(lab, experiment, champion, session),
            researcher=experiment.researcher,
            parent=champion,
            parent_version=session.version,
            description=experiment.description,
            hypothesis=experiment.hypothesis,
            rebase_of=experiment.id,
        )
    except _NoMergeError as error:
        return _conflict(lab, experiment, champion, session, str(error))
    except CandidateError as error:
        return _conflict(lab, experiment, champion, session, f"what they make together cannot be an experiment: {error}")
    lesson = f"a stale win: merged onto the champion {champion.id} and run again as {merged}"
    lab.ledger.append("experiment_reverted", {"id": experiment.id, "lesson": lesson})
    return merged


def would_merge(lab: Lab, experiment: Experiment, session: Session) -> bool:
    """Say whether `keep` of a stale win comes to a merged experiment; else it says why not, and changes nothing."""
    champion = lab.champion(session)
    if champion is None:
        return False
    try:
        check_candidate(_merged(lab, experiment, champion, session), lab.source_of(session, champion))
    except (_NoMergeError, CandidateError, DecisionError):
        return False
    return True


class _NoMergeError(Exception):
    """The two changes do not merge; the text says why."""


def _merged(lab: Lab, experiment: Experiment, champion: Experiment, session: Session) -> bytes:
    if len(origins(lab, experiment)) > MAX_MERGES:
        raise DecisionError(
            f"{experiment.id} was merged {MAX_MERGES} times, and has to be run on {champion.id} now. "
            f'Call revert("{experiment.id}", lesson=...) and repeat the change on the champion, if it still promises a gain.'
        )
    parent, ours, theirs = (lab.source_of(session, each) for each in (_parent(lab, experiment), champion, experiment))
    try:
        merge = merge_file(parent, ours, theirs, labels=(experiment.parent or "start", champion.id, experiment.id))
    except GitError as error:
        raise _NoMergeError(f"they cannot be merged: {error}") from error
    if merge.conflicts:
        raise _NoMergeError(f"the two changes touch the same lines in {merge.conflicts} places")
    if merge.content == ours:
        raise DecisionError(
            f"The champion {champion.id} has the change of {experiment.id} already. "
            f'Call revert("{experiment.id}", lesson=...) and go on from the champion.'
        )
    return merge.content


def _conflict(lab: Lab, experiment: Experiment, champion: Experiment, session: Session, reason: str) -> StaleConflict:
    parent, ours, theirs = (lab.source_of(session, each) for each in (_parent(lab, experiment), champion, experiment))
    return StaleConflict(reason=reason, champion_diff=unified_diff(parent, ours), own_diff=unified_diff(parent, theirs))


def origins(lab: Lab, experiment: Experiment) -> list[Experiment]:
    """Return the experiment and those whose change it carries, back to the researcher's own bytes."""
    chain = [experiment]
    while (before := chain[-1].rebase_of) is not None:
        chain.append(lab.ledger.experiment(before))
    return chain


def _parent(lab: Lab, experiment: Experiment) -> Experiment | None:
    return None if experiment.parent is None else lab.ledger.experiment(experiment.parent)
