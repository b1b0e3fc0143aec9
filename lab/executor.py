"""What to run, what came of it, and the protocol of the things that know *where* to run it.

An executor runs each `RunSpec` at most once per ``run_id`` and reports exactly one terminal event for it, whoever dies.
Runs outlive the executor object and the server: `attach` finds them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from .pruning import EarlyStop
from .states import Outcome, RunState

HeldOutSplit = Literal["val", "test"]  # what a model is scored on; researchers' runs on "val" alone


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything the referee needs for one attempt at one run; written as spec.json, except the candidate's bytes."""

    run_id: str  # idempotency key, one per attempt: "e0017.1", and "e0017.1-2" when the first runner died
    candidate: bytes
    harness: str  # path of the pinned copy of lab/ and prepare/
    corpus: str  # name of the prepared corpus
    profile: str
    device: str  # "cpu", or "cuda:" and the UUID of a GPU
    cores: int  # threads of the candidate, and the cores that core_seconds are counted on
    seed: int
    clock: Literal["wall", "core_seconds"]
    budget_seconds: float
    startup_seconds: float
    scoring_seconds: float
    context_length: int
    memory_mb: int
    processes: int
    disk_mb: int
    log_kb: int
    validation_secret: str  # path of the secret that draws the windows
    validation_bytes: int
    window_bytes: int
    audits: int  # rows, in every run
    audits_before_keep: int = 0  # rows, where the claim is below ``keepable_below_bpb``; more than there are: every row
    keepable_below_bpb: float | None = None  # a claim that is not below it cannot be kept; None: any may be
    reference_window_nats: tuple[float, ...] = ()  # the champion's claims: audits go where this run claims to beat them
    reference_claims: str | None = None  # path of the same, position by position; where it is missing the windows do
    python: str | None = None  # path of the interpreter that trains and scores; None: the runner's own
    isolation: str = "process"  # the level that must hold; a runner that cannot give it does not run
    isolation_accepted_on: str | None = None  # the date of the human's acceptance, where the level needs one
    # Start-up that is free, in seconds of the run's clock; what exceeds it is deducted. None: all of it (the baseline).
    startup_allowance_seconds: float | None = None
    contention_threshold: float | None = None  # share of the device that others may use; None: not calibrated, not marked
    pins: str | None = None  # path of the pins that are checked before and after the run; None: a lab made before there were
    split: HeldOutSplit = "val"  # of the corpus: the text that is scored
    early_stop: EarlyStop | None = None  # what may end the run before its budget is used; None: nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What the referee measured; written as result.json. Times are seconds, sizes as named; None: not measured."""

    outcome: Outcome
    reason: str
    val_bpb: float | None = None  # certified: claimed plus the audits' correction; on the split that was scored
    split: HeldOutSplit = "val"
    standard_error: float | None = None  # of the certified value, bits per byte
    claimed_bpb: float | None = None
    audits: int = 0
    scored_bytes: int = 0
    scored_tokens: int = 0
    window_nats: tuple[float, ...] = ()
    vocab_size: int | None = None
    startup_seconds: float | None = None
    startup_cpu_seconds: float | None = None  # of the whole process tree, up to START
    startup_deducted_seconds: float | None = None  # of the budget, because start-up exceeded its allowance
    elapsed_seconds: float | None = None  # START to process exit, on the run's clock
    wall_seconds: float | None = None  # START to process exit
    cpu_seconds: float | None = None  # of the whole process tree, START to exit
    scoring_seconds: float | None = None
    bulk_cpu_seconds: float | None = None  # of the two scoring processes, from the model's loading on; advisory
    audit_cpu_seconds: float | None = None
    total_seconds: float = 0.0  # from the runner's start to the result
    steps: int | None = None  # as the candidate reported it
    peak_memory_mb: float | None = None
    exit_code: int | None = None
    log_bytes: int = 0
    guarantees: Mapping[str, str] | None = None  # what was in force, and by which mechanism
    others_share: float | None = None  # of the device's capacity that others used from START to exit, 0 to 1
    contended: str | None = None  # why the run did not have its device to itself; such a number needs a confirmation
    tainted: str | None = None  # which pin did not hold before or after the run; such a number never makes a champion
    device_name: str | None = None  # of a GPU, by its driver
    driver_version: str | None = None
    peak_gpu_memory_mb: float | None = None  # in use on the device above what was in use before, sampled by the runner
    # As the candidate's process counted; advisory, like steps.
    allocated_gpu_memory_mb: float | None = None  # torch's own maximum
    train_tokens: int | None = None  # that the loader handed out
    forward_flops_per_token: float | None = None  # of one forward over a full row, measured in the rehearsal
    model_flops_utilisation: float | None = None  # 3 forwards for each token, against the best that the device can do


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A running run, for people to watch; nothing here is certified."""

    phase: Literal["queued", "starting", "training", "scoring"]
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    step: int | None = None
    metrics: Mapping[str, float] | None = None
    note: str = ""  # why an experiment goes on that has a number already
    age_seconds: float = 0.0  # since the experiment was proposed, by the server's clock; it grows in every phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Totally ordered per executor by ``sequence`` (dense, from 0); "terminal" appears exactly once per run."""

    sequence: int
    run_id: str
    kind: Literal["queued", "started", "training", "scoring", "terminal"]
    at: float  # seconds since the epoch
    data: Mapping[str, Any]


