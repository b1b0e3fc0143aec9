"""What a researcher may do with experiments: propose, cancel, keep, revert. Each is idempotent and loses nothing."""

from __future__ import annotations

import time
from contextlib import suppress

from .calibration import calibrate_once
from .candidate import check_candidate
from .confirmation import may_be_repeated, weigh
from .dispatch import dispatch, judge_experiment, queue_run, results_of, wait_for_dispatch_lock
from .errors import CandidateError, DecisionError, StoppedError
from .executor import RunResult
from .files import sha256_hex, write_atomically
from .lab import Lab
from .ledger import StaleChampionError, result_to_json
from .paths import TRAIN_FILE
from .records import Experiment, Session
from .states import NO_ANSWER, Decision, Outcome, RunState

WORKSPACE = "workspace"  # what `revert` takes instead of an id to discard edits that were never run
MAX_DESCRIPTION = 500
MAX_HYPOTHESIS = 2000
_BACKUP_BYTES = 16 << 20


def propose(lab: Lab, *, description: str, hypothesis: str) -> tuple[Experiment, bool]:
    """Record the workspace's train.py as an experiment and queue its run; returns it and whether it is new.

    Calling again with the same bytes while it is undecided returns the same experiment.
    Raises `CandidateError` for what cannot be a fair experiment; no device time is used then.
    """
    lab.require_isolation()
    session = lab.session()
    lab.trainer(lab.session_config(session))
    description, hypothesis = description.strip(), hypothesis.strip()
    if not 3 <= len(description) <= MAX_DESCRIPTION:
        raise CandidateError(f"description has {len(description)} characters; say in 3 to {MAX_DESCRIPTION} what changed.")
    if len(hypothesis) > MAX_HYPOTHESIS:
        raise CandidateError(f"hypothesis has {len(hypothesis)} characters; the limit is {MAX_HYPOTHESIS}.")
    source = lab.train_file()
    sha256 = sha256_hex(source)
    with lab.ledger.transaction():
        session = _session(lab, session.tag)
        if (known := _already_tried(lab, session, sha256)) is not None:
            _ensure_ref(lab, known)
            return known, False
        _require_going_on(lab, session)
        champion = lab.champion(session)
        parent_source = None if champion is None else lab.champion_source(session)
        if champion is None:
            _require_baseline_first(lab, session, sha256)
        facts = check_candidate(source, parent_source)
        parent_lines = facts.lines if champion is None else champion.lines
        experiment_id = lab.ledger.next_experiment_id()
        committed_at = int(time.time())
        commit = lab.git.commit_with_file(
            session.base_commit if champion is None else champion.commit,
            TRAIN_FILE,
            source,
            commit_message(
                experiment_id,
                session=session.tag,
                parent=None if champion is None else champion.id,
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
                "researcher": session.researcher,
                "parent": None if champion is None else champion.id,
                "parent_version": session.version,
                "description": description,
                "hypothesis": hypothesis,
                "candidate_sha256": sha256,
                "commit": commit,
                "committed_at": committed_at,
                "program_sha256": session.program_sha256,
                "lines": facts.lines,
                "lines_delta": facts.lines - parent_lines,
            },
            blobs=(source,),
        )
        queue_run(lab, experiment_id, lab.session_config(session))
        _replace_doubtful(lab, session, sha256, by=experiment_id)
    _ensure_ref(lab, lab.ledger.experiment(experiment_id))
    calibrate_once(lab)  # before the run, and outside of every lock
    dispatch(lab)
    return lab.ledger.experiment(experiment_id), True


def cancel(lab: Lab, experiment_id: str) -> Experiment:
    """End an experiment's runs, queued or running; a finished one is returned as it is."""
    experiment = lab.ledger.experiment(experiment_id)
    with wait_for_dispatch_lock(lab):
        for run in lab.ledger.runs(experiment_id):
            if run.state is RunState.QUEUED:
                with suppress(KeyError):  # started by a process that died before it said so
                    lab.executor.cancel(run.attempt_id)
                result = RunResult(outcome=Outcome.CANCELLED, reason="cancelled before it started")
                with lab.ledger.transaction():
                    lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
                    judge_experiment(lab, experiment, result)
            elif run.state is RunState.RUNNING:
                lab.executor.cancel(run.attempt_id)
    return lab.ledger.experiment(experiment_id)


