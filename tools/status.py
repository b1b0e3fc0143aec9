"""status: where the lab stands, and what is enforced here."""

from __future__ import annotations

from ..lab.config import LabConfig
from ..lab.disk import disk_warning
from ..lab.dispatch import dispatch, stopped_dispatcher
from ..lab.errors import CandidateError, DiskError, NotReadyError
from ..lab.installed import installed_harness
from ..lab.isolation import acceptance, listed
from ..lab.lab import Lab, group_of
from ..lab.machine import command_path
from ..lab.rules import unaccepted_changes
from ..lab.states import Purpose, RunState
from .describe import MOST_NAMED, count_undecided, next_without_experiment, researcher_lines, summarise, undecided_ids
from .results import StatusAnswer

_EVIDENT = (
    "Against an agent, which usually has a shell as the same user, the lab is tamper-evident, not tamper-proof: it can change "
    "files of this user, and `autoresearch verify` and the pins show it. Another user, container or host for the server makes "
    "it proof."
)


def status(lab: Lab) -> StatusAnswer:
    """Say where the lab stands: session, champion, what runs, what waits for a decision, what is enforced.

    Use it to answer the human, or when something seems stuck. Next: what it lists.
    """
    refused = dispatch(lab)
    disks = {folder.stat().st_dev: folder for folder in (lab.root, lab.state.root)}.values()
    told = (refused, stopped_dispatcher(lab), *map(disk_warning, disks))
    warnings = [warning for warning in told if warning is not None]
    try:
        session = lab.session()
    except NotReadyError:
        session = None
    config = lab.session_config(session) if session else lab.config()
    try:
        conditions = lab.conditions(config)
        corpus = f"{config.corpus_name} ({conditions['corpus']})"
        if session is not None and group_of(conditions) != session.group:
            warnings.append("The conditions changed since the session began: start a new one for comparable numbers.")
    except NotReadyError as error:
        corpus = f"{config.corpus_name}: {error}"
    if installed_harness() != lab.harness():
        warnings.append("The installed harness differs from the pinned one, which is used. To adopt it: autoresearch init")
    warnings += unaccepted_changes(lab)
    if (paused := lab.paused()) is not None:
        warnings.append(f"Paused: {paused}. No experiment starts until `autoresearch resume`.")
    if session is not None:
        if (stop := lab.stop_reason(session)) is not None:
            warnings.append(f"The session has met its stop rule: {stop}.")
        try:
            moved = lab.align_branch(session)
        except DiskError as error:  # the next call moves it
            moved = str(error)
        if moved is not None:
            warnings.append(moved)
        if lab.git.head_branch() == session.branch:
            warnings.append(
                f"HEAD is on autoresearch/{session.tag}, which keep moves: git then shows train.py as staged, and a commit "
                "there stops keep. Run: git switch --detach && git restore --staged trainer/train.py"
            )
        try:
            if lab.train_file() != lab.champion_source(session):
                warnings.append("trainer/train.py differs from the champion's: expected while an idea is being tried.")
        except CandidateError as error:
            warnings.append(f"{error}; revert('workspace') writes the champion's.")
    champion = lab.champion(session) if session else None
    running, queued = (
        [run.experiment for run in lab.ledger.runs_in_state(state) if run.purpose is not Purpose.TEST]
        for state in (RunState.RUNNING, RunState.QUEUED)
    )
    device, device_free = _device(lab, config)
    return StatusAnswer(
        lab=str(lab.root),
        session=session.tag if session else None,
        champion=summarise(lab, champion) if champion else None,
        running=running,
        queued=queued[:MOST_NAMED],
        queued_count=len(queued),
        undecided=undecided_ids(lab, session) if session else [],
        undecided_count=count_undecided(lab, session) if session else 0,
        researchers=researcher_lines(lab, session) if session else [],
        experiments=lab.ledger.count_experiments(),
        corpus=corpus,
        device=device,
        device_free=device_free,
        isolation=isolation_text(lab),
        warnings=warnings,
        next=next_without_experiment(lab, session),
        ledger_head=lab.ledger.head(),
    )


def _device(lab: Lab, config: LabConfig) -> tuple[str, bool]:
    """Return the devices that experiments run on, and whether one of them is free."""
    try:
        usable, kind = lab.devices.usable(config), lab.devices.device_class(config)
    except NotReadyError as error:
        return str(error), False
    capacity = lab.executor.capacity()
    return f"{', '.join(usable)} ({kind})", any(capacity.get(device, (0, 1))[0] for device in usable)


def isolation_text(lab: Lab) -> str:
    """Return one paragraph: what is prevented on this machine, what is not, what is only evident, and whether it is allowed."""
    isolation = lab.isolation
    text = f"Isolation level {isolation.level}: a train.py "
    text += f"cannot {listed(isolation.prevents, 'or')}" if isolation.prevents else "is kept from nothing"
    if not isolation.needs_acceptance:
        also = f", and {listed(isolation.can)}" if isolation.can else ""
        text += ". It is given no training data before the clock starts and no validation data, and is scored elsewhere"
        return f"{text}. It can still use its share of the machine, and read torch and compilers{also}. {_EVIDENT}"
    text += f". It can {listed(isolation.can)}, so a number can be forged; "
    if lab.config().sandbox.allow_unsandboxed:
        return f"{text}the human allows that ([sandbox] allow_unsandboxed). {_EVIDENT}"
    if (accepted := acceptance(lab.ledger, isolation)) is not None:
        return f"{text}the human accepted that on {accepted.date} ({accepted.machine}). {_EVIDENT}"
    return f"{text}no experiment runs until the human accepts that with: {command_path()} accept-isolation --lab {lab.root}"
