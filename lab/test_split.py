"""The test split: text that no researcher's run is scored on. A human opens it to see whether a session overfits validation.

Opening is an event. Runs of the baseline and the champion with fresh seeds are then scored on the test split, and as many on
validation where too few are there since the champion was kept: earlier ones selected it. Once all have ended, the gains are
compared, and recorded.

Guarantees: what was measured here is read by this module alone (`Ledger.runs` leaves test runs out), so that it reaches no
verdict, no noise, no export and no answer of a tool; the number of openings is known, and every experiment that was proposed
after the first says so. Does not: keep it from who reads the state folder with this user's rights, or tell overfitting from
text on which less can be gained; so the sentence says what was measured. Only what people call may show a comparison: never a
tool or a resource.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

from ..prepare.errors import PrepareError
from .errors import DecisionError, NotReadyError
from .executor import RunResult
from .noise import Noise, unselected, unselected_results
from .policy import Z_THRESHOLD
from .recording import queue_run
from .records import Run, Session
from .referee.harness import pinned_package
from .states import Purpose

if TYPE_CHECKING:
    from .lab import Lab

SEEDS = 2  # numbers of the baseline and of the champion, on each split
AFTER_TEST = "after the test split was opened"

_KNOWS_SPLITS = "lab/referee/scored_rows.py"  # a harness without it scores validation, whatever it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class TestComparison:
    """What a session's champion gains over its baseline on validation and on the test split; gains in bits per byte, lower
    val_bpb being a positive gain.

    Attributes:
        gap: ``gain_val`` less ``gain_test``: positive where less is gained on text that nothing was selected by.
        standard_error: of the gap: the noise between seeds of all runs, and their certification.
        z: the gap in standard errors.
        sigma, noise: the noise between seeds, and where it comes from in words.
        opened_at: seconds since the epoch.
        times_opened: for this session, the newest included.
    The numbers are None until all runs have theirs.
    """

    __test__: ClassVar = False  # not pytest's

    baseline: str
    champion: str
    opened_at: float
    times_opened: int
    gain_val: float | None = None
    gain_test: float | None = None
    gap: float | None = None
    standard_error: float | None = None
    z: float | None = None
    sigma: float | None = None
    noise: str = ""

    @property
    def overfits(self) -> bool | None:
        """True where the gain on validation exceeds that on the test split beyond noise; None: not measured yet."""
        return None if self.z is None else self.z >= Z_THRESHOLD

    @property
    def sentence(self) -> str:
        """The answer in one plain sentence."""
        if self.gain_val is None or self.gain_test is None or self.gap is None or self.z is None:
            return (
                f"The test split was opened for {self.champion}, and not all of its runs have a number yet: "
                "`autoresearch report --open-test` goes on with them."
            )
        gains = (
            f"{self.champion} gains {self.gain_val:+.4f} over {self.baseline} on it and {self.gain_test:+.4f} on the test split"
        )
        gap = f"{abs(self.gap):.4f} {'less' if self.gap >= 0 else 'more'}"
        measured = f"standard error {self.standard_error:.4f}, z {self.z:.2f}, sigma {self.sigma:.4f} {self.noise}"
        if self.overfits:
            return f"The session overfits the validation set: {gains}, {gap}, which is beyond noise ({measured})."
        within = "more than noise explains" if self.z <= -Z_THRESHOLD else "within noise"
        return f"No sign that the session overfits the validation set: {gains}, {gap}, which is {within} ({measured})."


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One time that the test split of a session was opened."""

    session: str
    baseline: str
    champion: str
    at: float  # seconds since the epoch
    times: int  # of its session so far, this one included


_OPENING = tuple(field.name for field in fields(Opening))
_NUMBERS = ("gain_val", "gain_test", "gap", "standard_error", "z", "sigma", "noise")


def comparison(lab: Lab, session: Session) -> TestComparison | None:
    """Return what the newest opening of a session's test split came to; None: it was never opened."""
    opening = _newest_opening(lab, session)
    return None if opening is None else _recorded(lab, opening) or _without_numbers(opening)


def open_test(lab: Lab, session: Session) -> Opening:
    """Record that the test split is opened for a session's champion, unless it is already; `queue_runs` measures.

    Raises `DecisionError` where there is no gain to compare, `StoppedError` where no run would start, `NotReadyError` where the
    split cannot be scored.
    """
    champion = lab.champion(session)
    if champion is None or champion.is_baseline:
        raise DecisionError(
            f"Session {session.tag} has kept nothing besides its baseline, so there is no gain to compare, and the test split "
            "stays closed. Run `autoresearch report --open-test` once something is kept."
        )
    lab.require_able_to_run()
    _require_scorable(lab, session)
    (baseline,) = lab.ledger.experiments("session = ? AND parent IS NULL AND decision = 'kept'", session.tag, limit=1)
    with lab.ledger.transaction():
        opening = _newest_opening(lab, session)
        if opening is None or opening.champion != champion.id:
            event = {"session": session.tag, "baseline": baseline.id, "champion": champion.id}
            lab.ledger.append("test_opened", event)
            opening = _newest_opening(lab, session)
    assert opening is not None, "it was recorded"
    return opening


