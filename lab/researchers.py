"""Who researches in a session, and where: one in the lab's own folder, each other in a git worktree of its own.

Guarantees: a researcher that comes back finds its folder and its train.py as it left them; the lab's own folder goes to another
name only while nobody works there; what a new worktree holds beside train.py is the session's commit, byte for byte. The record
knows which champion each train.py builds on, which is what its experiments are judged against. Does not: know who calls. Two
agents under one name share one folder, which `join` can only warn of.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CandidateError, DecisionError, NotReadyError, UnknownNameError
from .files import sha256_hex, write_atomically
from .jsonfiles import read_json, write_json
from .locks import try_lock
from .paths import WorkspacePaths
from .records import Researcher, Session
from .states import Decision

if TYPE_CHECKING:
    from .lab import Lab

WORKTREES = ".autoresearch/worktrees"
DEFAULT_NAME = "agent"  # who begins a session without saying who it is
MAX_NAME = 64

_BACKUP_BYTES = 16 << 20
_NOT_IN_A_FOLDER_NAME = re.compile(r"[^a-z0-9-]+")


class Presence:
    """Which researchers this process works for, and its hold on the lab's own folder."""

    def __init__(self, worktree: str) -> None:
        self.worktree = worktree  # the folder below the lab that this process was started in; empty: the lab's own
        self.names: dict[str, None] = {}  # in the order of start_session
        self._hold: int | None = None
        self._holder: str | None = None

    def may_take(self, lab: Lab, name: str) -> bool:
        """Take the lab's own folder for ``name``, as far as processes are concerned; False while another name works there."""
        if self._hold is None:
            self._hold = try_lock(lab.state.workspace_lock)
        if self._hold is None or self._holder not in (None, name):
            return False
        self._holder = name
        with suppress(OSError):  # it only helps to say who is there
            write_json(lab.state.workspace_holder, {"researcher": name, "process": os.getpid()})
        return True

    def leave(self) -> None:
        """Work for nobody any more, as another session begins for all clients of this process."""
        self.names.clear()
        self._holder = None

    def close(self) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None


def find(lab: Lab, session: Session, name: str = "") -> Researcher:
    """Return the researcher called ``name`` in a session; without a name, the one that this process works for.

    Raises:
        UnknownNameError: nobody of that name has joined.
        NotReadyError: no name is given, and several researchers use this server.
    """
    there = lab.ledger.researchers(session.tag)
    names = ", ".join(researcher.name for researcher in there)
    if not name:
        ours = [researcher for researcher in there if researcher.name in lab.presence.names]
        if len(ours) > 1:
            raise NotReadyError(
                f"Several researchers use this server ({', '.join(one.name for one in ours)}): call again with "
                "researcher='<your name>', the one you gave to start_session."
            )
        if ours:
            return ours[0]
        return next(
            (one for one in there if one.workspace == lab.presence.worktree),
            next(one for one in there if not one.workspace),
        )
    for researcher in there:
        if researcher.name == name:
            return researcher
    raise UnknownNameError(
        f"No researcher {name!r} in session {session.tag}; there is {names}. Call start_session(researcher={name!r}) to join."
    )


def is_ambiguous(lab: Lab, session: Session) -> bool:
    """True where a call has to say for whom it is."""
    return sum(one.name in lab.presence.names for one in lab.ledger.researchers(session.tag)) > 1


def join(lab: Lab, session: Session, name: str) -> Researcher:
    """Let ``name`` (empty: whoever works where this process was started) work in a session.

    The first in a session, and whoever comes when nobody works there, has the lab's own folder; each other gets a worktree.
    """
    name = name or find(lab, session).name
    with lab.ledger.transaction():
        known = {researcher.name: researcher for researcher in lab.ledger.researchers(session.tag)}
        is_new = name not in known
        if is_new:
            workspace, base, base_version = _place(lab, session, name, list(known.values()))
            event = {"session": session.tag, "researcher": name, "workspace": workspace}
            lab.ledger.append("researcher_joined", {**event, "base": base, "base_version": base_version})
    researcher = find(lab, session, name)
    lab.presence.names[name] = None
    if not researcher.workspace:
        lab.presence.may_take(lab, name)
        return researcher
    _make_worktree(lab, session, researcher)
    if is_new:  # the worktree may be one of an earlier session
        restore_train_file(lab, session, researcher, expected=None)
    return find(lab, session, name)


