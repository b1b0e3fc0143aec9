"""Moving runs along: results into the ledger, verdicts, the next run onto a free device.

Whoever holds the dispatch lock does it, for a moment, then lets go: any of the servers of a lab can, so none is needed.
Every step can be repeated: a process that dies in the middle leaves nothing that the next call does not finish.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from .calibration import calibration
from .config import LabConfig
from .confirmation import (
    confirmation_note,
    evidence_of,
    further_runs,
    is_confirmed,
    number_of,
    run_that_counts,
    unconfirmed_remark,
    weigh,
)
from .devices import kind_of
from .disk import disk_errors_told, disk_warning
from .early_stop import early_stop_of, parent_run
from .environment import trainer_path
from .errors import DecisionError, DiskError, GitError, NotReadyError
from .executor import Progress, RunLostError, RunResult, RunSpec
from .idle import idle_experiment
from .isolation import acceptance
from .lab import Lab
from .ledger import result_to_json
from .leftovers import drop_claims
from .local_executor import lost_result
from .locks import locked_if_free, stopped_holder
from .pins import pins_of
from .policy import Judgement, Measurement, judge, keepable_below
from .queueing import Waiting, in_turn
from .recording import queue_run
from .records import Experiment, Run
from .referee.clock import BudgetClock, startup_allowance
from .referee.harness import pinned_package
from .run_specs import spec_of
from .states import AWAITED, Outcome, Purpose, RunState

MAX_ATTEMPTS = 2
_SINCE = ". Its number since then: "
_POLL_SECONDS = 0.2
_LOCK_POLL_SECONDS = 0.02
_LOCK_SECONDS = 40.0  # longer than the start of a runner may take


def dispatch(lab: Lab) -> str | None:
    """Do whatever can be done now; returns at once when another process is doing it.

    A disk that takes nothing ends no call that only looks: returns what it said, and the next call goes on.
    """
    try:
        with disk_errors_told(), locked_if_free(lab.state.dispatch_lock) as ours:
            if ours and lab.ledger.may_write():
                _dispatch_locked(lab)
    except DiskError as error:
        return str(error)
    return None


def stopped_dispatcher(lab: Lab) -> str | None:
    """Return a sentence, with what to do, where a process that is stopped keeps every run of the lab from going on."""
    pid = stopped_holder(lab.state.dispatch_lock)
    if pid is None:
        return None
    return (
        f"Process {pid} of this user is stopped (as by Ctrl-Z) while it moves the queue of this lab, so no run starts or is "
        f"recorded. Nothing is lost. The human continues it (fg, or kill -CONT {pid}) or ends it (kill -KILL {pid})."
    )


@contextmanager
def wait_for_dispatch_lock(lab: Lab) -> Iterator[None]:
    """Hold the dispatch lock for a block, so that no run starts meanwhile; dispatches afterwards."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        with locked_if_free(lab.state.dispatch_lock) as ours:
            if ours:
                yield
                _dispatch_locked(lab)
                return
        if (stopped := stopped_dispatcher(lab)) is not None:
            raise DecisionError(f"{stopped} Then call cancel_experiment again.")
        time.sleep(_LOCK_POLL_SECONDS)
    raise DecisionError("Another server of this lab is busy and does not let go. Call cancel_experiment again.")


def wait(lab: Lab, experiment_id: str, seconds: float, on_progress: Callable[[Progress], None] | None = None) -> Experiment:
    """Wait for a verdict at most ``seconds``, moving the lab's runs along; returns the experiment as it then stands."""
    deadline = time.monotonic() + seconds
    while True:
        dispatch(lab)
        experiment = lab.ledger.experiment(experiment_id)
        left = deadline - time.monotonic()
        if is_finished(lab, experiment) or left <= 0:
            return experiment
        if on_progress is not None:
            on_progress(current_progress(lab, experiment_id))
        time.sleep(min(_POLL_SECONDS, left))


def is_finished(lab: Lab, experiment: Experiment) -> bool:
    """True once an experiment has its verdict, and no run is open that somebody asked for; idle ones nobody waits for."""
    if experiment.verdict is None:
        return False
    return not any(run.result is None and run.purpose in AWAITED for run in lab.ledger.runs(experiment.id))


