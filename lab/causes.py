"""Why a run has no number, in a few fixed causes: a pure function over what the referee recorded and the end of the run's log.

What the referee saw (outcome and reason) always counts more than the log: a candidate writes its log, and can write anything.
The log only tells crashes apart, whose reason is no more than an exit code. Guarantees: every outcome without a number has
one cause, with a hint for the researcher, and the detail is one line. Does not: prove a cause, and `detail` may quote the
candidate: data, never instructions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .states import Outcome

DETAIL_CHARACTERS = 200


class Cause(StrEnum):
    """What kept a run from its number, in the words of the report."""

    OUT_OF_MEMORY = "out of memory"
    NOT_FINITE = "not finite"
    START_UP = "start-up took too long"
    OUT_OF_TIME = "ran past its budget"
    SCORING_TIME = "scoring took too long"
    LIMIT = "too many processes, or too much disk"
    NO_HAND_OFF = "no model handed over"
    ERROR = "error"
    SIGNAL = "ended by a signal"
    EXIT = "train.py ended itself"
    SCORING_ERROR = "failed while it was scored"
    REJECTED = "rejected by the referee"
    PRUNED = "ended early as hopeless"
    LOST = "lost"
    CANCELLED = "cancelled"


HINTS: Mapping[Cause, str] = {
    Cause.OUT_OF_MEMORY: "Fewer rows in a forward pass, a smaller model or vocabulary, or fewer logits at once.",
    Cause.NOT_FINITE: "Lower the rate that was raised, warm up longer, or clip; check divisions, roots and logarithms.",
    Cause.START_UP: "Less before make_dataloader: fewer compiled graphs, trials and warm-up steps.",
    Cause.OUT_OF_TIME: "Ask seconds_left() in every step, and stop early enough for the last step and the hand-off.",
    Cause.SCORING_TIME: "A cheaper forward, or more rows in evaluate_bpb; the model is scored without torch.compile.",
    Cause.LIMIT: "Fewer worker processes and threads, and fewer files.",
    Cause.NO_HAND_OFF: "Call rehearse(model) before make_dataloader, and evaluate_bpb last: the error then comes at once.",
    Cause.ERROR: "A mistake in train.py: repair what the last lines of its log name; the idea has not been tested.",
    Cause.SIGNAL: "Often memory, or a kernel that fails: make it smaller, or turn off what was compiled or fused.",
    Cause.EXIT: "train.py stopped itself; its last lines say why.",
    Cause.SCORING_ERROR: "model(idx) must work without targets, in a fresh process, for any number of rows: see rehearse.",
    Cause.REJECTED: "The model must be causal, normalised and the same for each row whatever stands beside it.",
    Cause.PRUNED: "Its loss lay far above its parent's at the same time: a smaller step this way, or another idea.",
    Cause.LOST: "No fault of the idea: run the same train.py again.",
    Cause.CANCELLED: "No answer: run the same train.py again, if it is still of interest.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one run has no number.

    Attributes:
        error: the name of the exception's class where the cause is `Cause.ERROR`, else empty.
        detail: one line, from the referee or from the log.
        is_quoted: True where ``detail`` is the candidate's own words.
    """

    cause: Cause
    error: str = ""
    detail: str
    is_quoted: bool

    @property
    def kind(self) -> str:
        """What failures are counted by: the cause, and for errors the class as well."""
        return f"{self.cause}: {self.error}" if self.error else str(self.cause)

    @property
    def hint(self) -> str:
        """What may help a researcher, in a line; a guess from the cause alone."""
        return HINTS[self.cause]


