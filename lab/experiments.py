"""What a researcher may do with experiments: propose, cancel, keep, revert. Each is idempotent and loses nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from . import researchers
from .calibration import calibrate_once
from .caller import caller
from .confirmation import confirmations_there, doubt_of, evidence_of, is_confirmed
from .dispatch import dispatch, finish, wait_for_dispatch_lock
from .errors import CandidateError, DecisionError, StoppedError
from .executor import RunLostError, RunResult
from .files import sha256_hex
from .lab import Lab
from .leftovers import drop_claims
from .recording import ensure_ref, queue_run, record_experiment
from .records import Experiment, Researcher, Run, Session
from .similar import require_new
from .stale_wins import StaleConflict, may_run_again, merge_stale_win, merged_experiment, origins
from .states import NO_ANSWER, Decision, Outcome, Purpose, RunState

WORKSPACE = "workspace"  # what `revert` takes instead of an id to discard edits that were never run
MAX_DESCRIPTION = 500
MAX_HYPOTHESIS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What `keep` came to.

    Attributes:
        experiment: the one that was asked for.
        merged: where it was a stale win, the experiment that carries its change onto the new champion.
        conflict: why there is none; nothing was changed then.
    """

    experiment: Experiment
    merged: Experiment | None = None
    conflict: StaleConflict | None = None


def propose(
    lab: Lab, *, description: str, hypothesis: str, researcher: str = "", again: bool = False
) -> tuple[Experiment, bool]:
    """Record a researcher's train.py as an experiment and queue its run; returns it and whether it is new.

    It is judged against the champion that the file builds on. Calling again with the same bytes while it is undecided returns
    the same experiment. Without a name: the researcher that this process works for. ``again``: also where the session has
    tried the same idea.
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
    before = researchers.at_work(lab, session, researcher)
    source = lab.train_file(before)
    sha256 = sha256_hex(source)
    with lab.ledger.transaction():
        session = lab.ledger.session_now(session.tag)
        who = researchers.find(lab, session, before.name)
        if (who.workspace, who.base_version) != (before.workspace, before.base_version):
            raise CandidateError(
                f"What the train.py of {who.name} builds on changed while it was read ({who.base or 'the first file'} now). "
                "Look at it, then call run_experiment again."
            )
        if (known := _already_tried(lab, session, who, sha256)) is not None:
            ensure_ref(lab, known)
            return known, False
        _require_going_on(lab, session)
        if session.champion is None:
            _require_baseline_first(lab, session, sha256)
        elif who.base is None:
            raise CandidateError(
                "trainer/train.py builds on the file that the session started with, which has no number; the champion is "
                f'{session.champion}. Call revert("{WORKSPACE}") (your edit is saved first) to start from the champion.'
            )
        parent = None if who.base is None else lab.ledger.experiment(who.base)
        if parent is not None and not again and not _was_accepted(lab, session, sha256):
            require_new(lab, session, who, parent, source)
        experiment_id = record_experiment(
            lab,
            session,
            source,
            researcher=who.name,
            parent=parent,
            parent_version=who.base_version,
            description=description,
            hypothesis=hypothesis,
        )
        replaced = _replace_doubtful(lab, session, sha256, by=experiment_id)
    for experiment in replaced:
        drop_claims(lab, experiment)
    ensure_ref(lab, lab.ledger.experiment(experiment_id))
    calibrate_once(lab)  # before the run, and outside of every lock
    dispatch(lab)
    return lab.ledger.experiment(experiment_id), True


def cancel(lab: Lab, experiment_id: str) -> Experiment:
    """End an experiment's runs, queued or running; a finished one is returned as it is."""
    _require_own(lab.ledger.experiment(experiment_id))  # an unknown one is refused before the wait
    with wait_for_dispatch_lock(lab):
        for run in lab.ledger.runs(experiment_id):
            if (ended := _ended(lab, run)) is not None:  # which was not recorded yet
                finish(lab, run, ended)
            elif run.state is RunState.QUEUED:
                with suppress(KeyError):  # started by a process that died before it said so
                    lab.executor.cancel(run.attempt_id)
                finish(lab, run, RunResult(outcome=Outcome.CANCELLED, reason="cancelled before it started"))
            elif run.state is RunState.RUNNING:
                try:
                    lab.executor.cancel(run.attempt_id)
                except KeyError:  # its folder is gone, and with it what would keep it from being tried again
                    reason = "cancelled; its run folder is gone"
                    finish(lab, run, RunResult(outcome=Outcome.CANCELLED, reason=reason))
    return lab.ledger.experiment(experiment_id)


def _ended(lab: Lab, run: Run) -> RunResult | None:
    """Return the result of a run that has one and is not finished in the record."""
    if run.state is RunState.FINISHED:
        return None
    try:
        return lab.executor.result(run.attempt_id)
    except RunLostError:
        return None


