"""Who researches in a session, and where: one in the lab's own folder, each other in a git worktree of its own.

Guarantees: a researcher that comes back finds its folder and its train.py as it left them; the lab's own folder goes to another
name only while nobody works there; what a new worktree holds beside train.py is the session's commit, byte for byte. The record
knows which champion each train.py builds on, which is what its experiments are judged against. The name of the built-in
researcher is its own, since reports compare with it. Does not: know who calls, except where a token says it (`caller`). Two
agents under one name share one folder, which `join` can only warn of.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .caller import caller
from .control_group import is_autopilot
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
    """Which researchers this process works for, and its hold on the lab's own folder.

    Once ``serves_many`` is set, several clients are connected: whoever came last says nothing about who calls.
    """

    def __init__(self, worktree: str, *, autopilot: bool) -> None:
        self.autopilot = autopilot  # this process serves the built-in researcher
        self.serves_many = False
        self.worktree = worktree  # the folder below the lab that this process was started in; empty: the lab's own
        self.names: dict[str, None] = {}  # in the order of start_session
        self.wrote: dict[str, str] = {}  # by researcher: the SHA-256 of what this process last wrote as its train.py, unrun
        self._guard = threading.Lock()  # calls of several clients come in threads
        self._hold: int | None = None
        self._holder: str | None = None

    def may_take(self, lab: Lab, name: str) -> bool:
        """Take the lab's own folder for ``name``, as far as processes are concerned; False while another name works there."""
        with self._guard:
            if self._hold is None:
                self._hold = try_lock(lab.state.workspace_lock)
            if self._hold is None or self._holder not in (None, name):
                return False
            if self._holder is None:
                with suppress(OSError):  # it only helps to say who is there
                    write_json(lab.state.workspace_holder, {"researcher": name, "process": os.getpid()})
            self._holder = name
            return True

    def leave(self) -> None:
        """Work for nobody any more, as another session begins for all clients of this process."""
        with self._guard:
            self.names.clear()
            self._holder = None

    def close(self) -> None:
        with self._guard:
            if self._hold is not None:
                os.close(self._hold)
                self._hold = None


def find(lab: Lab, session: Session, name: str = "") -> Researcher:
    """Return the researcher called ``name`` in a session; without a name, who calls, or the one that this process works for.

    Raises:
        UnknownNameError: nobody of that name has joined.
        NotReadyError: no name is given, and it could be one of several, or nobody yet; or it is the built-in researcher's.
    """
    there = lab.ledger.researchers(session.tag)
    if not (name := one_line(name) or caller()):
        possible = others = _not_the_autopilot(lab, there)
        if not lab.presence.serves_many:
            possible = [one for one in there if one.name in lab.presence.names] or _of_folder(lab, there)
            if not possible and lab.presence.worktree:
                raise NotReadyError(
                    f"Nobody works in {lab.presence.worktree} in session {session.tag} yet. Call start_session() to join."
                )
            possible = possible or others
        if not possible:
            raise NotReadyError(f"Only {_names(there)} works in session {session.tag} yet. Call start_session() to join.")
        if len(possible) == 1:
            return possible[0]
        raise NotReadyError(
            f"Several researchers work here ({_names(possible)}): call again with researcher='<your name>', the one that you "
            "gave to start_session."
        )
    if name not in lab.presence.names:
        require_own_name(lab, name)
    for researcher in there:
        if researcher.name == name:
            return researcher
    join_call = "start_session()" if name == caller() else f"start_session(researcher={name!r})"
    raise UnknownNameError(
        f"No researcher {name!r} in session {session.tag}; there is {_names(there)}. Call {join_call} to join."
    )


def at_work(lab: Lab, session: Session, name: str = "") -> Researcher:
    """Like `find`, for a call that uses the researcher's file: the lab's own folder is then not given to another name."""
    who = find(lab, session, name)
    if not who.workspace:
        lab.presence.may_take(lab, who.name)
    return who


def one_line(name: str) -> str:
    """Return a name as it is recorded."""
    return " ".join(name.split())


def here(lab: Lab, session: Session) -> Researcher | None:
    """Return the researcher in whose folder this process was started; None: a worktree of nobody in this session."""
    there = lab.ledger.researchers(session.tag)
    if lab.presence.worktree:
        return next(iter(_of_folder(lab, there)), None)
    return next(one for one in there if not one.workspace)


def stand_in(lab: Lab) -> None:
    """Let this process work for whoever works in the folder it was started in: what a person's commands are for."""
    if (session := lab.ledger.newest_session()) is not None and (who := here(lab, session)) is not None:
        lab.presence.names[who.name] = None


