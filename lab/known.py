"""What a session has taught so far, in numbers: which themes gained and which did not, what each constant came to, near misses.

Pure and deterministic: one record gives one answer. Guarantees: a gain counts once, where it was kept; what was cancelled or
lost taught nothing and counts nowhere. Does not: say why, or correct for luck: the best of many tries looks better than it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .records import Changes

Step = Literal["higher", "lower", "changed"]

_STEPS: tuple[Step, ...] = ("higher", "lower", "changed")
_NUMBER = re.compile(r"(?<![\w.)])(-?\d[\d_]*\.?\d*(?:e[+-]?\d+)?)(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One experiment that was compared with its parent."""

    id: str
    changes: Changes
    delta: float  # bits per byte; negative is better
    z: float | None
    is_gain: bool  # it was kept, and lowered val_bpb


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the experiments of a session came to that change the same constants the same way, under one theme.

    Attributes:
        experiments: how many, with those that have no answer yet, or none at all.
        finished: how many have an answer.
        without_number: how many of those crashed, timed out, were invalid or were ended early.
        gain: of those kept, bits per byte; positive is better.
        best: the largest gain that was kept; where there is none, the lowest delta; None: none was compared.
    """

    theme: str
    changes: Changes
    experiments: int
    finished: int
    kept: int
    without_number: int
    gain: float
    best: Trial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a session's record says, without its baseline; `tried` sums it up, since a session may have thousands.

    Attributes:
        near_misses: the surest first.
        since_gain: finished experiments that were recorded after ``last_gain``; None: nothing has gained.
    """

    tried: tuple[Tried, ...]
    near_misses: tuple[Trial, ...]
    last_gain: str | None
    since_gain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """What the finished experiments of one theme came to; the fields are those of `Tried`."""

    name: str
    finished: int
    kept: int
    without_number: int
    gain: float
    best: Trial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """What came of changing one constant and no other: each step with how often, and the best of those."""

    name: str
    steps: Mapping[Step, tuple[int, Trial | None]]

    @property
    def finished(self) -> int:
        return sum(count for count, _ in self.steps.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a session has taught.

    Attributes:
        finished: experiments with an answer, without the baseline.
        worked: themes with a kept gain, the largest gain first.
        failed: themes without one, the most tried first.
        constants: those that were changed alone, the most tried first.
        near_misses: of several that change the same constants the surest, and none of what was kept in some form.
        untouched: constants of the champion that no experiment ever changed, in the order of its file.
        is_plateau: whether those after the last gain are as many as the human wants to be told of.
    """

    finished: int
    worked: tuple[Theme, ...]
    failed: tuple[Theme, ...]
    constants: tuple[Constant, ...]
    near_misses: tuple[Trial, ...]
    untouched: tuple[str, ...]
    last_gain: str | None
    since_gain: int
    is_plateau: bool


def known(record: Record, constants: Iterable[str] = (), *, plateau_after: int = 0) -> Known:
    """Return what a session has taught.

    Args:
        constants: names of the champion's, in the order of its file.
        plateau_after: finished experiments without a kept gain that make a plateau; 0: none do.
    """
    themes = sorted(_themes(record.tried), key=lambda theme: (-theme.gain, -theme.finished, theme.name))
    touched = {name for each in record.tried for name in each.changes}
    return Known(
        finished=sum(each.finished for each in record.tried),
        worked=tuple(theme for theme in themes if theme.gain > 0),
        failed=tuple(theme for theme in themes if theme.gain <= 0),
        constants=tuple(sorted(_alone(record.tried), key=lambda constant: (-constant.finished, constant.name))),
        near_misses=tuple(_near_misses(record)),
        untouched=tuple(name for name in constants if name not in touched),
        last_gain=record.last_gain,
        since_gain=record.since_gain,
        is_plateau=0 < plateau_after <= record.since_gain,
    )


def _themes(tried: Iterable[Tried]) -> list[Theme]:
    members: dict[str, list[Tried]] = {}
    for each in tried:
        if each.finished:
            members.setdefault(each.theme, []).append(each)
    return [
        Theme(
            name=name,
            finished=sum(each.finished for each in group),
            kept=sum(each.kept for each in group),
            without_number=sum(each.without_number for each in group),
            gain=sum(each.gain for each in group),
            best=_best(each.best for each in group),
        )
        for name, group in members.items()
    ]


def _alone(tried: Iterable[Tried]) -> list[Constant]:
    """Return what single changes of each constant came to."""
    members: dict[str, dict[Step, list[Tried]]] = {}
    for each in tried:
        if len(each.changes) == 1 and each.finished:
            ((name, pair),) = each.changes.items()
            members.setdefault(name, {}).setdefault(step_of(*pair), []).append(each)
    return [
        Constant(
            name=name,
            steps={
                step: (sum(each.finished for each in steps[step]), _best(each.best for each in steps[step]))
                for step in _STEPS
                if step in steps
            },
        )
        for name, steps in members.items()
    ]


def _near_misses(record: Record) -> list[Trial]:
    taken = {frozenset(each.changes) for each in record.tried if each.kept and each.changes}
    found: list[Trial] = []
    for trial in record.near_misses:
        changed = frozenset(trial.changes)
        if changed not in taken:
            found.append(trial)
            taken |= {changed} if changed else set()
    return found


def _best(trials: Iterable[Trial | None]) -> Trial | None:
    there: Sequence[Trial] = [trial for trial in trials if trial is not None]
    return min(there, key=lambda trial: (not trial.is_gain, trial.delta, trial.id), default=None)


def step_of(old: str | None, new: str | None) -> Step:
    """Return which way a constant went: as the one number says that differs, such as in ``8 if CPU else 64``."""
    before, after = (_NUMBER.split(text or "") for text in (old, new))
    differ = [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]
    if len(before) != len(after) or len(differ) != 1:
        return "changed"
    try:
        was, became = (float(text.replace("_", "")) for text in differ[0])
    except ValueError:
        return "changed"
    return "higher" if became > was else "lower" if became < was else "changed"