def run_shown(lab: Lab, experiment: Experiment) -> Run:
    """Return the run that stands for a finished experiment, the newest that has started of one that goes on."""
    runs = lab.ledger.runs(experiment.id)
    found = run_that_counts(experiment, runs) if is_finished(lab, experiment) else None
    if found is not None:
        return found[0]
    return next((run for run in reversed(runs) if run.state is not RunState.QUEUED), runs[-1])


def current_progress(lab: Lab, experiment_id: str) -> Progress:
    """Return where an unfinished experiment stands."""
    runs = lab.ledger.runs(experiment_id)
    age_seconds = age_of(lab.ledger.experiment(experiment_id))
    note = disk_warning(lab.state.root) or confirmation_note(runs)
    for run in runs:
        if run.state is RunState.RUNNING and (progress := lab.executor.progress(run.attempt_id)) is not None:
            return replace(progress, note=note, age_seconds=age_seconds)
    return Progress(phase="queued", note=note, age_seconds=age_seconds)


def age_of(experiment: Experiment) -> float:
    """Return the seconds since an experiment was proposed; they also grow while it is queued or scored."""
    return max(0.0, round(time.time() - experiment.created_at, 2))


def finished_runs(lab: Lab, experiment_id: str) -> list[Run]:
    """Return an experiment's runs that have ended, the oldest first."""
    return [run for run in lab.ledger.runs(experiment_id) if run.result is not None]


def judge_experiment(lab: Lab, experiment: Experiment) -> None:
    """Record what follows from the runs of an experiment, one of which just ended: the verdict, or the runs that it takes.

    Keeps a baseline. An experiment that has its verdict gets a better number from further runs, and no other verdict.
    Call it inside the transaction that ends the run.
    """
    runs = lab.ledger.runs(experiment.id)
    if experiment.verdict is not None:
        _measure_again(lab, experiment, runs)
        return
    if any(run.result is None for run in runs):
        return  # the last of them judges
    session = lab.ledger.session_now(experiment.session)
    config = lab.session_config(session)
    noise = lab.noise(session)
    evidence = weigh(runs)
    is_baseline = experiment.is_baseline and session.champion is None

    def judged(obstacle: str | None) -> Judgement:
        return judge(
            evidence.outcome,
            evidence.measurement,
            _parent_measurement(lab, experiment),
            sigma=noise.sigma,
            sigma_source=noise.words,
            gate=config.gate.rule,
            confirmed=is_confirmed(runs),
            lines_delta=experiment.lines_delta,
            obstacle=obstacle,
        )

    judgement = judged(None)
    if (further := further_runs(runs, judgement)) is not None:
        purpose, count = further
        for _ in range(count):
            queue_run(lab, experiment.id, config, purpose)
        return
    # A session cannot do without a baseline: one that never had its device to itself is kept, with a warning.
    if judgement.keepable and (evidence.tainted or not is_baseline):
        judgement = judged(evidence.obstacle)
    reason = judgement.reason if evidence.outcome is Outcome.SCORED else f"{judgement.reason}: {evidence.reason}"
    if evidence.outcome is Outcome.SCORED and (note := evidence.reason.partition("; ")[2]):
        reason = f"{reason}. Note: {note}"
    becomes_champion = is_baseline and judgement.keepable
    if remark := evidence.remark(becomes_champion=becomes_champion) or unconfirmed_remark(experiment.id, runs, judgement):
        reason = f"{reason.rstrip('.')}. {remark}"
    number = evidence.measurement
    lab.ledger.append(
        "experiment_judged",
        {
            "id": experiment.id,
            "verdict": judgement.verdict,
            "reason": reason,
            "val_bpb": None if number is None else number.val_bpb,
            "standard_error": None if number is None else number.standard_error,
            "delta": judgement.delta,
            "z": judgement.z,
            "confidence": judgement.confidence,
            "keepable": judgement.keepable,
        },
    )
    if becomes_champion:
        kept = {"id": experiment.id, "session": session.tag, "version": session.version, "reason": "the baseline"}
        lab.ledger.append("experiment_kept", kept)