def is_ambiguous(lab: Lab, session: Session) -> bool:
    """True where a call has to say for whom it is, now or after this server was started anew."""
    is_alone = lab.presence.worktree and not lab.presence.serves_many
    return not caller() and len(lab.ledger.researchers(session.tag)) > 1 and not is_alone


def require_own_name(lab: Lab, name: str) -> None:
    """Raise `NotReadyError` where somebody else takes the name of the built-in researcher."""
    if is_autopilot(one_line(name)) and not lab.presence.autopilot:
        raise NotReadyError(
            f"{name!r} is the built-in researcher of `autoresearch research`, with which reports compare a session. Call "
            "start_session(researcher='<a name of your own>'), or without a name."
        )


def join(lab: Lab, session: Session, name: str) -> Researcher:
    """Let ``name`` (empty: whoever works where this process was started) work in a session.

    The first in a session, and whoever comes when nobody works there, has the lab's own folder; each other gets a worktree.
    """
    require_own_name(lab, name)
    name = one_line(name) or _own_name(lab, session)
    there = lab.ledger.researchers(session.tag)
    if all(one.name != name for one in there) and (expected := _newcomer(lab, session, name, there)).workspace:
        _make_folder(lab, session, expected)  # takes a moment, and the transaction below keeps others waiting
    with lab.ledger.transaction():
        there = lab.ledger.researchers(session.tag)
        researcher = next((one for one in there if one.name == name), None)
        if researcher is None:
            session = lab.ledger.session_now(session.tag)
            researcher = _newcomer(lab, session, name, there)
            if researcher.workspace:  # its folder first: a process that dies here has promised nothing yet
                _make_folder(lab, session, researcher)
                restore_train_file(lab, session, researcher, expected=None)  # it may be one of an earlier session
            lab.ledger.append(
                "researcher_joined",
                {
                    "session": session.tag,
                    "researcher": name,
                    "workspace": researcher.workspace,
                    "base": researcher.base,
                    "base_version": researcher.base_version,
                },
            )
    lab.presence.names[name] = None
    if researcher.workspace:
        _make_folder(lab, session, researcher)
    else:
        lab.presence.may_take(lab, name)
    return find(lab, session, name)


def shared_folder(lab: Lab, researcher: Researcher) -> list[str]:
    """Return a warning where another process works in the same folder."""
    if researcher.workspace or lab.presence.may_take(lab, researcher.name):
        return []
    holder = read_json(lab.state.workspace_holder) or {}
    who = f" as {holder['researcher']!r} (process {holder['process']})" if holder else ""
    if caller():
        return [
            f"Another server of this lab works{who} in the same folder, so two agents may be editing one train.py. Tell the "
            "human, unless it is left over from an earlier connection of yours."
        ]
    return [
        f"Another server of this lab works{who} in the same folder, so two agents may be editing one train.py. If you are one "
        "of several, call start_session(researcher='<a name of your own>'): you get a folder of your own. If it is left over "
        "from an earlier connection of yours, go on."
    ]


def _of_folder(lab: Lab, there: list[Researcher]) -> list[Researcher]:
    """Return who works in the worktree that this process was started in."""
    return [one for one in there if one.workspace == lab.presence.worktree != ""]


def _not_the_autopilot(lab: Lab, there: list[Researcher]) -> list[Researcher]:
    """Return for whom this process may work where nobody says so: whoever it is, but for the built-in researcher."""
    return [one for one in there if lab.presence.autopilot or not is_autopilot(one.name)]


def _names(there: list[Researcher]) -> str:
    return ", ".join(one.name for one in there)


def folder_of(lab: Lab, researcher: Researcher) -> Path:
    """Return the folder whose trainer/train.py is the researcher's."""
    return lab.root / researcher.workspace


def restore_train_file(lab: Lab, session: Session, researcher: Researcher, *, expected: str | None) -> str | None:
    """Write the champion's train.py into a researcher's folder; content that is not stored anywhere is saved under a ref first.

    ``expected`` is the SHA-256 of the candidate that may lie there. Returns the ref, where something was saved.
    """
    with lab.ledger.transaction():  # so that the record names the champion whose bytes are written
        session = lab.ledger.session_now(session.tag)
        wanted = lab.champion_source(session)
        if researcher.workspace and not folder_of(lab, researcher).exists():
            _make_folder(lab, session, researcher)
        train = WorkspacePaths(folder_of(lab, researcher)).train
        current = _readable(lab, researcher, train)
        said = (researcher.base, researcher.base_version, researcher.holds)
        if current == wanted and said == (session.champion, session.version, None):
            return None
        backup = None
        if current is not None and current != wanted and sha256_hex(current) != expected:
            backup = save_unknown(lab, session, current)
        if current != wanted:
            with suppress(FileExistsError):  # a file in its place is named by the next line
                train.parent.mkdir(exist_ok=True)
            write_atomically(train, wanted, beneath=lab.root)
        event = {"session": session.tag, "researcher": researcher.name, "sha256": sha256_hex(wanted), "backup": backup}
        lab.ledger.append("train_file_restored", event)
        return backup


