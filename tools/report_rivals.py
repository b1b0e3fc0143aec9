"""A session beside the autopilot's, in words, rows and curves: who is ahead after the same effort.

Does not: compare (`control_group` does), draw, or escape.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..lab.control_group import Lead, Rival, Step
from ..lab.states import Verdict
from .charts import BudgetChart, BudgetLine
from .describe import shorten
from .report_contents import COMMIT_DIGITS, Night, Row
from .results import number

RIVAL_COLUMNS = ("session", "researcher", "experiments", "device seconds", "first", "best", "began from")
_LABEL_BYTES = 60


def rival_words(rival: Rival) -> str:
    """Return who is ahead at equal effort, and by how much."""
    who = f"{rival.researchers} (session {rival.session.tag})"
    if not rival.leads:
        return f"{who} has no number at the same effort yet."
    said = "; ".join(_lead_words(lead) for lead in rival.leads)
    fair = "" if rival.same_start else " It began from another train.py, so compare the gains in the table, too."
    return f"Against {who}: {said}.{fair}"


def rival_rows(night: Night) -> list[Row]:
    """Return a row for the session and for each rival, in the order of `RIVAL_COLUMNS`."""
    own = [(" (this one)", "-", night.session, _researchers(night), night.steps)] if night.steps else []
    others = [
        ("", "the same train.py" if each.same_start else "another train.py", each.session, each.researchers, each.steps)
        for each in night.rivals
    ]
    return [
        (
            session.tag + role,
            researchers,
            str(steps[-1].experiments),
            f"{steps[-1].device_seconds:.0f}",
            number(steps[0].best.val_bpb, ".4f"),
            f"{number(steps[-1].best.val_bpb, '.4f')} ({steps[-1].best.id})",
            start,
        )
        for role, start, session, researchers, steps in (*own, *others)
    ]


def rival_hint(night: Night) -> tuple[str, list[str]]:
    """Return how a comparison is made where there is none: words, and commands."""
    lab = shlex.quote(night.lab)
    commands = [
        f"git -C {lab} show {night.session.base_commit[:COMMIT_DIGITS]}:trainer/train.py > {lab}/trainer/train.py",
        f"autoresearch research --strategy random --experiments {max(1, night.digest.experiments - 1)} --lab {lab}",
    ]
    return (
        "No autopilot has searched under these conditions, so nothing says what search without thought would have found. With "
        "this session ended and its train.py saved, these make that control group:",
        commands,
    )


def budget_chart(night: Night) -> BudgetChart | None:
    """Return the searches as curves, this session's first; None where there is nothing to compare."""
    if not night.steps or not night.rivals:
        return None
    own = _line(f"{_researchers(night)}, session {night.session.tag}", night.steps)
    others = [_line(f"{rival.researchers}, session {rival.session.tag}", rival.steps) for rival in night.rivals]
    return BudgetChart(title=f"session {night.session.tag} and the autopilot", lines=[own, *others])


def _line(label: str, steps: Sequence[Step]) -> BudgetLine:
    points = [(s.experiments, s.device_seconds, s.best.val_bpb) for s in steps if s.best.val_bpb is not None]
    return BudgetLine(label=shorten(label, _LABEL_BYTES), points=points)


def _lead_words(lead: Lead) -> str:
    j = lead.judgement
    assert j.delta is not None
    numbers = f"{number(lead.own.val_bpb, '.4f')} ({lead.own.id}) to {number(lead.other.val_bpb, '.4f')} ({lead.other.id})"
    where = "ahead" if j.delta < 0 else "behind" if j.delta > 0 else "level"
    if j.verdict is Verdict.WITHIN_NOISE:
        stands = f"level within noise, {abs(j.delta):.4f} {where}" if j.delta else "level"
    else:
        stands = f"{where} by {abs(j.delta):.4f}"
    spent = f"{lead.spent:.0f} {lead.unit.removesuffix('s') if lead.spent == 1 else lead.unit}"
    return f"after {spent} each this session is {stands} (z {number(j.z, '.2f')}), {numbers}"


def _researchers(night: Night) -> str:
    return ", ".join(dict.fromkeys(e.researcher for e in night.experiments)) or night.session.researcher
