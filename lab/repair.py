"""Putting back what was deleted around a record that is whole: refs, commits, the human's files, train.py.

The ledger has the bytes of every candidate and of every program, and the accepted rules, so a deleted ref, branch or clone
loses nothing. Guarantees: a commit is made again with the same bytes, message and time, so that it gets the same name wherever
its parent has; where it cannot, the new name is recorded. Content that is there is never overwritten. Does not: mend a record
that was changed (`verify` names the place), or bring back run folders (logs and curves) that were deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .config import CONFIG_NAME, LabConfig, render_config
from .errors import LedgerError, NotReadyError
from .files import write_atomically
from .git import GitRepository
from .identity import adopt_identity, orphaned_lab, recorded_identity, state_of
from .lab import Lab
from .ledger import Ledger
from .paths import PROGRAM_FILE, TRAIN_FILE
from .recording import commit_message
from .records import Experiment, Session
from .referee.harness import harness_sha256, package_root, pin_harness

T = TypeVar("T")


def reopen(folder: Path, lab_id: str | None) -> Lab:
    """Open the lab around ``folder``, also where its clone was deleted and made anew, or autoresearch.toml is gone.

    ``lab_id`` names the state that the repository takes over; None: the one whose lab lay here, if there is just one.
    Raises `NotReadyError` when that lab still lives elsewhere, or the repository is a lab with sessions of its own.
    """
    git = GitRepository.discover(folder)
    own = recorded_identity(git.common_dir)
    wanted = lab_id or own or orphaned_lab(git.root)
    if wanted is not None and wanted != own:
        if own is not None and _record_of(own, lambda ledger: bool(ledger.sessions())):
            raise NotReadyError(f"{git.root} is the lab {own} with sessions of its own. Run this in a new clone.")
        adopt_identity(git.common_dir, wanted)
    config = git.root / CONFIG_NAME
    if wanted is not None and not config.exists():
        accepted = _record_of(wanted, lambda ledger: ledger.latest("rules_accepted"))
        if accepted is not None:
            content = render_config(LabConfig.model_validate_json(accepted.body["config"]))
            write_atomically(config, content.encode(), beneath=git.root)
    return Lab.open(git.root)


def _record_of(lab_id: str, read: Callable[[Ledger], T]) -> T | None:
    """Return what ``read`` finds in the record of a lab that is not open; None where there is no record."""
    path = state_of(lab_id).ledger
    if not path.is_file():
        return None
    ledger = Ledger(path)
    try:
        return read(ledger)
    finally:
        ledger.close()


def repair(lab: Lab) -> list[str]:
    """Put back what is missing of the lab; return a sentence for each thing that was done or needs the human.

    Raises `LedgerError` when the record itself was changed: nothing is made from it then.
    """
    if problems := lab.ledger.verify():
        raise LedgerError(
            f"The record {lab.state.ledger} was changed: {problems[0]}. Nothing can be repaired from it; restore the file "
            "from a backup."
        )
    return [*_harness(lab), *_files(lab), *_repository(lab)]


def _harness(lab: Lab) -> list[str]:
    if (lab.state.harness / lab.harness()).is_dir():
        return []
    if harness_sha256(package_root()) != lab.harness():
        return [f"The pinned harness {lab.harness()[:12]} is gone and another one is installed: run `autoresearch init`."]
    pin_harness(lab.state.harness)
    return ["Pinned the harness again."]


def _files(lab: Lab) -> list[str]:
    """Write the files of the workspace that are missing."""
    accepted, session = lab.accepted_rules(), lab.ledger.newest_session()
    wanted: dict[str, bytes] = {}
    if accepted is not None:
        wanted[PROGRAM_FILE] = lab.ledger.blob(accepted.program_sha256) or b""
    if session is not None:
        wanted[TRAIN_FILE] = lab.champion_source(session)
    done = []
    for name, content in wanted.items():
        path = lab.root / name
        if not path.exists() and not path.is_symlink():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content, beneath=lab.root)
            done.append(f"Wrote {name} again.")
    return done


def _repository(lab: Lab) -> list[str]:
    """Make the missing commits and refs of every session, the oldest first."""
    done = []
    recorded = {event.body["id"]: event for event in lab.ledger.events_of("experiment_recorded")}
    for session in reversed(lab.ledger.sessions()):
        if not lab.git.object_exists(session.base_commit):
            session = _rebase(lab, session)
            done.append(f"Session {session.tag}: its first commit was gone and is {session.base_commit[:12]} now.")
        for experiment in lab.ledger.experiments("session = ?", session.tag):
            if not lab.git.object_exists(experiment.commit):
                event = recorded[experiment.id]
                commit = _commit_again(lab, session, experiment, event.previous, event.body.get("committed_at", int(event.at)))
                same = "with the same name" if commit == experiment.commit else f"as {commit[:12]}"
                done.append(f"{experiment.id}: its commit {experiment.commit[:12]} was gone and is made again {same}.")
                if commit != experiment.commit:
                    lab.ledger.append("experiment_recommitted", {"id": experiment.id, "commit": commit})
                experiment = lab.ledger.experiment(experiment.id)
            if (found := lab.git.ref(experiment.ref)) != experiment.commit:
                lab.git.update_ref(experiment.ref, experiment.commit, found)
                done.append(f"{experiment.id}: its ref {experiment.ref} points at its commit again.")
        done += _branch(lab, session)
    return done


def _branch(lab: Lab, session: Session) -> list[str]:
    """Put the session's branch back; one that somebody moved to a commit that exists is told, not moved."""
    found = lab.git.ref(session.branch)
    champion = lab.champion(session)
    wanted = session.base_commit if champion is None else champion.commit
    if found is not None and not lab.git.object_exists(found):
        lab.git.update_ref(session.branch, wanted, found)
    elif (moved := lab.align_branch(session)) is not None:
        return [moved]
    return [] if found == wanted else [f"The branch {session.branch.removeprefix('refs/heads/')} points at its champion again."]


def _rebase(lab: Lab, session: Session) -> Session:
    """Give a session whose first commit is gone another one with the same train.py, on top of HEAD."""
    source = lab.ledger.stored(session.base_sha256)
    head = lab.git.head_commit()
    message = f"autoresearch: train.py at the start of session {session.tag}\n"
    base = lab.git.commit_with_file(head, TRAIN_FILE, source, message, int(session.created_at))
    lab.ledger.append("session_rebased", {"tag": session.tag, "base_commit": base})
    return lab.ledger.session_now(session.tag)


def _commit_again(lab: Lab, session: Session, experiment: Experiment, ledger_head: str, committed_at: int) -> str:
    source = lab.ledger.stored(experiment.candidate_sha256)
    message = commit_message(
        experiment.id,
        session=session.tag,
        parent=experiment.parent,
        description=experiment.description,
        hypothesis=experiment.hypothesis,
        ledger_head=ledger_head,
    )
    parent = session.base_commit if experiment.parent is None else lab.ledger.experiment(experiment.parent).commit
    return lab.git.commit_with_file(parent, TRAIN_FILE, source, message, committed_at)
