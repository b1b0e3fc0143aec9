"""The runner: one process for one run, detached from the server, that times, confines, scores and records it.

Guarantees: no training token reaches the candidate before the clock has started; at the deadline the whole process tree
ends; the number comes from the scorer and never from what the candidate printed; result.json is written once, whole, as
the last act, and on a full disk as soon as there is room. Does not: decide anything, or write to the ledger. If this process
dies, nothing is recorded, and whoever finds its lock free starts the run again or declares it lost.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from ...prepare.corpus import open_corpus
from ..devices import NvmlDriver
from ..disk import is_about_disk
from ..executor import RunResult, RunSpec
from ..isolation import LEVELS, label
from ..locks import try_lock
from ..paths import RunPaths, device_lock_path
from ..states import Outcome
from . import sandbox
from .candidate_process import prepare_folder
from .ending import RunEndedError, broken_promise, require_no_survivor, tree_of
from .gpu_meter import GpuMeter
from .gpu_neighbours import GpuNeighbours
from .pins import PinCheck
from .processes import adopt_orphans
from .reports import Reports
from .room import wait_for_room, when_there_is_room
from .sandbox import IsolationLevel
from .scoring import Scoring
from .scratch import removing
from .specfile import read_spec, write_result
from .training import CHANGED_BEFORE, TICK_SECONDS, Training
from .workers import ScoringWorkers


def run(folder: Path) -> None:
    """Execute the run described in ``folder`` and leave its result there."""
    paths = RunPaths(folder)
    output = os.open(paths.runner_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd in (1, 2):
        os.dup2(output, fd)
    spec = read_spec(paths)
    started, started_ns = time.monotonic(), time.time_ns()
    check = None if spec.pins is None else PinCheck(spec.pins)
    runner: Runner | None = None
    try:
        _keep_processes_together(spec)
        _require_room(paths)
        device_lock = _wait_for_device(spec, paths)
        try:
            runner = Runner(spec, paths, check)
            fields = runner.execute()
        finally:
            os.close(device_lock)
    except RunEndedError as ended:
        fields = {"outcome": ended.outcome, "reason": ended.reason, **({} if runner is None else runner.facts())}
    except OSError as error:
        if not is_about_disk(error):
            raise
        reason = f"the disk became full, which was not the candidate's doing ({error}); it may be tried again"
        fields = {"outcome": Outcome.LOST, "reason": reason, **({} if runner is None else runner.facts())}
    with removing(paths.scratch, paths.scoring, paths.python):  # meanwhile
        if check is not None:
            before = check.finish()
            fields["tainted"] = before or check.after(since_ns=started_ns)
            if before is not None and fields["outcome"] is not Outcome.CANCELLED:  # whatever came of it
                fields |= {"outcome": Outcome.LOST, "reason": CHANGED_BEFORE}
    _leave_result(paths, RunResult(**fields, total_seconds=round(time.monotonic() - started, 3)))


def _leave_result(paths: RunPaths, result: RunResult) -> None:
    """Write the result, on a full disk once there is room; a cancelled run has ended without one by then."""
    when_there_is_room(paths, lambda: write_result(paths, result))


def _require_room(paths: RunPaths) -> None:
    """Begin on a disk that can take a run; ends it when it is cancelled before, or the disk stays full."""
    if not wait_for_room(paths):
        if paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled before it started")
        raise RunEndedError(Outcome.LOST, "the disk stayed full, so it was not started; it may be tried again")


def _keep_processes_together(spec: RunSpec) -> None:
    """Become the parent of whatever the run's processes leave behind, where the promised level says so."""
    if spec.isolation not in LEVELS or not (spec.isolation == IsolationLevel.NONE or adopt_orphans()):
        raise broken_promise(spec, "it does not exist here")


def _wait_for_device(spec: RunSpec, paths: RunPaths) -> int:
    """Return the lock of the device, once it is free; ends the run when it is cancelled before."""
    while (lock := try_lock(device_lock_path(spec.device))) is None:
        if paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled before it started")
        time.sleep(TICK_SECONDS)
    return lock


class Runner:
    """Owns every process and descriptor of one run. Single-threaded on purpose."""

    def __init__(self, spec: RunSpec, paths: RunPaths, check: PinCheck | None) -> None:
        """``check`` is that of the run's pins, not complete yet."""
        self._spec = spec
        self._paths = paths
        self._reports = Reports(paths)
        self._marks = (secrets.token_hex(16), secrets.token_hex(16))  # of the candidate's and of the scoring processes
        self._workers = ScoringWorkers(spec, paths, mark=self._marks[1])
        driver = None if spec.device == "cpu" else NvmlDriver()
        self._gpu = None if driver is None else GpuMeter(spec.device, driver)
        corpus = open_corpus(spec.corpus)
        self._scoring = Scoring(spec, paths, corpus=corpus, workers=self._workers, reports=self._reports)
        self._training = Training(
            spec,
            paths,
            corpus=corpus,
            workers=self._workers,
            reports=self._reports,
            mark=self._marks[0],
            gpu=self._gpu,
            neighbours=None if driver is None else GpuNeighbours(spec.device, driver),
            check=check,
            prepare_scoring=self._scoring.prepare,
        )

    def execute(self) -> dict:
        """Train, end, score. Returns the fields of a scored result; raises `RunEndedError` for everything else."""
        self._reports.phase("starting")
        try:
            interpreter = prepare_folder(self._spec, self._paths)
        except sandbox.InterpreterError as error:
            raise RunEndedError(Outcome.LOST, str(error)) from None
        try:
            self._training.run(interpreter)
            score = self._scoring.score(self._training.handoff or {})
        finally:
            self._reports.end()
            self._workers.end()
            survivors = tree_of(self._spec, None, set(), *self._marks).kill()
        require_no_survivor(survivors)
        return {
            "outcome": Outcome.SCORED,
            "reason": "; ".join(["scored", *self._training.notes, *self._scoring.notes, *self._reports.notes]),
            "val_bpb": score.val_bpb,
            "split": self._spec.split,
            "standard_error": score.standard_error,
            "audits": score.audits,
            "scored_bytes": score.scored_bytes,
            "scored_tokens": score.scored_tokens,
            "window_nats": score.window_nats,
            **self.facts(),
        }

    def facts(self) -> dict:
        """Return what was measured about the run so far, whatever its outcome."""
        return {
            **self._training.facts(),
            "guarantees": self._guarantees(),
            "claimed_bpb": self._scoring.claimed_bpb,
            "scoring_seconds": self._scoring.seconds,
            "bulk_cpu_seconds": self._workers.cpu_seconds("bulk"),
            "audit_cpu_seconds": self._workers.cpu_seconds("audit"),
            **({} if self._gpu is None else self._gpu.facts()),
        }

    def _guarantees(self) -> dict[str, str]:
        isolation = LEVELS.get(self._spec.isolation)
        named = {} if isolation is None else {"isolation": label(isolation, self._spec.isolation_accepted_on)}
        pinned = "by SHA-256, before and after the run; a change taints it"
        changed = {} if self._spec.pins is None else {"harness, corpus, environment unchanged": pinned}
        return {**sandbox.guarantees_of(self._spec.device), **self._training.in_force, **changed, **named}
