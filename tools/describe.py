"""From the lab's records to the tools' answers; what several tools say is said here once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..lab import researchers
from ..lab.caller import caller
from ..lab.candidate import HIDDEN, check_candidate
from ..lab.causes import Failure, classify
from ..lab.confirmation import doubt_of, run_that_counts
from ..lab.dispatch import age_of, current_progress, is_finished
from ..lab.errors import LabError
from ..lab.experiments import may_decide
from ..lab.files import sha256_hex
from ..lab.lab import Lab
from ..lab.own_file import OwnFile, Standing, own_file
from ..lab.paths import TRAIN_FILE, WorkspacePaths
from ..lab.programs import DIGITS as PROGRAM_DIGITS
from ..lab.records import Experiment, Researcher, Run, Session
from ..lab.stale_wins import may_run_again, would_merge
from ..lab.states import Decision, Outcome, RunState, Verdict
from .results import ExperimentAnswer, ExperimentSummary, State, cut_bytes

LOG_TAIL_LINES = 20
LOG_TAIL_CHARACTERS = 2_000
_LINE_CHARACTERS = 300
_LOG_BYTES = 1 << 22
_LOG_END_BYTES = 65_536  # an error stands at the end
_CLASSIFIED_LINES = 200
_NOTE_BYTES = 200
_NAME_BYTES = 64
MOST_NAMED = 25  # of what waits; a crowd would fill the answer
_MOST_RESEARCHERS = 12
_CONTROL = re.compile(rf"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|{HIDDEN}")  # escape sequences as a whole
REPORT_CALL = "report()"
_RUN = "run_experiment(description='...', hypothesis='...'{})"
_AGAIN = "run_experiment(description='...') with the same trainer/train.py, once the machine is free"
_MEND = "tell the human to run `autoresearch doctor`, then run_experiment(description='...') with the same trainer/train.py"


def summarise(lab: Lab, experiment: Experiment, *, text_bytes: int = _NOTE_BYTES) -> ExperimentSummary:
    """Return the line of a table for one experiment; description and note are cut to ``text_bytes`` each."""
    return ExperimentSummary(
        id=experiment.id,
        session=experiment.session,
        researcher=shorten(experiment.researcher, _NAME_BYTES),
        program=experiment.program_sha256[:PROGRAM_DIGITS],
        description=shorten(experiment.description, text_bytes),
        parent=experiment.parent,
        merged_from=experiment.rebase_of,
        verdict=experiment.verdict,
        decision=experiment.decision,
        val_bpb=_rounded(experiment.val_bpb, 6),
        delta=_rounded(experiment.delta, 6),
        confidence=_rounded(experiment.confidence, 4),
        note=shorten(experiment.note, text_bytes),
        doubt=doubt_of(experiment, lab.ledger.runs(experiment.id)),
        after_test=experiment.after_test,
    )


def describe(lab: Lab, experiment: Experiment) -> ExperimentAnswer:
    """Return where an experiment stands, with the calls that make sense now."""
    session = lab.ledger.session_now(experiment.session)
    champion = lab.champion(session)
    finished = is_finished(lab, experiment)
    progress = None if finished else current_progress(lab, experiment.id)
    runs = lab.ledger.runs(experiment.id)
    run, result = run_that_counts(experiment, runs) or (None, None)
    has_no_number = finished and run is not None and experiment.val_bpb is None
    failed = run if has_no_number and experiment.verdict is not Verdict.CANCELLED else None
    return ExperimentAnswer(
        experiment=summarise(lab, experiment),
        state=cast(State, "finished" if progress is None else progress.phase),
        hypothesis=shorten(experiment.hypothesis, 500),
        standard_error=_rounded(experiment.standard_error, 8),
        z=_rounded(experiment.z, 3),
        keepable=experiment.keepable and experiment.decision is Decision.PENDING,
        reason=experiment.reason,
        cause=_cause(lab, experiment, runs) if has_no_number else "",
        elapsed_seconds=progress.elapsed_seconds if progress else (result.elapsed_seconds if result else None),
        seconds_left=progress.seconds_left if progress else None,
        step=progress.step if progress else (result.steps if result else None),
        metrics=dict(progress.metrics or {}) if progress else {},
        champion=None if champion is None else champion.id,
        champion_val_bpb=None if champion is None else _rounded(champion.val_bpb, 6),
        others_share=result.others_share if result else None,
        contended=result.contended if result else None,
        tainted=result.tainted if result else None,
        confirming=progress.note if progress else "",
        log_tail=[] if failed is None else log_tail(lab.executor.log(failed.attempt_id, limit=_LOG_BYTES)),
        warnings=_warnings(lab, experiment, session),
        next=_next_calls(lab, experiment, session),
        ledger_head=lab.ledger.head(),
    )


def _cause(lab: Lab, experiment: Experiment, runs: Sequence[Run]) -> str:
    failure = failure_of(lab, experiment, runs)
    return f"{failure.kind}. {failure.hint}"


def failure_of(lab: Lab, experiment: Experiment, runs: Sequence[Run]) -> Failure:
    """Return why a judged experiment has no number; the log of its run may be gone, the record is not."""
    found = run_that_counts(experiment, runs)
    assert found is not None, "a judged experiment's run has a result"
    run, result = found
    crashed = result.outcome is Outcome.CRASHED
    log = lab.executor.log(run.attempt_id, limit=_LOG_BYTES)[-_LOG_END_BYTES:] if crashed else b""
    lines = log_tail(log, lines=_CLASSIFIED_LINES, characters=_LOG_END_BYTES)
    return classify(result.outcome, result.reason, lines)


def log_tail(log: bytes, *, lines: int = LOG_TAIL_LINES, characters: int = LOG_TAIL_CHARACTERS) -> list[str]:
    """Return the last lines of a log as plain text: no control characters, no long lines, a bounded size."""
    kept: list[str] = []
    room = characters
    for line in reversed(clean(log).splitlines()):
        if len(kept) >= lines or room <= 0:
            break
        line = shorten(line, min(_LINE_CHARACTERS, room))
        room -= len(line) + 1
        kept.append(line)
    return kept[::-1]


def clean(text: bytes | str) -> str:
    """Return what a stranger wrote without what could move a cursor or hide text; bytes are decoded."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return _CONTROL.sub("", data.decode(errors="replace").replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """Return at most ``limit`` bytes on one line, without what `clean` takes away."""
    flat = clean(" ".join(text.split()))
    return flat if len(flat.encode()) <= limit else cut_bytes(flat, max(0, limit - 3)) + "..."


def next_without_experiment(lab: Lab, session: Session | None, who: Researcher | None = None) -> list[str]:
    """The calls that make sense when nothing is in flight: decide what is open, then go on, unless somebody said stop.

    For one researcher; where it is not known which, the call that says it.
    """
    if session is None:
        return ["start_session()"] if (ending := _ending(lab, None)) is None else [ending]
    who, ending = who or researcher_called(lab, session), _ending(lab, session)
    waiting = undecided(lab, session, who, limit=MOST_NAMED)
    if who is None and (waiting or ending is None):
        named = "" if caller() else ", researcher='<your name>'"
        return [f"start_session(tag={session.tag!r}{named}), which says what is yours to do"]
    if ending is not None:  # what can be decided at the end comes first
        waiting.sort(key=lambda experiment: _needs_a_run(lab, experiment, session))
    if waiting:
        return _next_calls(lab, waiting[0], session)
    if ending is not None:
        return [REPORT_CALL, ending]
    return _with_own_file(lab, session, who)


def _with_own_file(lab: Lab, session: Session, who: Researcher | None) -> list[str]:
    """Say what to do with a researcher's train.py, so that whoever remembers nothing knows whether it was edited already."""
    file, named = _file_and_name(lab, session, who)
    found = OwnFile(standing=Standing.UNCHANGED) if who is None else own_file(lab, session, who)
    words = shorten(found.words, _NOTE_BYTES)
    run = _RUN.format(named)
    restore = f"revert('workspace'{named})"
    if found.standing is Standing.UNREADABLE:
        return [f"{restore} to write a train.py that can be run: {words}"]
    if session.champion is None:
        return _before_the_first_number(lab, session, found.standing, file, named, words)
    if who is not None and who.base is None:
        return [f"{restore} to start from the champion {session.champion}: the first file has no number"]
    stale = who is not None and who.base_version != session.version
    builds = f": that file builds on {who.base}, and a win is merged onto the champion" if who is not None and stale else ""
    instead = f"{restore} to start from the champion {session.champion} instead"
    if found.standing is Standing.UNRUN:
        edited = f"{run} to try the edit that lies in {file} ({words}){builds}"
        return [edited, instead if stale else f"{restore} to discard that edit, which is saved first"]
    if found.repeats is not None:
        again = f"{run.removesuffix(')')}, again=True)"
        edited = f"{again} to try the edit that lies in {file} ({words}), although {found.repeats.id} was the same idea{builds}"
        return [instead if stale else f"{restore} to discard that edit, which is saved first", edited]
    if found.standing is Standing.REFUSED:
        return [f"repair {file}, which {run} would refuse: {words}", f"{restore} to discard that edit, which is saved first"]
    if found.tried_as is not None:
        tried = f"{found.tried_as.id} ({found.tried_as.verdict or 'running'})"
        return [f"{restore} to start from the champion {session.champion}: {file} is what was tried as {tried}"]
    edit = f"edit {file} (without access to files: read_train, edit_train), then {run}{builds}"
    return [edit, instead] if stale else [edit]


