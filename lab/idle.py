"""What a device does while nobody waits for it: the baseline and the champion with further seeds, which measures the noise.

Guarantees: such a run starts only after the lab was idle for a while, and is ended when a researcher's run waits for its
device, so it costs a researcher a second or two; one that ended without a number of its own is tried again, and no more than
so many times, unless it gave way or a human asks for more. Does not: change a verdict or a decision; the number of a champion
becomes the mean of its seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .noise import unselected
from .recording import queue_run
from .records import Experiment, Session
from .states import Outcome, Purpose, RunState

if TYPE_CHECKING:
    from .lab import Lab

NOISE_RUNS = 3  # numbers of the baseline, and of the champion
IDLE_SECONDS = 60.0  # an agent thinks, and edits
_MOST_TRIES = 6  # of one experiment, which came to their end


def seeds_wanted(lab: Lab, session: Session) -> Iterator[tuple[Experiment, int]]:
    """Yield the session's baseline and champion, each with how many numbers it lacks; who has enough is left out."""
    baselines = lab.ledger.experiments("session = ? AND parent IS NULL AND decision = 'kept'", session.tag, limit=1)
    found = {each.id: each for each in (*baselines, lab.champion(session)) if each is not None and each.val_bpb is not None}
    for experiment in found.values():
        lacking = NOISE_RUNS - len(unselected(lab.ledger.runs(experiment.id), is_baseline=experiment.is_baseline))
        if lacking > 0:
            yield experiment, lacking


def queue_seeds(lab: Lab, session: Session) -> list[str]:
    """Queue every run that baseline and champion lack, or return those that wait already.

    Raises `StoppedError` or `NotReadyError` where no run would start.
    """
    lab.require_able_to_run()
    with lab.ledger.transaction():
        waiting = [run.id for run in lab.ledger.runs_in_state(RunState.QUEUED) if run.purpose is Purpose.NOISE]
        if waiting:
            return waiting
        config = lab.session_config(session)
        return [
            queue_run(lab, each.id, config, Purpose.NOISE) for each, count in seeds_wanted(lab, session) for _ in range(count)
        ]


def idle_experiment(lab: Lab) -> Experiment | None:
    """Return what to run now because nothing else is to be: None where something is, or was a moment ago."""
    if time.time() - lab.ledger.last_event_at() < IDLE_SECONDS:
        return None
    if any(lab.ledger.runs_in_state(state) for state in (RunState.QUEUED, RunState.RUNNING)):
        return None
    session = lab.ledger.newest_session()
    if session is None or not lab.session_config(session).gate.measure_when_idle or lab.stop_reason(session) is not None:
        return None
    return next((each for each, _ in seeds_wanted(lab, session) if _tries(lab, each) < _MOST_TRIES), None)


def _tries(lab: Lab, experiment: Experiment) -> int:
    ended = [run.result for run in lab.ledger.runs(experiment.id) if run.purpose is Purpose.NOISE and run.result is not None]
    return sum(result.outcome is not Outcome.CANCELLED for result in ended)
