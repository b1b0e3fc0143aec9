"""Whether a run is hopeless while it still trains: pure functions over the loss that its train.py reports.

A run has *diverged* when its loss is not finite, or far above where it began or where its parent was. It is *futile* when its
loss, smoothed, lies further above its parent's at the same second of training than a margin, which is twice what the recorded
runs that ended no worse lay above theirs. Guarantees: both follow from one run's reports and its parent's alone, so that a
recorded run can be judged again. Does not: believe a report. What is compared is what candidates say of themselves, so ending a
run can only cost its candidate a number, never gain it one; who reports no `loss`, or opens another vocabulary than its parent
(whose loss counts other tokens), is not compared.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

METRIC = "loss"
SPANS = 40  # equal parts of a budget; a run is judged at the end of each
_WINDOW_SPANS = 4  # whose reports are averaged: a tenth of the budget
_LEAST_REPORTS = 5  # in a window: one batch's loss is off by about 0.3 nats, so their mean by 0.13
_LEAST_LEFT_SHARE = 0.15  # of the budget; ending a run later saves little

_DIVERGED_REPORTS = 10  # whose median is compared with the start; a few bad batches are no divergence
_DIVERGED_FACTOR = 1.5
_DIVERGED_NATS = 2.0  # above the parent at the same second: half of what learning has gained by then, or more

# The largest of n differences is passed by one run in n + 1, so it is doubled, and taken from no fewer than so many. Replayed
# over 41 recorded runs of 60 s on a CPU, such a margin ends five, each with a number above its parent's (docs/GATES.md).
LEAST_RECORDED = 8
_MARGIN_FACTOR = 2.0
_LEAST_MARGIN_NATS = 0.2  # what smoothing may leave of the noise

_OTHERWISE = "a loss that means something else is not compared, once it is reported under another name"

Losses = tuple[float | None, ...]  # SPANS long: the mean loss of the window that ends with each span; None: too few reports


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """What may end one run early, and what it is compared with.

    Attributes:
        diverged: whether divergence ends it.
        margin: nats per token above the parent's loss from which on it is futile; None: that is not judged.
        after_share: of the budget, before which futility is not judged.
        parent_losses: of the parent's run; empty: there is nothing to compare with.
        parent_vocab_size: the vocabulary that those are about.
    """

    diverged: bool = True
    margin: float | None = None
    after_share: float = 0.3
    parent_losses: Losses = ()
    parent_vocab_size: int | None = None


class LossCurve:
    """The losses of one run, summed up in equal parts of its budget as they come."""

    def __init__(self, budget_seconds: float, points: Iterable[tuple[float, float]] = ()) -> None:
        """``points`` are (seconds of training since START, loss)."""
        self._budget_seconds = budget_seconds
        self._sums = [0.0] * SPANS
        self._counts = [0] * SPANS
        for seconds, loss in points:
            self.add(seconds, loss)

    def span_at(self, seconds: float) -> int:
        """Return the span that a time lies in; SPANS when the budget is over."""
        return min(SPANS, max(0, int(SPANS * seconds / self._budget_seconds)))

    def add(self, seconds: float, loss: float) -> None:
        span = min(SPANS - 1, self.span_at(seconds))
        self._sums[span] += loss
        self._counts[span] += 1

    def smoothed(self, span: int) -> float | None:
        """Return the mean loss of the window that ends with ``span``; None where too little was reported."""
        window = slice(max(0, span + 1 - _WINDOW_SPANS), span + 1)
        count = sum(self._counts[window])
        return sum(self._sums[window]) / count if count >= _LEAST_REPORTS else None

    def losses(self) -> Losses:
        return tuple(self.smoothed(span) for span in range(SPANS))


class Pruner:
    """Judges one run from its reports, in the order in which they come."""

    def __init__(self, rule: EarlyStop, budget_seconds: float) -> None:
        self._rule = rule
        self._budget_seconds = budget_seconds
        self._curve = LossCurve(budget_seconds)
        self._latest: deque[float] = deque(maxlen=_DIVERGED_REPORTS)
        self._start = 0.0  # the first report, or what guessing costs, where that is more
        self._not_finite: str | None = None
        self._deducted_seconds = 0.0
        self._judged = 0  # spans
        self._same_vocabulary = True

    def started(self, deducted_seconds: float) -> None:
        """Training begins, after a start-up for which so much of the budget was deducted; it is compared from here on."""
        self._deducted_seconds = deducted_seconds

    def opened(self, vocab_size: int) -> None:
        """Take note of the vocabulary that the run trains on."""
        self._same_vocabulary &= vocab_size == self._rule.parent_vocab_size
        self._start = max(self._start, math.log(vocab_size))

    def report(self, seconds: float, metrics: object) -> None:
        """Take one report, as the candidate sent it: anything at all. ``seconds`` of the budget are used."""
        seconds -= self._deducted_seconds
        loss = metrics.get(METRIC) if isinstance(metrics, dict) else None
        if type(loss) is int and abs(loss) < 2**53:
            loss = float(loss)
        if type(loss) is not float:
            return
        if not math.isfinite(loss):
            self._not_finite = self._not_finite or f"after {seconds:.1f} s its loss was not finite ({loss})"
            return
        if not self._latest:
            self._start = max(self._start, loss)
        self._latest.append(loss)
        self._curve.add(seconds, loss)

    def reason(self, seconds: float) -> str | None:
        """Return why the run should end now, in one sentence with the numbers; None: it should not.

        ``seconds`` of the budget are used. Each span of training that is complete is judged once.
        """
        seconds -= self._deducted_seconds
        if self._rule.diverged and (said := self._divergence(seconds)) is not None:
            return said
        for span in range(self._judged, self._curve.span_at(seconds)):
            self._judged = span + 1
            if (said := self._judge(span)) is not None:
                return said
        return None

    def _divergence(self, seconds: float) -> str | None:
        if self._not_finite is not None:
            return self._not_finite
        if len(self._latest) < _DIVERGED_REPORTS:
            return None
        median = statistics.median(self._latest)
        if median <= _DIVERGED_FACTOR * self._start:
            return None
        return (
            f"after {seconds:.1f} s its loss had diverged: a median of {median:.2f} in {len(self._latest)} reports, far above "
            f"the {self._start:.2f} of the untrained model"
        )

    def _judge(self, span: int) -> str | None:
        """Compare with the parent at the end of a span."""
        if not self._same_vocabulary:
            return None
        pair = _pair(self._curve.smoothed(span), self._rule.parent_losses, span)
        if pair is None:
            return None
        own, parents = pair
        end, excess = (span + 1) / SPANS, own - parents
        left = 1 - end - self._deducted_seconds / self._budget_seconds
        numbers = (
            f"after {end * self._budget_seconds:.1f} s its loss {own:.2f} was {excess:.2f} above the parent's {parents:.2f} at "
            "the same time"
        )
        if self._rule.diverged and excess > _DIVERGED_NATS:
            return f"{numbers}, so it does not learn ({_OTHERWISE})"
        margin = self._rule.margin
        if margin is None or excess <= margin or end < self._rule.after_share or left < _LEAST_LEFT_SHARE:
            return None
        return f"{numbers}, beyond the margin of {margin:.2f} ({_OTHERWISE})"


def excess_of(losses: Losses, parent_losses: Losses, *, after_share: float) -> float | None:
    """Return how far a run's loss lay above its parent's at most while futility is judged; None: they cannot be compared."""
    spans = [span for span in range(SPANS) if after_share <= (span + 1) / SPANS <= 1 - _LEAST_LEFT_SHARE]
    pairs = (_pair(losses[span], parent_losses, span) for span in spans if losses)
    return max((own - parents for own, parents in (pair for pair in pairs if pair is not None)), default=None)


def margin_of(recorded: Sequence[float]) -> float | None:
    """Return the margin that follows from the excesses of recorded runs that ended no worse; None: they are too few."""
    if len(recorded) < LEAST_RECORDED:
        return None
    return max(_LEAST_MARGIN_NATS, _MARGIN_FACTOR * max(recorded))


def replay(
    points: Iterable[tuple[float, float]],
    rule: EarlyStop,
    *,
    budget_seconds: float,
    vocab_size: int,
    deducted_seconds: float = 0.0,
) -> tuple[float, str] | None:
    """Return after how many seconds of its budget a recorded run would have been ended, and why; None: it would not."""
    pruner = Pruner(rule, budget_seconds)
    pruner.started(deducted_seconds)
    pruner.opened(vocab_size)
    for seconds, loss in points:
        if (said := pruner.reason(seconds)) is not None:
            return seconds, said
        pruner.report(seconds, {METRIC: loss})
    said = pruner.reason(budget_seconds)
    return None if said is None else (budget_seconds, said)


def _pair(own: float | None, parent_losses: Losses, span: int) -> tuple[float, float] | None:
    parents = parent_losses[span] if parent_losses else None
    return None if own is None or parents is None else (own, parents)