def queue_runs(lab: Lab, opening: Opening) -> list[str]:
    """Queue what the comparison of an opening lacks, and return the runs to wait for; where it lacks nothing, record it.

    They start after every run that a researcher waits for. Those on the test split then go on to their end; those on validation
    give way like any that measures the noise, and the next call queues them again.
    """
    with lab.ledger.transaction():
        if _recorded(lab, opening) is not None:
            return []
        session = lab.ledger.session_now(opening.session)
        config, waiting = lab.session_config(session), list[str]()
        for experiment in map(lab.ledger.experiment, (opening.baseline, opening.champion)):
            on_val, on_test = lab.ledger.runs(experiment.id), lab.ledger.test_runs(experiment.id)
            for purpose, runs, there in (
                (Purpose.NOISE, on_val, _on_validation(lab, opening, on_val)),
                (Purpose.TEST, on_test, _on_test(on_test)),
            ):
                lacking = max(0, SEEDS - len(there))
                unfinished = [run.id for run in runs if run.purpose is purpose and run.result is None][:lacking]
                waiting += unfinished
                waiting += [queue_run(lab, experiment.id, config, purpose) for _ in range(lacking - len(unfinished))]
        if not waiting:
            lab.ledger.append("test_compared", {**asdict(opening), **_measured(lab, session, opening)})
        return waiting


def gave_a_number(run: Run) -> bool:
    """True for a run of a comparison that ended with a number which counts; another is queued for one that did not."""
    return bool(_on_test([run]) if run.purpose is Purpose.TEST else unselected([run], is_baseline=False))


def gains_compared(
    val: tuple[Sequence[RunResult], Sequence[RunResult]], test: tuple[Sequence[RunResult], Sequence[RunResult]], noise: Noise
) -> dict[str, float | str]:
    """Return the numbers of a `TestComparison`.

    Args:
        val, test: the results of the baseline and those of the champion on either split, all with a number.
        noise: between seeds; taken to be the same on both splits.
    """
    (gain_val, val_variance), (gain_test, test_variance) = (_gain(*results, sigma=noise.sigma) for results in (val, test))
    standard_error = math.sqrt(val_variance + test_variance)
    return {
        "gain_val": gain_val,
        "gain_test": gain_test,
        "gap": gain_val - gain_test,
        "standard_error": standard_error,
        "z": (gain_val - gain_test) / standard_error,
        "sigma": noise.sigma,
        "noise": noise.words,
    }


def _gain(baseline: Sequence[RunResult], champion: Sequence[RunResult], *, sigma: float) -> tuple[float, float]:
    """Return how far the champion's mean is below the baseline's, and the variance of that."""
    means, variance = list[float](), 0.0
    for results in (baseline, champion):
        means.append(math.fsum(result.val_bpb or 0.0 for result in results) / len(results))
        certification = math.fsum((result.standard_error or 0.0) ** 2 for result in results) / len(results)
        variance += (sigma**2 + certification) / len(results)
    return means[0] - means[1], variance


def _measured(lab: Lab, session: Session, opening: Opening) -> dict[str, float | str]:
    experiments = [lab.ledger.experiment(experiment_id) for experiment_id in (opening.baseline, opening.champion)]
    val = [_on_validation(lab, opening, lab.ledger.runs(each.id)) for each in experiments]
    test = [_on_test(lab.ledger.test_runs(each.id)) for each in experiments]
    return gains_compared((val[0], val[1]), (test[0], test[1]), lab.noise(session))


def _on_validation(lab: Lab, opening: Opening, runs: Iterable[Run]) -> list[RunResult]:
    """Return the results on validation that selected nothing: of runs which began after the champion was kept.

    What granted its keep was selected for being low, and the baseline's numbers before for being high.
    """
    decided_at = lab.ledger.experiment(opening.champion).decided_at
    assert decided_at is not None, "a champion was kept"
    return unselected_results((run for run in runs if run.created_at > decided_at), is_baseline=False)


def _on_test(runs: Iterable[Run]) -> list[RunResult]:
    """Return the results with a number on the test split: alone on the device, and untouched."""
    results = [run.result for run in runs if run.result is not None]
    scored = [result for result in results if result.split == "test" and result.val_bpb is not None]
    return [result for result in scored if not result.contended and not result.tainted]


def _newest_opening(lab: Lab, session: Session) -> Opening | None:
    events = [event for event in lab.ledger.events_of("test_opened") if event.body["session"] == session.tag]
    return Opening(**events[-1].body, at=events[-1].at, times=len(events)) if events else None


def _recorded(lab: Lab, opening: Opening) -> TestComparison | None:
    for event in lab.ledger.events_of("test_compared"):
        if Opening(**{name: event.body[name] for name in _OPENING}) == opening:
            return replace(_without_numbers(opening), **{name: event.body[name] for name in _NUMBERS})
    return None


def _without_numbers(opening: Opening) -> TestComparison:
    return TestComparison(
        baseline=opening.baseline, champion=opening.champion, opened_at=opening.at, times_opened=opening.times
    )


def _require_scorable(lab: Lab, session: Session) -> None:
    """Raise `NotReadyError` where runs of a session would not score the test split, or find no windows in it."""
    from ..prepare.corpus import open_corpus
    from .referee.windows import NoWindowsError, require_windows

    if not (pinned_package(lab.state.harness, session.harness) / _KNOWS_SPLITS).is_file():
        raise NotReadyError(
            f"Session {session.tag} runs with the harness that it was begun with, which cannot score the test split. Run "
            '`autoresearch init`, begin a new session (start_session(tag="new")) and keep something there.'
        )
    config = lab.session_config(session)
    try:
        offsets = open_corpus(config.corpus_name).offsets("test")
        require_windows(offsets, window_bytes=config.profile_facts.window_bytes, split="test")
    except (PrepareError, NoWindowsError) as error:
        raise NotReadyError(f"The test split of the corpus {config.corpus_name} cannot be scored: {error}.") from error
