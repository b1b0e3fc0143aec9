"""What git says about the record: every candidate's commit names the head of the ledger under which it was proposed.

A chain that was cut at its end, or written anew from some event on, is whole in itself; these heads are elsewhere. Guarantees:
each commit under ``refs/autoresearch/`` that does not fit the record is named. Does not: see what happened after the newest
proposal, or heads in answers that somebody wrote down, or an agent that rewrote its commits as well as the record.
"""

from __future__ import annotations

import re

from .lab import Lab

_REFS = "refs/autoresearch"
_HEAD = re.compile(r"^Autoresearch-Ledger: ([0-9a-f]{64})$", re.MULTILINE)
_SHOWN = 5


def problems_in_git(lab: Lab) -> list[str]:
    """Return, in plain sentences, which experiments' commits contradict the record (empty: none)."""
    proposed = {
        (event.body["session"], event.body["id"]): event.previous for event in lab.ledger.events_of("experiment_recorded")
    }
    problems: list[str] = []
    for ref, message in lab.git.ref_messages(_REFS).items():
        _, _, session, *rest = ref.split("/")
        if session == "backup" or len(rest) != 1:
            continue
        experiment_id, heads = rest[0], _HEAD.findall(message)
        named = heads[-1][:12] if heads else "none"
        expected = proposed.get((session, experiment_id))
        if expected is None:
            problems.append(
                f"git has the commit of {experiment_id} of session {session}, proposed at ledger head {named}, and the record "
                "knows no such experiment: events were removed from its end"
            )
        elif not heads or heads[-1] != expected:
            problems.append(
                f"the commit of {experiment_id} of session {session} names ledger head {named}, and the record says "
                f"{expected[:12]}: one of the two was replaced"
            )
    left_out = len(problems) - _SHOWN
    return [*problems[:_SHOWN], *([f"and {left_out} more commits that contradict the record"] if left_out > 0 else [])]