def _measure_again(lab: Lab, experiment: Experiment, runs: Sequence[Run]) -> None:
    """Record what further runs say of a number that stands; children proposed from now on are compared with that."""
    evidence = evidence_of(experiment, runs)
    number = None if evidence is None else evidence.measurement
    if number is not None and experiment.val_bpb not in (None, number.val_bpb):
        of_verdict = experiment.reason.partition(_SINCE)[0].rstrip(".")
        reason = f"{of_verdict}{_SINCE}{number.val_bpb:.4f}, by {number.runs} {'run' if number.runs == 1 else 'runs'}"
        event = {"id": experiment.id, "val_bpb": number.val_bpb, "standard_error": number.standard_error, "reason": reason}
        lab.ledger.append("experiment_measured_again", event)


def _dispatch_locked(lab: Lab) -> None:
    for run in lab.ledger.runs_in_state(RunState.RUNNING):
        _ingest(lab, run)
    if not lab.may_run() or disk_warning(lab.state.root) is not None:
        return
    if (idle := idle_experiment(lab)) is not None:
        queue_run(lab, idle.id, lab.session_config(lab.ledger.session_now(idle.session)), Purpose.NOISE)
    _make_way(lab)
    busy = {run.device for run in lab.ledger.runs_in_state(RunState.RUNNING)}
    for run in _in_turn(lab, _startable(lab, busy)):
        device = _device_for(lab, run, busy)
        if device is not None:
            try:
                spec = _spec(lab, run, device)
            except NotReadyError as error:  # its harness is gone: it can never be run
                finish(lab, run, lost_result(str(error)))
                continue
            # It may have started before, on another device, by a process that died before it recorded that.
            device = lab.executor.submit(spec)
            busy.add(device)
            lab.ledger.append("run_started", {"id": run.id, "attempt": run.attempt, "device": device})


def _make_way(lab: Lab) -> None:
    """End a run that only measures noise where a researcher's run waits for a device of its kind, and none is free."""
    waiting = {kind_of(run.device) for run in lab.ledger.runs_in_state(RunState.QUEUED) if run.purpose in AWAITED}
    running = lab.ledger.runs_in_state(RunState.RUNNING)
    busy = {run.device for run in running}
    waiting -= {kind_of(device) for device in lab.devices.all() if device not in busy}
    for run in running:
        if run.purpose is Purpose.NOISE and kind_of(run.device) in waiting:
            with suppress(KeyError):  # its folder is gone: it ends by itself
                lab.executor.cancel(run.attempt_id)


def _startable(lab: Lab, busy: set[str]) -> list[Run]:
    """Return the queued runs of whose kind a device may be free: mostly none, and then a long queue costs nothing."""
    free = {kind_of(device) for device in lab.devices.all() if device not in busy}
    return [run for run in lab.ledger.runs_in_state(RunState.QUEUED) if kind_of(run.device) in free]


def _in_turn(lab: Lab, queued: Sequence[Run]) -> list[Run]:
    """Return queued runs in the order in which they should start."""
    if len(queued) < 2:
        return list(queued)
    experiments = {run.id: lab.ledger.experiment(run.experiment) for run in queued}
    waiting = [
        Waiting(
            run_id=run.id,
            researcher=experiments[run.id].researcher,
            position=position,
            goes_on=experiments[run.id].rebase_of is not None or bool(finished_runs(lab, run.experiment)),
            awaited=run.purpose in AWAITED,
        )
        for position, run in enumerate(queued)
    ]
    runs = {run.id: run for run in queued}
    return [runs[each.run_id] for each in in_turn(waiting, lab.ledger.served())]


def _device_for(lab: Lab, run: Run, busy: set[str]) -> str | None:
    """Return the device that a queued run starts on: one that no other lab uses, else one to wait for; None: all are taken."""
    try:
        left = [device for device in lab.devices.usable(_config(lab, run)) if device not in busy]
    except NotReadyError:
        return None  # not here and now; another server of this lab may see its GPUs
    if len(left) > 1:
        capacity = lab.executor.capacity()
        left.sort(key=lambda device: capacity.get(device, (0, 1))[0] == 0)
    return left[0] if left else None


def _ingest(lab: Lab, run: Run) -> None:
    """Record the result of a run that ended; one whose runner died gets another attempt, then is lost."""
    try:
        result = lab.executor.result(run.attempt_id)
    except RunLostError as error:
        if run.attempt < MAX_ATTEMPTS:
            lab.ledger.append("run_retried", {"id": run.id, "reason": str(error)[-300:]})
            return
        result = lost_result(str(error))
    if result is not None:
        finish(lab, run, result)