def _before_the_first_number(lab: Lab, session: Session, standing: Standing, file: str, named: str, words: str) -> list[str]:
    failed = lab.ledger.experiments(
        "session = ? AND verdict NOT IN ('cancelled', 'lost')", session.tag, order="rowid DESC", limit=1
    )
    if failed and doubt_of(failed[-1], lab.ledger.runs(failed[-1].id)) == "tainted":
        return [_MEND]
    if not failed and standing is Standing.UNCHANGED:
        return [f"run_experiment(description='baseline'{named}) with the unchanged {file}"]
    if not failed:
        return [f"revert('workspace'{named}): the baseline comes first, and {file} was edited; the edit is saved first"]
    log = f"show_experiment('{failed[-1].id}', part='log')"
    if standing is Standing.UNRUN:
        return [f"run_experiment(description='...'{named}) to try the repair that lies in {file} ({words})", log]
    refused = f", which would be refused: {words}" if standing is Standing.REFUSED else ""
    return [f"repair {file}{refused}, then run_experiment(description='...'{named}); {log} says why it failed", log]


def run_call(lab: Lab, session: Session, who: Researcher) -> str:
    """Return the call that tries a researcher's train.py as it is."""
    return _RUN.format(_file_and_name(lab, session, who)[1])


def researcher_called(lab: Lab, session: Session, name: str = "") -> Researcher | None:
    """Return a researcher of the session; without a name whom this process works for; None where that is not known."""
    try:
        return researchers.find(lab, session, name)
    except LabError:
        return None