def keep(lab: Lab, experiment_id: str, reason: str) -> Experiment:
    """Make an experiment the champion, if the gate allows it and the champion is still the one it was judged against.

    Raises `DecisionError` with the reason and the next step otherwise; nothing is changed then.
    """
    with lab.ledger.transaction():
        experiment, session = _undecided(lab, experiment_id, Decision.KEPT)
        if experiment.decision is Decision.PENDING:
            _keep(lab, experiment, session, reason.strip())
    _ensure_ref(lab, experiment)
    lab.align_branch(_session(lab, session.tag))
    return lab.ledger.experiment(experiment_id)


def _keep(lab: Lab, experiment: Experiment, session: Session, reason: str) -> None:
    if not experiment.keepable:
        raise DecisionError(
            f"{experiment.id} cannot be kept: it is {experiment.verdict}. {experiment.reason} "
            f'Call revert("{experiment.id}", lesson=...) and go on from the champion.'
        )
    if (moved := lab.align_branch(session)) is not None:
        raise DecisionError(moved)
    try:
        lab.ledger.append(
            "experiment_kept",
            {"id": experiment.id, "session": session.tag, "version": experiment.parent_version, "reason": reason},
        )
    except StaleChampionError:
        raise DecisionError(
            f"{experiment.id} was judged against {experiment.parent}, but the champion is {session.champion} now: a stale "
            f'win. Call revert("{experiment.id}", lesson=...), repeat the change on the champion, and run_experiment.'
        ) from None


def revert(lab: Lab, experiment_id: str, lesson: str) -> tuple[Experiment | None, str | None]:
    """Decide against an experiment, or against unrun edits ("workspace"), and restore train.py to the champion's.

    Returns the experiment and the ref under which unknown content of train.py was saved first, if there was any.
    """
    if experiment_id == WORKSPACE:
        return None, restore_train_file(lab, lab.session(), expected=None)
    with lab.ledger.transaction():
        experiment, session = _undecided(lab, experiment_id, Decision.REVERTED)
        if experiment.decision is Decision.PENDING:
            lab.ledger.append("experiment_reverted", {"id": experiment_id, "lesson": lesson.strip()})
    return lab.ledger.experiment(experiment_id), restore_train_file(lab, session, expected=experiment)


def restore_train_file(lab: Lab, session: Session, *, expected: Experiment | None) -> str | None:
    """Write the champion's train.py into the workspace; content that is not ``expected`` is saved under a ref first."""
    wanted = lab.champion_source(session)
    if lab.workspace.train.is_file() and lab.workspace.train.stat().st_size > _BACKUP_BYTES:
        raise DecisionError(f"{lab.workspace.train} is too large to be saved: move it away, then call revert again.")
    try:
        current: bytes | None = lab.train_file(_BACKUP_BYTES)
    except CandidateError:
        current = None  # missing or a link: replaced, and a link's target stays untouched
    if current == wanted:
        return None
    backup = None
    if current is not None and (expected is None or sha256_hex(current) != expected.candidate_sha256):
        blob = lab.git.store_blob(current)
        backup = f"refs/autoresearch/backup/{session.tag}-{blob[:12]}"
        if lab.git.ref(backup) is None:
            lab.git.update_ref(backup, blob, None)
    write_atomically(lab.workspace.train, wanted, beneath=lab.root)
    lab.ledger.append("train_file_restored", {"session": session.tag, "sha256": sha256_hex(wanted), "backup": backup})
    return backup


def _undecided(lab: Lab, experiment_id: str, wanted: Decision) -> tuple[Experiment, Session]:
    """Return an experiment that may become ``wanted``, or already is (calls are idempotent)."""
    experiment = lab.ledger.experiment(experiment_id)
    if experiment.verdict is None:
        raise DecisionError(
            f'{experiment_id} is not finished. Call wait_experiment("{experiment_id}"), or cancel_experiment to end it.'
        )
    if experiment.decision not in (Decision.PENDING, wanted):
        raise DecisionError(
            f"{experiment_id} is already {experiment.decision}, and a decision is made once. "
            "Edit trainer/train.py and call run_experiment to try something else."
        )
    return experiment, _session(lab, experiment.session)