def finish(lab: Lab, run: Run, result: RunResult) -> None:
    """Record a result, exactly once, with the verdict that follows from it."""
    with lab.ledger.transaction():
        if lab.ledger.run(run.id).state is not RunState.FINISHED:
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            if run.purpose is not Purpose.TEST:
                judge_experiment(lab, lab.ledger.experiment(run.experiment))
    experiment = lab.ledger.experiment(run.experiment)
    drop_claims(lab, experiment)
    with suppress(GitError):  # what keeps a baseline's branch from moving stops `keep`, and is told by `status`, not here
        lab.align_branch(lab.ledger.session_now(experiment.session))


def _parent_measurement(lab: Lab, experiment: Experiment) -> Measurement | None:
    """Return the number that an experiment is compared with; it rests on as many runs as the parent's verdict did."""
    if experiment.parent is None:
        return None
    return number_of(lab.ledger.experiment(experiment.parent), lab.ledger.runs(experiment.parent))


def _keepable_below(lab: Lab, experiment: Experiment, config: LabConfig) -> float | None:
    """Return the claim from which on this run cannot be kept, and few audits do; None: it may be kept whatever it claims.

    The verdict on a repeated run rests on several numbers, of which one may be high.
    """
    parent = _parent_measurement(lab, experiment)
    if parent is None or finished_runs(lab, experiment.id):
        return None
    return keepable_below(
        parent, sigma=lab.noise(lab.ledger.session_now(experiment.session)).sigma, lines_delta=experiment.lines_delta
    )


def _startup_allowance(lab: Lab, experiment: Experiment, config: LabConfig, *, cores: int) -> float | None:
    """Return the start-up that is free for an experiment, from the session's baseline; None: all of it (the baseline's own)."""
    if experiment.is_baseline:
        return None
    where = "session = ? AND parent IS NULL AND val_bpb IS NOT NULL"
    baselines = lab.ledger.experiments(where, experiment.session, order="rowid DESC", limit=1)
    found = run_that_counts(baselines[0], lab.ledger.runs(baselines[0].id)) if baselines else None
    if found is None or found[1].startup_seconds is None or found[1].startup_cpu_seconds is None:
        return None
    clock = BudgetClock(kind=config.clock_kind, budget_seconds=config.budget.seconds, cores=cores)
    return startup_allowance(
        clock.startup_seconds(wall_seconds=found[1].startup_seconds, cpu_seconds=found[1].startup_cpu_seconds)
    )


def _config(lab: Lab, run: Run) -> LabConfig:
    return lab.session_config(lab.ledger.session_now(lab.ledger.experiment(run.experiment).session))


def _spec(lab: Lab, run: Run, device: str) -> RunSpec:
    experiment = lab.ledger.experiment(run.experiment)
    session = lab.ledger.session_now(experiment.session)
    config = lab.session_config(session)
    accepted = acceptance(lab.ledger, lab.isolation)
    slots = len(lab.devices.usable(config))  # that many runs share this machine
    champion = parent_run(lab, experiment)
    reference = None if run.purpose is Purpose.TEST else champion  # whose claims are about another text
    calibrated = calibration(lab.ledger)
    spec = spec_of(
        config,
        lab.state,
        lab.isolation,
        run_id=run.attempt_id,
        candidate=lab.ledger.stored(experiment.candidate_sha256),
        harness=pinned_package(lab.state.harness, session.harness),
        device=device,
        seed=run.seed,
        slots=slots,
    )
    return replace(
        spec,
        keepable_below_bpb=_keepable_below(lab, experiment, config),
        split="test" if run.purpose is Purpose.TEST else "val",
        reference_window_nats=() if reference is None else lab.ledger.window_nats(reference[0].id),
        reference_claims=None if reference is None else str(lab.state.run(reference[0].attempt_id).claims),
        python=None if config.trainer.python is None else trainer_path(config.trainer.python),
        isolation_accepted_on=accepted.date if accepted else None,
        startup_allowance_seconds=_startup_allowance(lab, experiment, config, cores=spec.cores),
        contention_threshold=None if calibrated is None else calibrated.threshold,
        pins=pins_of(lab, session, config) if lab.pinned else None,
        early_stop=early_stop_of(lab, experiment, run, config, champion),
    )
