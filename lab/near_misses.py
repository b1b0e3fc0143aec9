"""What a near miss is, said once in SQL and once in Python; a test holds both to each other.

An idea that was decided against although its number is below its parent's: a little more of it, or another with it, may be a
gain. One that was merged onto a later champion and kept there is none. The surest comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from .records import Experiment
from .states import Decision, Verdict

_VERDICTS = (Verdict.IMPROVED, Verdict.WITHIN_NOISE)

ORDER = "z DESC, rowid"  # SQL
NEAR_MISS = (  # SQL, of the table of experiments
    f"(decision = '{Decision.REVERTED}' AND delta < 0 AND verdict IN {tuple(map(str, _VERDICTS))} AND id NOT IN "
    f"(SELECT rebase_of FROM experiments WHERE decision = '{Decision.KEPT}' AND rebase_of IS NOT NULL))"
)


def near_misses(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the near misses among a session's experiments, all of which are given, the oldest first."""
    merged = {each.rebase_of for each in experiments if each.decision is Decision.KEPT}
    found = [
        each
        for each in experiments
        if each.decision is Decision.REVERTED
        and each.delta is not None
        and each.delta < 0
        and each.verdict in _VERDICTS
        and each.id not in merged
    ]
    return sorted(found, key=lambda each: -(each.z or 0.0))