def _ensure_ref(lab: Lab, experiment: Experiment) -> None:
    """Make the ref that protects a candidate's commit, if a process died before it did."""
    name = f"refs/autoresearch/{experiment.session}/{experiment.id}"
    if lab.git.ref(name) is None:
        lab.git.update_ref(name, experiment.commit, None)


def _session(lab: Lab, tag: str) -> Session:
    """Return a session as it stands now: another server may have kept something meanwhile."""
    session = lab.ledger.session(tag)
    assert session is not None, "a session is never removed"
    return session


def _already_tried(lab: Lab, session: Session, sha256: str) -> Experiment | None:
    """Return the undecided experiment with these bytes; refuse bytes that are decided, unless their answer is in doubt."""
    same = lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, sha256, order="rowid DESC")
    for experiment in same:
        if experiment.id != session.champion and _is_doubtful(lab, experiment):
            continue
        if experiment.decision is Decision.PENDING and experiment.verdict not in NO_ANSWER:
            return experiment
        if experiment.id == session.champion:
            raise CandidateError(
                f"trainer/train.py is unchanged: it is the champion {experiment.id}. Edit it, then call run_experiment."
            )
        if experiment.verdict not in NO_ANSWER:
            raise CandidateError(
                f"These bytes were tried as {experiment.id} ({experiment.verdict}, {experiment.decision}): "
                f"{experiment.description}. Change trainer/train.py, or see show_experiment('{experiment.id}')."
            )
    return None


def _is_doubtful(lab: Lab, experiment: Experiment) -> bool:
    """True for a judged experiment whose runs never had the device to themselves, or are tainted."""
    return experiment.verdict is not None and may_be_repeated(results_of(lab, experiment.id))


def _replace_doubtful(lab: Lab, session: Session, sha256: str, *, by: str) -> None:
    """Revert the undecided experiments with the same bytes whose answer was in doubt: ``by`` answers in their place."""
    same = lab.ledger.experiments(
        "session = ? AND candidate_sha256 = ? AND decision = ? AND id != ?", session.tag, sha256, Decision.PENDING, by
    )
    for experiment in same:
        if _is_doubtful(lab, experiment):
            lab.ledger.append("experiment_reverted", {"id": experiment.id, "lesson": f"tried again as {by}"})


def _require_going_on(lab: Lab, session: Session) -> None:
    """Raise `StoppedError` while the human has paused the lab, and once the session has met a stop rule."""
    if (paused := lab.paused()) is not None:
        raise StoppedError(
            f"The lab is paused: {paused}. Nothing is lost, train.py stays as it is. Tell the human and end your turn; "
            "research goes on after `autoresearch resume`."
        )
    if (reason := lab.stop_reason(session)) is not None:
        raise StoppedError(
            f"The session {session.tag} has met its stop rule: {reason}. Decide what is undecided, call report, tell the "
            "human, and end. To go on, the human changes [stop] in autoresearch.toml and runs `autoresearch accept-config`, "
            'or asks for start_session(tag="new").'
        )


def _require_baseline_first(lab: Lab, session: Session, sha256: str) -> None:
    """The first number of a session is its unchanged train.py; a repair is accepted once that failed to get one.

    A tainted baseline did not fail: it is run again as it was.
    """
    baselines = lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, session.base_sha256)
    if sha256 == session.base_sha256:
        return
    if baselines and (results := results_of(lab, baselines[-1].id)) and (tainted := weigh(results).tainted):
        raise CandidateError(
            f"The baseline {baselines[-1].id} is tainted ({tainted}), so the session has no number yet. The human mends that "
            f'(`autoresearch doctor`, `autoresearch init`); then call revert("{WORKSPACE}") (your edit is saved first) and '
            'run_experiment(description="baseline") again.'
        )
    if not baselines:
        raise CandidateError(
            "The session has no baseline yet, and trainer/train.py differs from the file it started with. "
            f'Call revert("{WORKSPACE}") (your edit is saved first), then run_experiment(description="baseline").'
        )
    for running in lab.ledger.experiments("session = ? AND verdict IS NULL", session.tag):
        raise CandidateError(f'The baseline {running.id} is still running. Call wait_experiment("{running.id}").')


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