class Executor(Protocol):
    """What every executor guarantees; `tests/lab/executor_contract.py` checks it over each of them.

    - A ``run_id`` is run at most once, whoever submits it, from however many processes, and whenever: submitting is idempotent.
    - A run ends exactly once: with a result, or *lost* where its runner died without one. An executor never starts it again;
      the caller submits a new attempt under a new ``run_id``.
    - A run belongs to no process. It goes on when the one that submitted it ends or is killed, and every executor object for
      the same lab, in any process, before or after, gives the same result.
    - The budget is enforced where the run is, by its runner, whether or not anybody asks for it.
    - A slot has one run at a time; what is submitted to a busy one waits its turn, *queued*.
    - What `submit`, `cancel`, `result`, `progress`, `log` and `capacity` cost does not grow with the runs that have ended.
      `attach`, and the first `events` of an object, look at every run.

    Threads may share an executor. Does not: choose a device, decide what a result is worth, or try a lost run again (`dispatch`
    does). What a method does with a ``run_id`` that was never submitted, or whose files somebody deleted, stands beside it.
    """

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        """Return device -> (free slots, slots); a slot that any lab of this user uses is not free."""
        ...

    def submit(self, spec: RunSpec) -> str:
        """Start a run, or queue it for its device. Returns the device: that of the first call where the ``run_id`` is known.

        When it returns, the run outlives this process. A process that dies inside leaves a run that goes on, or is lost.
        """
        ...

    def cancel(self, run_id: str) -> None:
        """Ask a queued or running run to end as cancelled; idempotent, and without effect on one that has a result.

        A lost one becomes a cancelled one. Raises KeyError for an unknown run.
        """
        ...

    def events(self, since: int = 0, wait_seconds: float = 0.0) -> Sequence[Event]:
        """Return the events from ``since`` on, waiting at most ``wait_seconds`` for one; replayable from 0.

        Of one run they come in the order queued, started, training, scoring, terminal (not every run has those in the middle),
        and their times never go back. The terminal one comes once, is the last, and says the outcome; `result` has it by then.
        Executor objects agree on the events of a run; how those of several runs interleave, each sees for itself.
        """
        ...

    def result(self, run_id: str) -> RunResult | None:
        """Return the result of a finished run, None while it is not finished; of one that was cancelled, that it was.

        Raises `RunLostError` where there is none and never will be: the runner is dead (what it left running is ended then), or
        the run is unknown or was deleted.
        """
        ...

    def progress(self, run_id: str) -> Progress | None:
        """Return where an unfinished run stands; None for an unknown or deleted one."""
        ...

    def log(self, run_id: str, offset: int = 0, limit: int = 65_536) -> bytes:
        """Return bytes of the candidate's output, as much as there is yet; empty for an unknown run, and beyond the end."""
        ...

    def fetch(self, run_id: str, artifact: str, destination: Path) -> None:
        """Copy a file that the run left, by its name, such as "curve.jsonl".

        Raises KeyError for an unknown run, ValueError for what is no plain name, FileNotFoundError for what it did not leave.
        """
        ...

    def attach(self) -> Mapping[str, RunState]:
        """Return every known run and its state, after looking at what survived; a lost one is finished."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Let go; runs go on. With ``kill``: ask every unfinished run of the lab to end as cancelled."""
        ...


class RunLostError(Exception):
    """The runner of this run is dead and left no result."""