def train_file_of(lab: Lab, who: Researcher) -> Path:
    """Return the train.py that a researcher edits."""
    return WorkspacePaths(researchers.folder_of(lab, who)).train


def _file_and_name(lab: Lab, session: Session, who: Researcher | None) -> tuple[str, str]:
    """Return what a researcher's train.py is called in an answer, and the argument with which it says who it is."""
    if who is None:
        return "your train.py", "" if caller() else ", researcher='<your name>'"
    file = str(train_file_of(lab, who)) if who.workspace else TRAIN_FILE
    return file, f", researcher={who.name!r}" if researchers.is_ambiguous(lab, session) else ""


def _ending(lab: Lab, session: Session | None) -> str | None:
    """Return what an agent is told when the human has paused the lab, or a stop rule is met; None: go on."""
    if (paused := lab.paused()) is not None:
        return f"end your turn: the lab is paused ({paused}). Tell the human that research goes on after `autoresearch resume`"
    if session is not None and (reason := lab.stop_reason(session)) is not None:
        return (
            f"stop here and tell the human why: the session {session.tag} has met its stop rule, {reason}. To go on, the human "
            "changes [stop] in autoresearch.toml and runs `autoresearch accept-config`, or asks for start_session(tag='new')"
        )
    return None


def undecided(lab: Lab, session: Session, who: Researcher | None = None, *, limit: int = -1) -> list[Experiment]:
    """Return the experiments of a session, or of one researcher in it, that run or wait for a decision; the oldest first."""
    mine, values = ("", ()) if who is None else (" AND researcher = ?", (who.name,))
    return lab.ledger.experiments(f"session = ? AND decision = ?{mine}", session.tag, Decision.PENDING, *values, limit=limit)


