"""Doing in git what the record says, after a process that died between the two; once, when a lab is opened.

Guarantees: the newest session's branch is at its champion and its candidates have their refs, as far as their commits are there
and nobody else moved the branch. Does not: make lost commits again (`repair` does), or speak: what it cannot do is told by the
call that needs it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import DiskError, GitError

if TYPE_CHECKING:
    from .lab import Lab

_NEWEST = 100  # experiments that are looked at; each process that died leaves at most one behind


def catch_up(lab: Lab) -> None:
    """Move the newest session's branch, and make the refs that are missing."""
    session = lab.ledger.newest_session()
    if session is None:
        return
    with suppress(GitError, DiskError):
        lab.align_branch(session)
        there = lab.git.refs(f"refs/autoresearch/{session.tag}")
        for experiment in lab.ledger.experiments("session = ?", session.tag, order="rowid DESC", limit=_NEWEST):
            if experiment.ref not in there:
                lab.git.update_ref(experiment.ref, experiment.commit, None)