def confirm(lab: Lab, experiment_id: str, seeds: int) -> Experiment:
    """Have an experiment measured with so many fresh seeds, those that it has included; returns it as it is then.

    Its number rests on those alone from then on. Undecided, it is judged anew, but not where enough fresh seeds have said no:
    else whoever asks often enough gets a yes. What gave no answer, as one that was cancelled, is run again with its own seed.
    Raises `DecisionError` where there is nothing to confirm.
    """
    _require_own(lab.ledger.experiment(experiment_id))
    with lab.ledger.transaction():
        experiment = lab.ledger.experiment(experiment_id)
        if experiment.verdict is None:
            return experiment
        if experiment.val_bpb is None:
            raise DecisionError(
                f"{experiment_id} is {experiment.verdict} and has no number to confirm. "
                f"show_experiment('{experiment_id}', part='log') says why."
            )
        runs = lab.ledger.runs(experiment_id)
        if doubt_of(experiment, runs) == "tainted":
            raise DecisionError(
                f"{experiment_id} is tainted, and fresh seeds do not mend that. {experiment.reason} "
                "Once it is mended, run_experiment accepts the same bytes again."
            )
        there = confirmations_there(runs)
        session = lab.ledger.session_now(experiment.session)
        has_lost = is_confirmed(runs) and not experiment.keepable
        if seeds > there and experiment.decision is Decision.PENDING and not has_lost:
            lab.ledger.append("experiment_reopened", {"id": experiment_id})
        for _ in range(seeds - there):
            queue_run(lab, experiment_id, lab.session_config(session), Purpose.CONFIRM)
    dispatch(lab)
    return lab.ledger.experiment(experiment_id)


def keep(lab: Lab, experiment_id: str, reason: str) -> Kept:
    """Make an experiment the champion, if the gate allows it and the champion is still the one it was judged against.

    Where the champion has moved, its change is merged onto the new one and queued, or the conflict is returned.
    Raises `DecisionError` with the reason and the next step otherwise; nothing is changed then.
    """
    conflict: StaleConflict | None = None
    _require_own(lab.ledger.experiment(experiment_id))
    with lab.ledger.transaction():
        if (merged := merged_experiment(lab, lab.ledger.experiment(experiment_id))) is None:
            experiment, session = _undecided(lab, experiment_id, Decision.KEPT)
            if experiment.decision is Decision.PENDING:
                conflict = _keep(lab, experiment, session, reason.strip())
            merged = merged_experiment(lab, experiment)
    experiment = lab.ledger.experiment(experiment_id)
    ensure_ref(lab, experiment)
    if merged is not None:
        drop_claims(lab, experiment)
        ensure_ref(lab, merged)
        dispatch(lab)
        return Kept(experiment=experiment, merged=lab.ledger.experiment(merged.id))
    session = lab.ledger.session_now(experiment.session)
    lab.align_branch(session)
    if conflict is None:
        _follow_merge(lab, session, experiment)
    return Kept(experiment=experiment, conflict=conflict)


def _keep(lab: Lab, experiment: Experiment, session: Session, reason: str) -> StaleConflict | None:
    again = may_run_again(lab, experiment)
    if not experiment.keepable and not again:
        raise DecisionError(
            f"{experiment.id} cannot be kept: it is {experiment.verdict}. {experiment.reason} "
            f'Call revert("{experiment.id}", lesson=...) and go on from the champion.'
        )
    if (moved := lab.align_branch(session)) is not None:
        raise DecisionError(moved)
    if again or experiment.parent_version != session.version:
        _require_going_on(lab, session)
        made = merge_stale_win(lab, experiment, session)
        return made if isinstance(made, StaleConflict) else None
    event = {"id": experiment.id, "session": session.tag, "version": experiment.parent_version, "reason": reason}
    lab.ledger.append("experiment_kept", event | _by())
    return None


def _follow_merge(lab: Lab, session: Session, experiment: Experiment) -> None:
    """After a merged experiment was kept, give its researcher the champion's train.py, unless that has gone on already."""
    carried = {origin.candidate_sha256 for origin in origins(lab, experiment)[1:]}
    if not carried or experiment.id != session.champion:
        return
    with suppress(CandidateError, DecisionError):  # who is gone, or whose train.py is: `revert` restores it
        who = _researcher(lab, session, experiment)
        if who is not None and (current := sha256_hex(lab.train_file(who))) in carried:
            researchers.restore_train_file(lab, session, who, expected=current)


