"""Judgement: what a certified number says about an experiment, and whether it may be kept.

Pure functions over values: no clock, no disk, no randomness. An experiment is compared with its own parent only. Under the
gate ``confirmed`` the number that selected an idea is no evidence for it: runs with fresh seeds decide, and they alone.

Does not: decide which parent, comparability group or device class applies (the caller does), and does not correct for
trying many ideas: over a long session half of the keeps under the gate ``any`` are luck (tests/lab/test_gates.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .states import Outcome, Verdict

# One-sided 95 %: beyond it a difference is called improved or worse, within it noise.
Z_THRESHOLD = 1.645

# The smallest gain that counts, in units of the noise between seeds. Half a sigma is where a screen starts to pay:
# smaller gains are not told from luck by the one to three runs that an experiment gets. What is simpler may be as much worse:
# with all that a verdict calls noise, ten simplifications undo a third of a night's gain (docs/GATES.md).
SMALLEST_GAIN_SIGMAS = 0.5

# What the mean of the fresh runs has to gain under the gate ``confirmed``, in units of the noise: one standard error of the
# difference between two runs and two.
CONFIRMED_GAIN_SIGMAS = 1.0

# What the audits may take off or add to a claim without contradicting it, in bits per byte, however sure they are of it.
CERTIFICATION_TOLERANCE_BPB = 0.001

# A number certified less sharply than this share of the smallest gain that counts cannot carry a decision to keep.
LARGEST_ERROR_SHARE = 0.2

GATES = ("confirmed", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A certified score: the mean ``val_bpb`` of ``runs`` runs, and the standard error of the certification alone.

    ``standard_error`` is what the audit leaves open, in bits per byte; the noise between seeds is not in it.
    """

    val_bpb: float
    standard_error: float
    runs: int = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.val_bpb) or self.val_bpb < 0:
            raise ValueError(f"val_bpb must be finite and not negative, not {self.val_bpb}")
        if not math.isfinite(self.standard_error) or self.standard_error < 0:
            raise ValueError(f"standard_error must be finite and not negative, not {self.standard_error}")
        if self.runs < 1:
            raise ValueError(f"runs must be at least 1, not {self.runs}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict with its numbers; ``delta`` is child minus parent, so negative is better.

    The numbers are None where nothing was compared: no score, or no parent.
    """

    verdict: Verdict
    delta: float | None
    standard_error: float | None
    z: float | None
    confidence: float | None
    keepable: bool
    reason: str
    promising: bool = False  # the gate wants runs with fresh seeds, which decide


def judge(
    outcome: Outcome,
    child: Measurement | None,
    parent: Measurement | None,
    *,
    sigma: float,
    sigma_source: str = "a prior",
    gate: str = "any",
    confirmed: bool = False,
    lines_delta: int = 0,
    obstacle: str | None = None,
) -> Judgement:
    """Compare an experiment with its parent.

    Args:
        outcome: how the run ended; only ``SCORED`` has a number.
        child: the experiment's measurement; required when scored, ignored otherwise.
        parent: the parent's measurement; None for the first measured result of a session.
        sigma: standard deviation of ``val_bpb`` between seeds of one candidate, in bits per byte.
        sigma_source: where it comes from, in words for the reason.
        gate: which results may be kept. ``any``: everything better than its parent. ``confirmed``: what is better by half a
            sigma is promising, and may be kept once fresh runs are better by one. Either: what is shorter, within noise, and
            worse by half a sigma at most.
        confirmed: whether ``child`` is the mean of runs that were made after the idea was selected.
        lines_delta: lines of code of the child minus those of the parent.
        obstacle: why the experiment may not be kept whatever its number is, as the rest of a sentence; None: nothing.

    Returns:
        The judgement. ``z`` is the gain in standard errors, ``confidence`` the normal probability that the child is
        truly better.

    Raises:
        ValueError: a scored outcome without a measurement, a sigma that is not positive, or an unknown gate.
    """
    if not math.isfinite(sigma) or sigma <= 0:
        raise ValueError(f"sigma must be positive and finite, not {sigma}")
    if gate not in GATES:
        raise ValueError(f"unknown gate {gate!r}: there is {', '.join(GATES)}")
    if outcome is not Outcome.SCORED:
        return Judgement(
            verdict=Verdict(outcome.value),
            delta=None,
            standard_error=None,
            z=None,
            confidence=None,
            keepable=False,
            reason=_NO_NUMBER[outcome],
        )
    if child is None:
        raise ValueError("a scored outcome needs the child's measurement")
    doubt = obstacle or _certification_doubt(child, sigma)
    if parent is None:
        return Judgement(
            verdict=Verdict.IMPROVED,
            delta=None,
            standard_error=None,
            z=None,
            confidence=None,
            keepable=doubt is None,
            reason="the baseline: " + (f"not keepable, since {doubt}" if doubt else "the first measured result of the session"),
        )
    delta = child.val_bpb - parent.val_bpb
    standard_error = math.sqrt(
        sigma**2 * (1 / child.runs + 1 / parent.runs) + child.standard_error**2 + parent.standard_error**2
    )
    z = -delta / standard_error
    confidence = normal_cdf(z)
    if z >= Z_THRESHOLD:
        verdict = Verdict.IMPROVED
    elif z <= -Z_THRESHOLD:
        verdict = Verdict.WORSE
    else:
        verdict = Verdict.WITHIN_NOISE
    simpler = verdict is Verdict.WITHIN_NOISE and lines_delta < 0 and delta <= SMALLEST_GAIN_SIGMAS * sigma
    keepable, promising, ending = _weigh_gain(delta, sigma, gate, confirmed=confirmed)
    if simpler and not keepable and not promising:
        keepable = True
        ending = f"may be kept as simpler, with {-lines_delta} fewer {'line' if lines_delta == -1 else 'lines'}"
    if doubt is not None and (keepable or promising):
        keepable, promising, ending = False, False, f"not keepable, since {doubt}"
    comparison = _compare_in_words(child, parent, delta, standard_error, confidence, sigma, sigma_source, verdict)
    return Judgement(
        verdict=verdict,
        delta=delta,
        standard_error=standard_error,
        z=z,
        confidence=confidence,
        keepable=keepable,
        promising=promising,
        reason=f"{comparison}: {ending}",
    )


def _weigh_gain(delta: float, sigma: float, gate: str, *, confirmed: bool) -> tuple[bool, bool, str]:
    """Return whether a gain may be kept, whether it is promising, and that in words."""
    if gate == "any":
        if delta < 0:
            return True, False, "may be kept"
        return False, False, "not keepable, since it is not better than its parent"
    if not confirmed:
        if delta <= -SMALLEST_GAIN_SIGMAS * sigma:
            return False, True, "promising, so runs with fresh seeds decide"
        return False, False, f"not keepable, since it is not better by {SMALLEST_GAIN_SIGMAS * sigma:.4f} (half a sigma)"
    if delta <= -CONFIRMED_GAIN_SIGMAS * sigma:
        return True, False, "confirmed, and may be kept"
    wanted = f"{CONFIRMED_GAIN_SIGMAS * sigma:.4f} (one sigma)"
    return False, False, f"not keepable, since runs with fresh seeds are not better by {wanted}"


def keepable_below(parent: Measurement, *, sigma: float, lines_delta: int) -> float:
    """Return the claimed ``val_bpb`` from which on no certified one can be kept or is promising, under any gate.

    A certified value below its claim by more than three standard errors and the tolerance is invalid, and one with a standard
    error above the limit cannot be kept: so what is claimed further off than that is certified on the wrong side, too.
    """
    largest_error = LARGEST_ERROR_SHARE * SMALLEST_GAIN_SIGMAS * sigma
    room = max(3 * largest_error, CERTIFICATION_TOLERANCE_BPB)
    if lines_delta < 0:  # what is simpler may be a little worse
        room += SMALLEST_GAIN_SIGMAS * sigma
    return parent.val_bpb + room


def normal_cdf(z: float) -> float:
    """Return the probability that a standard normal value is at most ``z``."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def confidence_word(confidence: float) -> str:
    """Return how one would say, in plain words, that something has this probability."""
    for floor, word in _CONFIDENCE_WORDS:
        if confidence >= floor:
            return word
    return "almost certainly not"


_CONFIDENCE_WORDS = (
    (0.99, "almost certainly"),
    (0.95, "very likely"),
    (0.70, "likely"),
    (0.30, "perhaps"),
    (0.05, "unlikely"),
    (0.01, "very unlikely"),
)

_NO_NUMBER = {
    Outcome.CRASHED: "the run crashed, so there is no number to compare",
    Outcome.TIMED_OUT: "the run passed its deadline, so there is no number to compare",
    Outcome.INVALID: "the referee could not certify the run's number, so there is none to compare",
    Outcome.CANCELLED: "the run was cancelled, so there is no number to compare",
    Outcome.LOST: "the run was lost with its machine or runner, so there is no number to compare",
    Outcome.PRUNED: "the run was ended early, so there is no number to compare",
}


def _certification_doubt(child: Measurement, sigma: float) -> str | None:
    smallest_gain = SMALLEST_GAIN_SIGMAS * sigma
    limit = LARGEST_ERROR_SHARE * smallest_gain
    if child.standard_error <= limit:
        return None
    return (
        f"the certified standard error {child.standard_error:.4f} is above {limit:.4f}, "
        f"a fifth of the smallest gain that counts ({smallest_gain:.4f})"
    )


def _compare_in_words(
    child: Measurement,
    parent: Measurement,
    delta: float,
    standard_error: float,
    confidence: float,
    sigma: float,
    sigma_source: str,
    verdict: Verdict,
) -> str:
    direction = "better" if delta < 0 else "worse"
    distance = f"{abs(delta):.4f} {direction} than" if delta else "equal to"
    return (
        f"val_bpb {child.val_bpb:.4f} is {distance} the parent's {parent.val_bpb:.4f} with a standard error of "
        f"{standard_error:.4f} (sigma {sigma:.4f}, {sigma_source}), {verdict.words} and "
        f"{confidence_word(confidence)} a true gain (confidence {confidence:.4f})"
    )
