"""A researcher's own train.py: what became of it, and how it is read and changed by agents that reach no files.

Guarantees: what is read and written is the file that `run_experiment` takes, under the same conditions (a regular file, no
link, one name, bounded, UTF-8), each researcher's own. A change is made to the bytes that were read, or refused: two changes at
once, also through two servers, are one after the other, and none is lost. What `revert` would save is saved first, unless this
process wrote it here itself: those are the steps between two experiments, which their author can undo.

Does not: lock out an editor. What one saves in the moment between the last look and the rename is replaced, as between two
editors. Does not record an edit: bytes count once they are an experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from . import researchers
from .candidate import MAX_SOURCE_BYTES, check_candidate
from .confirmation import doubt_of
from .errors import CandidateError, LabError
from .files import read_regular_file, sha256_hex, write_atomically
from .lab import Lab
from .paths import TRAIN_FILE, WorkspacePaths
from .records import Experiment, Researcher, Session
from .similar import tried_before
from .states import NO_ANSWER
from .train_edits import change_in_words


class Standing(StrEnum):
    """What a train.py is to its researcher."""

    UNCHANGED = "unchanged"  # what it builds on, or the champion's
    UNRUN = "unrun"  # an edit that run_experiment would take
    REFUSED = "refused"  # an edit that it would refuse
    REPEATED = "repeated"  # an edit whose idea was tried before, which run_experiment takes when it is told to try it again
    TRIED = "tried"  # bytes that have an answer, or that another tries
    UNREADABLE = "unreadable"  # no file that can be run


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A train.py as it is now.

    Attributes:
        words: the change against what it builds on, or why it would be refused or cannot be read; may quote the file.
        tried_as: the experiment that has these bytes, for `Standing.TRIED`.
        repeats: the experiment that is the same idea, for `Standing.REPEATED`.
    """

    standing: Standing
    words: str = ""
    tried_as: Experiment | None = None
    repeats: Experiment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What an edit made of a file; ``backup`` is the ref of what it held, where that was saved."""

    content: bytes
    backup: str | None


def read_own(lab: Lab, who: Researcher) -> bytes:
    """Return a researcher's train.py.

    Raises `CandidateError` where it is no file that can be run; the text says how to get one without reaching files.
    """
    try:
        return lab.train_file(who)
    except CandidateError as error:
        raise _without_files(error) from error


def parent_of(lab: Lab, session: Session, who: Researcher) -> bytes:
    """Return the bytes that a researcher's train.py builds on."""
    return lab.source_of(session, None if who.base is None else lab.ledger.experiment(who.base))


def own_file(lab: Lab, session: Session, who: Researcher, content: bytes | None = None) -> OwnFile:
    """Say what a researcher's train.py is now; never raises for what is wrong with the file.

    ``content`` spares reading it.
    """
    try:
        content = lab.train_file(who) if content is None else content
    except LabError as error:
        return OwnFile(standing=Standing.UNREADABLE, words=str(error))
    parent = parent_of(lab, session, who)
    if content in (parent, lab.champion_source(session)):
        return OwnFile(standing=Standing.UNCHANGED)
    words = change_in_words(parent, content)
    if (tried := _tried_as(lab, session, content)) is not None:
        return OwnFile(standing=Standing.TRIED, words=words, tried_as=tried)
    try:
        check_candidate(content, parent)
        repeated = None if who.base is None else tried_before(lab, session, lab.ledger.experiment(who.base), content)
    except CandidateError as error:
        return OwnFile(standing=Standing.REFUSED, words=str(error))
    if repeated is not None:
        return OwnFile(standing=Standing.REPEATED, words=words, repeats=repeated)
    return OwnFile(standing=Standing.UNRUN, words=words)


def _tried_as(lab: Lab, session: Session, content: bytes) -> Experiment | None:
    """Return the newest experiment with these bytes that has an answer without doubt, or waits for one."""
    same = lab.ledger.experiments("session = ? AND candidate_sha256 = ?", session.tag, sha256_hex(content), order="rowid DESC")
    for experiment in same:
        if experiment.verdict is None:
            return experiment
        if experiment.verdict not in NO_ANSWER and not doubt_of(experiment, lab.ledger.runs(experiment.id)):
            return experiment
    return None


def edit_own(
    lab: Lab, session: Session, who: Researcher, change: Callable[[bytes], bytes], *, expected_sha256: str = ""
) -> Edited:
    """Write ``change`` of a researcher's train.py in its place.

    Args:
        change: from the bytes that are there to new ones; it may raise `CandidateError`, and nothing happens then.
        expected_sha256: the first digits of the SHA-256 that the file must have; empty: whatever is there is changed.

    Raises:
        CandidateError: the file is no ordinary text file, is another than was expected, or changed meanwhile; or the result
            would be too large, or hold NUL bytes.
    """
    before = read_own(lab, who)
    _require_expected(before, expected_sha256)
    content = change(before)
    _require_text(content)
    with lab.ledger.transaction():  # one writer of ours at a time: a revert or a keep as well
        who = researchers.find(lab, session, who.name)
        folder = researchers.folder_of(lab, who)
        if read_regular_file(folder, TRAIN_FILE, MAX_SOURCE_BYTES) != before:
            raise CandidateError(
                f"{TRAIN_FILE} was changed by somebody else while this edit was made, so nothing was written. Call read_train, "
                "then edit_train again."
            )
        backup = None
        if not _is_known(lab, session, who, before):
            backup = researchers.save_unknown(lab, session, before)
        write_atomically(WorkspacePaths(folder).train, content, beneath=lab.root)
        lab.presence.wrote[who.name] = sha256_hex(content)
    return Edited(content=content, backup=backup)


def _is_known(lab: Lab, session: Session, who: Researcher, content: bytes) -> bool:
    """True where the record has these bytes, or an edit of this process wrote them."""
    sha256 = sha256_hex(content)
    return sha256 == lab.presence.wrote.get(who.name) or lab.ledger.blob(sha256) is not None


def _require_expected(content: bytes, expected_sha256: str) -> None:
    found = sha256_hex(content)
    if not found.startswith(expected_sha256):
        raise CandidateError(
            f"{TRAIN_FILE} has SHA-256 {found[:16]} now, not {expected_sha256[:16]}: it was changed since you read it, and "
            "nothing was written. Call read_train, then edit_train with what it says."
        )


def _require_text(content: bytes) -> None:
    if len(content) > MAX_SOURCE_BYTES:
        raise CandidateError(
            f"After this edit {TRAIN_FILE} would have {len(content)} bytes; the limit is {MAX_SOURCE_BYTES}, so nothing was "
            "written. Make it shorter."
        )
    if (position := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise CandidateError(f"After this edit {TRAIN_FILE} would have a NUL byte in line {line}, so nothing was written.")


def _without_files(error: CandidateError) -> CandidateError:
    return CandidateError(
        f"{str(error).rstrip('.')}. Without access to files: revert('workspace') writes the champion's {TRAIN_FILE} there."
    )