def revert(lab: Lab, experiment_id: str, lesson: str, researcher: str = "") -> tuple[Experiment | None, str | None]:
    """Decide against an experiment, or against unrun edits ("workspace"), and restore its researcher's train.py.

    ``researcher`` says whose workspace. Returns the experiment and the ref under which unknown content of train.py was saved
    first, if there was any. An experiment of another session than this process works in leaves train.py alone.
    """
    if experiment_id == WORKSPACE:
        session = lab.session()
        who = researchers.at_work(lab, session, researcher)
        return None, researchers.restore_train_file(lab, session, who, expected=None)
    _require_own(lab.ledger.experiment(experiment_id))
    with lab.ledger.transaction():
        experiment, session = _undecided(lab, experiment_id, Decision.REVERTED)
        if experiment.decision is Decision.PENDING:
            lab.ledger.append("experiment_reverted", {"id": experiment_id, "lesson": lesson.strip()} | _by())
    who = _researcher(lab, session, experiment)
    backup = None
    if who is not None and session.tag == lab.session().tag:  # its folder may be in use by another session
        backup = researchers.restore_train_file(lab, session, who, expected=experiment.candidate_sha256)
    reverted = lab.ledger.experiment(experiment_id)
    drop_claims(lab, reverted)
    return reverted, backup


def may_decide(experiment: Experiment) -> bool:
    """True unless a token says that the caller is another than the experiment's researcher."""
    return caller() in ("", experiment.researcher)


def _require_own(experiment: Experiment) -> None:
    """Refuse a decision about an experiment of another researcher than the token's; whoever has no token is not told apart."""
    if not may_decide(experiment):
        raise DecisionError(
            f"{experiment.id} is {experiment.researcher}'s experiment, and you call as {caller()}: a researcher decides about "
            f'its own. Go on with yours; show_experiment("{experiment.id}") reads this one. The human decides about any, with '
            "`autoresearch keep`, `revert` or `cancel`."
        )


def _by() -> dict[str, str]:
    """What an event of a decision says of who made it, where a token tells."""
    return {"by": name} if (name := caller()) else {}


def _researcher(lab: Lab, session: Session, experiment: Experiment) -> Researcher | None:
    """Return whose experiment it is, if they still work in the session."""
    there = lab.ledger.researchers(session.tag)
    return next((researcher for researcher in there if researcher.name == experiment.researcher), None)


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
    return experiment, lab.ledger.session_now(experiment.session)


def _was_accepted(lab: Lab, session: Session, sha256: str) -> bool:
    """True for bytes that are tried again since they got no answer without doubt, whoever had the same idea meanwhile."""
    return bool(lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, sha256, limit=1))


def _already_tried(lab: Lab, session: Session, who: Researcher, sha256: str) -> Experiment | None:
    """Return the researcher's undecided experiment with these bytes; refuse bytes that others try, or that have an answer.

    An answer in doubt does not count.
    """
    same = lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, sha256, order="rowid DESC")
    for experiment in same:
        if experiment.id != session.champion and _is_doubtful(lab, experiment):
            continue
        if experiment.decision is Decision.PENDING and experiment.verdict not in NO_ANSWER:
            if experiment.researcher != who.name:
                raise CandidateError(
                    f"{experiment.researcher} has proposed these bytes as {experiment.id}, which is undecided. Try another "
                    f'idea meanwhile; wait_experiment("{experiment.id}") tells what comes of it.'
                )
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
    return doubt_of(experiment, lab.ledger.runs(experiment.id)) != ""


def _replace_doubtful(lab: Lab, session: Session, sha256: str, *, by: str) -> list[Experiment]:
    """Revert the undecided experiments with the same bytes whose answer was in doubt (``by`` answers instead); return them."""
    same = lab.ledger.experiments(
        "session = ? AND candidate_sha256 = ? AND decision = ? AND id != ?", session.tag, sha256, Decision.PENDING, by
    )
    doubtful = [experiment for experiment in same if _is_doubtful(lab, experiment)]
    for experiment in doubtful:
        lab.ledger.append("experiment_reverted", {"id": experiment.id, "lesson": f"tried again as {by}"})
    return [lab.ledger.experiment(experiment.id) for experiment in doubtful]


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
    if sha256 == session.base_sha256:
        return
    tried = lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, session.base_sha256)
    baselines = [experiment for experiment in tried if experiment.verdict not in NO_ANSWER]
    evidence = evidence_of(baselines[-1], lab.ledger.runs(baselines[-1].id)) if baselines else None
    if evidence is not None and evidence.tainted:
        raise CandidateError(
            f"The baseline {baselines[-1].id} is tainted ({evidence.tainted}), so the session has no number yet. The human "
            f'mends that (`autoresearch doctor`, `autoresearch init`); then call revert("{WORKSPACE}") (your edit is saved '
            'first) and run_experiment(description="baseline") again.'
        )
    if not baselines:
        raise CandidateError(
            "The session has no baseline yet, and trainer/train.py differs from the file it started with. "
            f'Call revert("{WORKSPACE}") (your edit is saved first), then run_experiment(description="baseline").'
        )
    for running in lab.ledger.experiments("session = ? AND verdict IS NULL", session.tag):
        raise CandidateError(f'The baseline {running.id} is still running. Call wait_experiment("{running.id}").')