def save_unknown(lab: Lab, session: Session, content: bytes) -> str:
    """Keep bytes of a train.py that are about to be replaced; returns the ref that leads to them."""
    blob = lab.git.store_blob(content)
    backup = f"refs/autoresearch/backup/{session.tag}-{blob[:12]}"
    if lab.git.ref(backup) is None:
        lab.git.update_ref(backup, blob, None)
    return backup


def _readable(lab: Lab, researcher: Researcher, train: Path) -> bytes | None:
    """Return what would be lost of a train.py; None: it is missing, or a link, whose target stays untouched.

    Raises `DecisionError` for a file that cannot be saved.
    """
    if train.is_file() and train.stat().st_size > _BACKUP_BYTES:
        raise DecisionError(f"{train} is too large to be saved: move it away, then call revert again.")
    try:
        return lab.train_file(researcher, _BACKUP_BYTES)
    except CandidateError as error:
        if train.is_file() and not train.is_symlink() and train.stat().st_nlink == 1:
            raise DecisionError(f"{train} cannot be saved, so it stays as it is: {error} Then call revert again.")
        return None


def _newcomer(lab: Lab, session: Session, name: str, others: list[Researcher]) -> Researcher:
    """Return a new researcher: where it works, and which champion its train.py builds on there."""
    owner = next(researcher for researcher in others if not researcher.workspace)
    undecided = "session = ? AND researcher = ? AND decision = ?"
    is_free = not lab.ledger.count_experiments(undecided, session.tag, owner.name, Decision.PENDING)
    if is_free and not lab.presence.worktree and _is_untouched(lab, session, owner) and lab.presence.may_take(lab, name):
        return replace(owner, name=name)
    known = [one for each in lab.ledger.sessions() for one in lab.ledger.researchers(each.tag) if one.workspace]
    taken = {one.workspace for one in known if one.name != name}  # in another session, too: its train.py may be in use
    mine = [one.workspace for one in known if one.name == name]
    plain = _NOT_IN_A_FOLDER_NAME.sub("-", name.lower()).strip("-")[:40] or "researcher"
    digest = sha256_hex(name.encode())
    possible = [lab.presence.worktree, *mine, f"{WORKTREES}/{plain}", *(f"{WORKTREES}/{plain}-{digest[:n]}" for n in (6, 64))]
    folder = next(one for one in possible if one and one not in taken)
    return Researcher(
        session=session.tag,
        name=name,
        workspace=folder,
        base=session.champion,
        base_version=session.version,
        joined_at=time.time(),
        holds=None,
    )


def _is_untouched(lab: Lab, session: Session, owner: Researcher) -> bool:
    """True where the lab's own folder holds nothing of its researcher's that was never run."""
    base = session.base_sha256 if owner.base is None else lab.ledger.experiment(owner.base).candidate_sha256
    try:
        return sha256_hex(lab.train_file(owner)) == base
    except CandidateError:
        return not lab.workspace.train.exists()


def _own_name(lab: Lab, session: Session) -> str:
    """Return for whom this process works, where nobody says so: in a worktree, for whoever worked there before."""
    if lab.presence.names or lab.presence.serves_many:
        is_anybody = lab.presence.names or _not_the_autopilot(lab, lab.ledger.researchers(session.tag))
        return find(lab, session).name if is_anybody else DEFAULT_NAME
    if (who := here(lab, session)) is not None:
        return who.name if _not_the_autopilot(lab, [who]) else DEFAULT_NAME
    known = (one for each in lab.ledger.sessions() for one in _of_folder(lab, lab.ledger.researchers(each.tag)))
    return next((one.name for one in known), lab.presence.worktree.rpartition("/")[2])


def _make_folder(lab: Lab, session: Session, researcher: Researcher) -> None:
    """Make sure that a researcher's worktree is there; where it was deleted, as what its train.py builds on."""
    commit = session.base_commit if researcher.base is None else lab.ledger.experiment(researcher.base).commit
    lab.git.add_worktree(folder_of(lab, researcher), commit)