def undecided_ids(lab: Lab, session: Session) -> list[str]:
    """Return the ids of the first undecided experiments; `count_undecided` says how many there are."""
    return [experiment.id for experiment in undecided(lab, session, limit=MOST_NAMED)]


def count_undecided(lab: Lab, session: Session) -> int:
    return lab.ledger.count_experiments("session = ? AND decision = ?", session.tag, Decision.PENDING)


def _next_calls(lab: Lab, experiment: Experiment, session: Session) -> list[str]:
    if not is_finished(lab, experiment):
        queued = not any(run.state is RunState.RUNNING for run in lab.ledger.runs(experiment.id))
        if queued and lab.paused() is not None and (ending := _ending(lab, session)) is not None:
            return [f"{ending}. {experiment.id} is queued and starts then", f"cancel_experiment('{experiment.id}')"]
        waiting = f"wait_experiment('{experiment.id}', after={age_of(experiment):.2f})"
        return [waiting, f"cancel_experiment('{experiment.id}')"] if may_decide(experiment) else [waiting]
    if experiment.decision is Decision.PENDING and may_decide(experiment):
        revert = f"revert('{experiment.id}', lesson='...')"
        keep = f"keep('{experiment.id}', reason='...')"
        if _needs_a_run(lab, experiment, session) and (ending := _ending(lab, session)) is not None:
            return [REPORT_CALL, f"{ending}. {keep} needs another run, so it waits until then", revert]
        if experiment.keepable and _is_stale(experiment, session) and not would_merge(lab, experiment, session):
            by_hand = f"{revert}: its change does not merge onto the champion {session.champion}; make it there by hand"
            return [by_hand, f"{keep} says why, where it can with both diffs"]
        if experiment.keepable:
            return [keep, revert]
        if may_run_again(lab, experiment):
            again = f"{keep} to run that merge again"
            return [revert, again] if experiment.verdict is Verdict.CANCELLED else [again, revert]
        if experiment.rebase_of is not None:
            return [revert]
        doubt = doubt_of(experiment, lab.ledger.runs(experiment.id))
        if doubt and not _lies_there(lab, experiment, session):
            again = f"`git show {experiment.commit[:12]}:{TRAIN_FILE}` has its bytes: put them back to try them again"
            return [revert, again]
        return [_AGAIN, revert] if doubt == "contended" else [_MEND, revert] if doubt == "tainted" else [revert]
    return next_without_experiment(lab, session, researcher_called(lab, session, caller() or experiment.researcher))


def researcher_lines(lab: Lab, session: Session) -> list[str]:
    """Return who works in a session, where, and on which champion."""
    there = lab.ledger.researchers(session.tag)
    lines = [
        f"{who.name} in {who.workspace or 'the lab folder'}, building on {who.base or 'the first train.py'}"
        for who in there[:_MOST_RESEARCHERS]
    ]
    return [*lines, f"{len(there) - len(lines)} more"] if len(there) > len(lines) else lines


def _lies_there(lab: Lab, experiment: Experiment, session: Session) -> bool:
    """True where an experiment's bytes are what its researcher's train.py holds."""
    who = researcher_called(lab, session, experiment.researcher)
    try:
        return who is not None and sha256_hex(lab.train_file(who)) == experiment.candidate_sha256
    except LabError:
        return False


def _needs_a_run(lab: Lab, experiment: Experiment, session: Session) -> bool:
    """True for what `keep` would not keep, but queue."""
    return (experiment.keepable and _is_stale(experiment, session)) or may_run_again(lab, experiment)


def _is_stale(experiment: Experiment, session: Session) -> bool:
    """True when the champion is no longer the one that the experiment was judged against."""
    return session.version != experiment.parent_version


def _warnings(lab: Lab, experiment: Experiment, session: Session) -> list[str]:
    if experiment.keepable and experiment.decision is Decision.PENDING and _is_stale(experiment, session):
        return [
            f"A stale win: it was judged against {experiment.parent}, but the champion is {session.champion} now. keep merges "
            "its change onto that champion and runs it again, before new ideas."
        ]
    source = lab.ledger.blob(experiment.candidate_sha256)
    if source is None or experiment.verdict is not None:
        return []
    try:
        return list(check_candidate(source, None).warnings)
    except LabError:
        return []


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
