"""One run of the benchmark: the referee of every experiment, with state in a folder that is thrown away.

The same `RunSpec`, executor, runner, isolation, pins and scoring as a lab's runs have; no lab, no repository and no record.
The windows of the validation text are always the same ones, so that numbers of two benchmarks compare. Runs take the lock of
this user's device, so one of a lab and one of the benchmark wait for each other. Every run is scored like a baseline, which
is as thorough as scoring gets. Guarantees: leaving early, also by an exception, ends the run and everything that it started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...lab.calibration import measure_background, threshold_of
from ...lab.config import ProfileName, new_config
from ...lab.executor import Progress, RunLostError, RunResult, RunSpec
from ...lab.isolation import Isolation
from ...lab.local_executor import LocalExecutor, lost_result
from ...lab.paths import StatePaths
from ...lab.pinned_trees import TreeMaker, corpus_tree, environment_trees
from ...lab.referee.harness import pin_harness, pinned_package
from ...lab.referee.pins import Kind, Pins, save_pins
from ...lab.run_specs import spec_of
from ...prepare.corpus import Corpus
from .machine import Place

_POLL_SECONDS = 0.05
_CANCEL_SECONDS = 60.0  # a runner notices within a second, also while it scores
_CALIBRATION_SECONDS = 2.0
_SECRET = b"the validation windows of autoresearch bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the referee measured, and what the run said of itself."""

    result: RunResult
    curve: list[dict[str, Any]]
    log: str
    call_seconds: float  # from the call to the verdict


class Referee:
    """Runs texts one after the other on one device; make it with an empty folder that nobody else uses."""

    def __init__(self, folder: Path, *, profile: ProfileName, corpus: Corpus, place: Place, isolation: Isolation) -> None:
        self._state = StatePaths(folder)
        self._config, self._corpus, self._place = new_config(profile=profile), corpus, place
        self._executor = LocalExecutor(self._state, devices=place.devices)
        self._state.validation_secret.write_bytes(_SECRET)
        self._harness = pinned_package(self._state.harness, pin_harness(self._state.harness))
        self._pins: Path | None = None
        self.isolation = isolation
        self.context_length = self._config.profile_facts.context_length
        self.background_share = measure_background(_CALIBRATION_SECONDS)

    def run(
        self,
        run_id: str,
        source: bytes,
        *,
        seed: int,
        budget_seconds: float,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> Run:
        """Train and score one text; ``watch`` is told where it stands, a few times a second."""
        spec = self._spec(run_id, source, seed=seed, budget_seconds=budget_seconds)
        began = time.monotonic()
        with self._ended_with(run_id):
            self._executor.submit(spec)
            while (result := self._result(run_id)) is None:
                watch(self._executor.progress(run_id) or Progress(phase="queued"))
                time.sleep(_POLL_SECONDS)
        call_seconds = time.monotonic() - began
        paths = self._state.run(run_id)
        lines = paths.curve.read_text().splitlines() if paths.curve.exists() else []
        log = self._executor.log(run_id, limit=1 << 20).decode(errors="replace")
        return Run(result=result, curve=[json.loads(line) for line in lines], log=log, call_seconds=call_seconds)

    def _result(self, run_id: str) -> RunResult | None:
        try:
            return self._executor.result(run_id)
        except RunLostError as error:
            return lost_result(str(error))

    @contextmanager
    def _ended_with(self, run_id: str) -> Iterator[None]:
        """Cancel a run where the block does not end by itself, and wait until nothing of it is left."""
        try:
            yield
        except BaseException:
            deadline = time.monotonic() + _CANCEL_SECONDS
            if self._state.run(run_id).root.is_dir():
                self._executor.cancel(run_id)
                while self._result(run_id) is None and time.monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
            raise

    def _spec(self, run_id: str, source: bytes, *, seed: int, budget_seconds: float) -> RunSpec:
        spec = spec_of(
            self._config,
            self._state,
            self.isolation,
            run_id=run_id,
            candidate=source,
            harness=self._harness,
            device=self._place.device,
            seed=seed,
        )
        return replace(
            spec,
            corpus=self._corpus.name,
            budget_seconds=budget_seconds,
            contention_threshold=threshold_of(0.0),  # a machine that is busy all the time is no place for a benchmark
            pins=str(self._pinned()),
        )

    def _pinned(self) -> Path:
        """Return what every run is checked against, as in a lab; made before the first run, when the token stores are there."""
        if self._pins is None:
            maker = TreeMaker(known={}, trust_records=True)
            harness = maker.tree(Kind.HARNESS, self._harness, "run the benchmark again")
            trees = (harness, corpus_tree(maker, self._corpus), *environment_trees(maker, None))
            self._pins = save_pins(Pins(trees=trees), self._state.pins)
        return self._pins