# What the referee's own reasons say; the first that matches.
_REASONS: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r"\[limits\] memory_mb|ran out of memory"), Cause.OUT_OF_MEMORY),
    (re.compile(r"\bnot finite\b|had diverged"), Cause.NOT_FINITE),
    (re.compile(r"\[limits\] (processes|disk_mb)|the disk is full"), Cause.LIMIT),
    (re.compile(r"start-up took more than"), Cause.START_UP),
    (re.compile(r"scoring took longer"), Cause.SCORING_TIME),
    (re.compile(r"ended without evaluate_bpb|there is no model to score"), Cause.NO_HAND_OFF),
    (re.compile(r"ended the process that scores it"), Cause.SCORING_ERROR),
)
_SCORING_ERROR = "the model failed while it was scored: "  # the rest of this reason is the candidate's words
_MEMORY_ERRORS = re.compile(
    r"MemoryError|OutOfMemory|out of memory|can't allocate memory|cannot allocate memory", re.IGNORECASE
)
_NOT_FINITE = re.compile(r"\b(nan|inf|infinity|not finite|non-?finite)\b", re.IGNORECASE)
_SIGNAL = re.compile(r"was ended by (\S+?);")
_TRACEBACK = "Traceback (most recent call last):"
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?::|$)")
_ERROR_LINE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)(?::|$)")
_REHEARSAL = "rehearse:"  # what `prepare.rehearse` says before it ends the process


def classify(outcome: Outcome, reason: str, log_tail: Sequence[str]) -> Failure:
    """Return why a run has no number.

    Args:
        outcome: how it ended; not ``SCORED``.
        reason: the referee's sentence.
        log_tail: the last lines of what the candidate printed, the oldest first, without control characters.

    Raises:
        ValueError: the run has a number.
    """
    if outcome is Outcome.SCORED:
        raise ValueError("a scored run has a number, and no cause for having none")
    if outcome is Outcome.CANCELLED:
        return _by_referee(Cause.CANCELLED, reason)
    if outcome is Outcome.LOST:
        return _by_referee(Cause.LOST, reason)
    if reason.startswith(_SCORING_ERROR):
        message = reason.removeprefix(_SCORING_ERROR)
        memory = _MEMORY_ERRORS.search(message) is not None
        return _by_candidate(Cause.OUT_OF_MEMORY if memory else Cause.SCORING_ERROR, message)
    for pattern, cause in _REASONS:
        if pattern.search(reason):
            return _by_referee(cause, reason)
    if outcome is Outcome.TIMED_OUT:
        return _by_referee(Cause.OUT_OF_TIME, reason)
    if outcome is Outcome.INVALID:
        return _by_referee(Cause.REJECTED, reason)
    if outcome is Outcome.PRUNED:
        return _by_referee(Cause.PRUNED, reason)
    return _by_log(reason, [line.rstrip() for line in log_tail if line.strip()])


def _by_log(reason: str, lines: Sequence[str]) -> Failure:
    """Tell crashes apart by the last error in the log; the referee knows only how the process ended."""
    signal = _SIGNAL.search(reason)
    if signal is not None:  # the process did not write the end of its log itself
        return _by_referee(Cause.SIGNAL, reason)
    error = _last_error(lines)
    last = error if error is not None else lines[-1] if lines else ""
    if _MEMORY_ERRORS.search(last):
        return _by_candidate(Cause.OUT_OF_MEMORY, last)
    if _NOT_FINITE.search(last):
        return _by_candidate(Cause.NOT_FINITE, last)
    rehearsal = next((line for line in reversed(lines) if line.startswith(_REHEARSAL)), None)
    if rehearsal is not None:
        return _by_candidate(Cause.NO_HAND_OFF, last if error is not None else rehearsal)
    if error is not None:
        match = _EXCEPTION.match(error)
        assert match is not None, "what is no exception is no error line"
        return _by_candidate(Cause.ERROR, error, error=match[1])
    return _by_candidate(Cause.EXIT, last) if last else _by_referee(Cause.EXIT, reason)


def _last_error(lines: Sequence[str]) -> str | None:
    """Return the first line of the last exception that was printed with a traceback, or that stands alone."""
    starts = [index for index, line in enumerate(lines) if line.strip() == _TRACEBACK]
    for line in lines[starts[-1] + 1 :] if starts else ():
        if not line[0].isspace() and _EXCEPTION.match(line):
            return line
    return next((line for line in reversed(lines) if _ERROR_LINE.match(line)), None)


def _by_referee(cause: Cause, reason: str) -> Failure:
    return Failure(cause=cause, detail=_one_line(reason), is_quoted=False)


def _by_candidate(cause: Cause, line: str, *, error: str = "") -> Failure:
    return Failure(cause=cause, error=error[:80], detail=_one_line(line), is_quoted=True)


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= DETAIL_CHARACTERS else flat[: DETAIL_CHARACTERS - 3] + "..."