def shared_folder(lab: Lab, researcher: Researcher) -> list[str]:
    """Return a warning where another process works in the same folder."""
    if researcher.workspace or lab.presence.may_take(lab, researcher.name):
        return []
    holder = read_json(lab.state.workspace_holder) or {}
    who = f" as {holder['researcher']!r} (process {holder['process']})" if holder else ""
    return [
        f"Another server of this lab works{who} in the same folder, so two agents may be editing one train.py. If you are one "
        "of several, call start_session(researcher='<a name of your own>'): you get a folder of your own. If it is left over "
        "from an earlier connection of yours, go on."
    ]


def folder_of(lab: Lab, researcher: Researcher) -> Path:
    """Return the folder whose trainer/train.py is the researcher's."""
    return lab.root / researcher.workspace


def restore_train_file(lab: Lab, session: Session, researcher: Researcher, *, expected: str | None) -> str | None:
    """Write the champion's train.py into a researcher's folder; content that is not stored anywhere is saved under a ref first.

    ``expected`` is the SHA-256 of the candidate that may lie there. Returns the ref, where something was saved.
    """
    wanted = lab.champion_source(session)
    train = WorkspacePaths(folder_of(lab, researcher)).train
    if train.is_file() and train.stat().st_size > _BACKUP_BYTES:
        raise DecisionError(f"{train} is too large to be saved: move it away, then call revert again.")
    try:
        current: bytes | None = lab.train_file(researcher, _BACKUP_BYTES)
    except CandidateError:
        current = None  # missing or a link: replaced, and a link's target stays untouched
    if current == wanted and (researcher.base, researcher.base_version) == (session.champion, session.version):
        return None
    backup = None
    if current is not None and current != wanted and sha256_hex(current) != expected:
        blob = lab.git.store_blob(current)
        backup = f"refs/autoresearch/backup/{session.tag}-{blob[:12]}"
        if lab.git.ref(backup) is None:
            lab.git.update_ref(backup, blob, None)
    if current != wanted:
        write_atomically(train, wanted, beneath=lab.root)
    event = {"session": session.tag, "researcher": researcher.name, "sha256": sha256_hex(wanted), "backup": backup}
    lab.ledger.append("train_file_restored", event)
    return backup


def _place(lab: Lab, session: Session, name: str, others: list[Researcher]) -> tuple[str, str | None, int]:
    """Return where a new researcher works, and which champion its train.py builds on there."""
    owner = next(researcher for researcher in others if not researcher.workspace)
    undecided = "session = ? AND researcher = ? AND decision = ?"
    is_free = not lab.ledger.count_experiments(undecided, session.tag, owner.name, Decision.PENDING)
    if is_free and not lab.presence.worktree and lab.presence.may_take(lab, name):
        return "", owner.base, owner.base_version
    taken = {researcher.workspace for researcher in others}
    plain = _NOT_IN_A_FOLDER_NAME.sub("-", name.lower()).strip("-")[:40] or "researcher"
    wanted = lab.presence.worktree or f"{WORKTREES}/{plain}"
    folder = wanted if wanted not in taken else f"{WORKTREES}/{plain}-{sha256_hex(name.encode())[:6]}"
    return folder, session.champion, session.version


def _make_worktree(lab: Lab, session: Session, researcher: Researcher) -> None:
    """Make sure that a researcher's worktree is there, with the train.py that its record says it builds on."""
    folder = folder_of(lab, researcher)
    own = lab.root / WORKTREES.partition("/")[0]
    own.mkdir(exist_ok=True)
    if not (own / ".gitignore").exists():  # also where the lab's own .gitignore does not name it
        write_atomically(own / ".gitignore", b"*\n", beneath=lab.root)
    commit = session.base_commit if researcher.base is None else lab.ledger.experiment(researcher.base).commit
    folder.parent.mkdir(exist_ok=True)
    lab.git.add_worktree(folder, commit)
