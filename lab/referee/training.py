"""The training phase: the candidate's process from its start to its end, on the referee's clock and within its limits.

Guarantees: no training token reaches the candidate before the clock has started; at the deadline, or when a limit is passed,
the whole process tree ends, and when `Training.run` returns nothing of it is alive. Does not: score, or believe a report.
"""

from __future__ import annotations

import mmap
import os
import selectors
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ...prepare.channel import Channel, ChannelClosedError, Frame, ProtocolError
from ...prepare.corpus import Corpus
from ...prepare.tokenizer import VOCAB_SIZES
from ..executor import RunSpec
from ..jsonfiles import write_json
from ..paths import RunPaths
from ..pruning import Pruner
from ..states import Outcome
from . import sandbox
from .advisory import advisory_numbers, model_flops_utilisation
from .candidate_process import start_candidate
from .clock import BudgetClock
from .contention import ContentionMeter
from .ending import (
    REASON_CHARACTERS,
    RunEndedError,
    broken_promise,
    end_on_full_disk,
    require_no_survivor,
    require_room,
    tree_of,
)
from .gpu_meter import GpuMeter
from .gpu_neighbours import GpuNeighbours
from .log import CappedLog
from .pins import PinCheck
from .processes import END_SECONDS, ProcessTree, exit_descriptor, signal_name
from .reports import Reports
from .workers import ScoringWorkers, WorkerError

TICK_SECONDS = 0.1
CHANGED_BEFORE = "nothing was trained, because what was pinned had changed before"
_PREPARE_SECONDS = 0.05  # of making the rows to score, between two looks at the run
_PREPARE_AT_MOST_SECONDS = 2.0
_PINS_SECONDS = 0.05  # of their check, between two looks at the run
_SEND_SECONDS = 0.5  # a candidate that does not read its answers waits for nobody else
_MAX_OPENINGS = 4 * len(VOCAB_SIZES)  # an honest file opens each vocabulary once
_SECONDS = struct.Struct("<d")


@dataclass(kw_only=True)
class _CandidateProcess:
    """What the runner knows of the candidate's process."""

    sandboxed: sandbox.Sandboxed
    tree: ProcessTree
    began: float
    start: float | None = None  # time.monotonic() of START
    cpu_at_start: float = 0.0
    end: float | None = None
    cpu_seconds: float = 0.0  # of the tree since the process was started
    openings: int = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.sandboxed.process

    @property
    def exit_code(self) -> int | None:
        """The program's own, negative for a signal; None while it lives."""
        code = self.process.returncode
        return None if code is None else self.sandboxed.rung.exit_code(code)


class Training:
    """Owns the candidate's process and descriptors.

    Attributes:
        handoff: the vocabulary and batch size to score with, once the candidate has named them, and advisory numbers.
        notes: what the result's reason adds to a score.
        in_force: what the rung guarantees, once the candidate was confined.
    """

    def __init__(
        self,
        spec: RunSpec,
        paths: RunPaths,
        *,
        corpus: Corpus,
        workers: ScoringWorkers,
        reports: Reports,
        mark: str,
        gpu: GpuMeter | None,
        neighbours: GpuNeighbours | None,
        check: PinCheck | None,
        prepare_scoring: Callable[..., bool],
    ) -> None:
        self._spec = spec
        self._paths = paths
        self._corpus = corpus
        self._workers = workers
        self._reports = reports
        self._mark = mark  # in the environment of all that the candidate starts
        self._gpu = gpu
        self._gpu_neighbours = neighbours
        self._check_of_pins = check  # goes on while the processes import torch; no clock starts before it is complete
        self._prepare_scoring = prepare_scoring  # `Scoring.prepare`
        self._to_score: int | None = None  # the vocabulary whose rows are made beside the training
        self._contention: ContentionMeter | None = None  # from START on
        self._pruner = None if spec.early_stop is None else Pruner(spec.early_stop, spec.budget_seconds)
        self._clock = BudgetClock(kind=spec.clock, budget_seconds=spec.budget_seconds, cores=spec.cores)
        self._clock_page = self._open_clock()
        self._log = CappedLog(paths.log, limit_bytes=spec.log_kb * 1024)
        self._vocab_sizes = corpus.manifest.vocab_sizes
        self._process: _CandidateProcess | None = None
        self.handoff: dict | None = None
        self.notes: list[str] = []
        self.in_force: dict[str, str] = {}

    def run(self, interpreter: sandbox.Interpreter) -> None:
        """Run the candidate to its exit; returns when it handed a model over in time and nothing of it is left alive."""
        ours, theirs = Channel.pair()
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            sandboxed = start_candidate(  # before the workers: everybody waits for it
                self._spec,
                self._paths,
                interpreter,
                tokenizer=self._corpus.tokenizer_path,
                mark=self._mark,
                channel_fd=theirs.fileno(),
                output_fd=write_end,
            )
            began = time.monotonic()
            self._workers.start(interpreter)
        except sandbox.SandboxError as error:
            raise broken_promise(self._spec, str(error)) from None
        process = sandboxed.process
        theirs.close()
        os.close(write_end)
        tree = tree_of(self._spec, process.pid, self._workers.pids, self._mark)
        training = self._process = _CandidateProcess(sandboxed=sandboxed, tree=tree, began=began)
        sessions = [process.pid, *self._workers.pids]  # each leads one
        write_json(self._paths.processes, {"sessions": sessions, "marks": [self._mark, self._workers.mark]})
        try:
            self._confirm_confinement(sandboxed)
            self._watch(training, ours, read_end)
        finally:
            survivors = training.tree.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_SECONDS)
            if training.end is None:
                training.end = time.monotonic()
            if self._contention is not None:
                self._contention.stop(cpu_seconds=training.cpu_seconds - training.cpu_at_start)
            self._log.read_from(read_end)
            self._log.close()
            os.close(read_end)
            ours.close()
            self._reports.close()
        require_no_survivor(survivors)
        self._judge_exit(training)

    def _confirm_confinement(self, sandboxed: sandbox.Sandboxed) -> None:
        """Wait until both sandboxes are made; a run whose promise cannot be kept ends before its code has begun."""
        try:
            self.in_force = sandboxed.rung.guarantees(sandboxed.wait_until_confined())
            self._workers.wait_until_confined()
        except sandbox.SandboxError as error:
            raise broken_promise(self._spec, str(error)) from None

    def _watch(self, training: _CandidateProcess, channel: Channel, output_fd: int) -> None:
        """The event loop: output, messages, clock and limits, until the process exits or must be ended."""
        selector = selectors.DefaultSelector()
        selector.register(output_fd, selectors.EVENT_READ)
        selector.register(channel, selectors.EVENT_READ)
        exit_fd = exit_descriptor(training.process.pid)
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ)
        channel_open = True
        next_check = 0.0
        try:
            while training.process.poll() is None:
                ready = {key.fd for key, _ in selector.select(self._go_on())}
                if output_fd in ready and not self._log.read_from(output_fd):
                    selector.unregister(output_fd)
                if channel_open and channel.fileno() in ready:
                    channel_open = self._receive(training, channel)
                    if not channel_open:
                        selector.unregister(channel)
                if time.monotonic() >= next_check:
                    self._check(training)
                    next_check = time.monotonic() + TICK_SECONDS
            training.end = time.monotonic()
            if channel_open:
                self._receive(training, channel)
            self._measure(training)
        finally:
            selector.close()
            if exit_fd is not None:
                os.close(exit_fd)

    def _go_on(self) -> float:
        """Do a part of what can be done beside the candidate; return how long to wait then."""
        if self._go_on_with_pins() == 0.0:
            return 0.0
        if self._to_score is not None and self._prepare_scoring(self._to_score, seconds=_PREPARE_SECONDS):
            self._to_score = None
        return TICK_SECONDS if self._to_score is None else 0.0

    def _go_on_with_pins(self) -> float:
        """Do a part of the check of the pins; return how long to wait then. Ends the run when one does not hold."""
        check = self._check_of_pins
        if check is None or check.is_complete:
            return TICK_SECONDS
        check.advance(_PINS_SECONDS)
        if check.before is not None:
            raise RunEndedError(Outcome.LOST, CHANGED_BEFORE)
        return 0.0

    def _receive(self, training: _CandidateProcess, channel: Channel) -> bool:
        """Handle what the candidate said; False when it will say no more."""
        try:
            for frame in channel.poll():
                self._handle(training, channel, frame)
        except ChannelClosedError:
            return False
        except ProtocolError as error:
            raise RunEndedError(Outcome.INVALID, f"the candidate broke the protocol: {error}") from None
        return True

    def _handle(self, training: _CandidateProcess, channel: Channel, frame: Frame) -> None:
        header = frame.header
        if header["type"] == "report":
            self._reports.point(header, self._elapsed(training))
            if self._pruner is not None and training.start is not None:
                self._pruner.report(self._elapsed(training), header.get("metrics"))
        elif header["type"] == "open_train":
            self._hand_over_data(training, channel, header.get("vocab_size"))
        elif header["type"] == "handoff":
            vocab_size, batch_size = header.get("vocab_size"), header.get("batch_size")
            if type(vocab_size) is not int or vocab_size not in self._vocab_sizes or type(batch_size) is not int:
                raise RunEndedError(Outcome.INVALID, f"evaluate_bpb named an unknown vocabulary of {vocab_size!r}")
            self.handoff = {"vocab_size": vocab_size, "batch_size": batch_size, **advisory_numbers(header)}

    def _hand_over_data(self, training: _CandidateProcess, channel: Channel, vocab_size: object) -> None:
        """Start the clock, then pass the tokens; building them, and waiting for the scorers, comes before."""
        if training.end is not None:
            return  # it asked, and was gone before it could be answered
        training.openings += 1
        if training.openings > _MAX_OPENINGS:
            raise RunEndedError(Outcome.INVALID, "train.py opened the training data too often; open each vocabulary once")
        if type(vocab_size) is not int or vocab_size not in self._vocab_sizes:
            message = f"no vocabulary of {vocab_size!r}; there are {self._vocab_sizes}"[:REASON_CHARACTERS]
            with suppress(ChannelClosedError):
                channel.send({"type": "refused", "message": message}, timeout_seconds=_SEND_SECONDS)
            return
        if self._pruner is not None:
            self._pruner.opened(vocab_size)
        if training.start is None:
            while self._go_on_with_pins() == 0.0:
                self._check(training)
            try:
                self._workers.wait_until_ready(lambda: self._check(training))
            except WorkerError as error:
                raise RunEndedError(Outcome.CRASHED, f"{error} (see [limits] memory_mb)") from None
            if self._spec.device == "cpu":  # a tenth of a second, and afterwards every core is the candidate's
                self._prepare_scoring(vocab_size, seconds=_PREPARE_AT_MOST_SECONDS)
            else:
                self._to_score = vocab_size
        tokens_fd = os.open(self._corpus.token_store(vocab_size), os.O_RDONLY)
        clock_fd = os.open(self._paths.clock, os.O_RDONLY)
        try:
            if training.start is None:
                self._contention = ContentionMeter(cores=self._spec.cores, spared=self._workers.pids, gpu=self._gpu_neighbours)
                self._start_clock(training)
            channel.send({"type": "start"}, fds=(tokens_fd, clock_fd), timeout_seconds=_SEND_SECONDS)
        except ChannelClosedError:
            return  # the candidate is gone; its exit says the rest
        finally:
            os.close(tokens_fd)
            os.close(clock_fd)

    # -- clock and limits -------------------------------------------------------------------------------------------------

    def _start_clock(self, training: _CandidateProcess) -> None:
        """START; ends the run where start-up took so much beyond its allowance that nothing of the budget is left."""
        self._measure(training)
        training.cpu_at_start = training.cpu_seconds
        training.start = time.monotonic()
        clock, spec = self._clock, self._spec
        reading = {"wall_seconds": training.start - training.began, "cpu_seconds": training.cpu_at_start}
        allowance = spec.startup_allowance_seconds
        if allowance is not None and (excess := clock.startup_seconds(**reading) - allowance) > 0:
            self._clock = replace(clock, deducted_seconds=excess)
            used = (
                f"start-up used {allowance + excess:.1f} s ({clock.kind}) where the baseline's allows {allowance:.1f} s, so "
                f"{excess:.1f} s of the budget of {spec.budget_seconds:g} s"
            )
            if excess >= spec.budget_seconds:
                raise RunEndedError(Outcome.TIMED_OUT, f"{used}, all of it, were deducted before the training could start")
            self.notes.append(f"{used} were deducted")
        if self._pruner is not None:
            self._pruner.started(self._clock.deducted_seconds)
        _SECONDS.pack_into(self._clock_page, 0, self._clock.budget_seconds - self._clock.deducted_seconds)
        self._reports.phase("training")

    def _check(self, training: _CandidateProcess) -> None:
        """Publish the clock; end the run when a limit is passed."""
        memory_bytes, processes = self._measure(training)
        spec = self._spec
        if self._paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled by cancel_experiment")
        if training.start is None:
            waited = time.monotonic() - training.began
            if waited > spec.startup_seconds:
                reason = f"start-up took more than {spec.startup_seconds:.0f} s ([budget] startup_seconds)"
                raise RunEndedError(Outcome.TIMED_OUT, reason)
        else:
            if self._contention is not None:
                self._contention.sample()
            wall, cpu = time.monotonic() - training.start, training.cpu_seconds - training.cpu_at_start
            left = self._clock.seconds_left(wall_seconds=wall, cpu_seconds=cpu)
            _SECONDS.pack_into(self._clock_page, 0, left)
            self._reports.progress("training", self._elapsed(training), max(left, 0.0))
            if self._clock.expired(wall_seconds=wall, cpu_seconds=cpu):
                raise RunEndedError(Outcome.TIMED_OUT, self._overrun_reason())
            if self._pruner is not None and self.handoff is None and (why := self._pruner.reason(self._elapsed(training))):
                raise RunEndedError(Outcome.PRUNED, why)
        require_room(spec, training.tree, memory_bytes, processes, self._paths.scratch)

    def _overrun_reason(self) -> str:
        return (
            f"ran past its budget of {self._spec.budget_seconds:g} s and the grace of {self._clock.grace_seconds:g} s; "
            "end the loop on seconds_left() and hand the model over with evaluate_bpb"
        )

    def _measure(self, training: _CandidateProcess) -> tuple[int, int]:
        if self._gpu is not None:
            self._gpu.sample()
        cpu_seconds, memory_bytes, processes = training.tree.sample()
        training.cpu_seconds = max(training.cpu_seconds, cpu_seconds)
        return memory_bytes, processes

    def _elapsed(self, training: _CandidateProcess) -> float:
        if training.start is None:
            return 0.0
        wall, cpu = time.monotonic() - training.start, training.cpu_seconds - training.cpu_at_start
        return self._clock.elapsed(wall_seconds=wall, cpu_seconds=cpu)

    def _judge_exit(self, training: _CandidateProcess) -> None:
        """Decide whether there is a model to score."""
        code = training.exit_code
        if code is None:
            raise RunEndedError(Outcome.INVALID, "train.py's process could not be ended")
        if training.start is not None and training.end is not None:
            wall, cpu = training.end - training.start, training.cpu_seconds - training.cpu_at_start
            if self._clock.expired(wall_seconds=wall, cpu_seconds=cpu):
                raise RunEndedError(Outcome.TIMED_OUT, self._overrun_reason())
        if code != 0:
            how = f"was ended by {signal_name(-code)}" if code < 0 else f"exited with code {code}"
            full = end_on_full_disk(self._spec, self._paths.scratch, how)
            raise full or RunEndedError(Outcome.CRASHED, f"train.py {how}; its log says why")
        if self.handoff is None:
            raise RunEndedError(Outcome.CRASHED, "train.py ended without evaluate_bpb(model, tokenizer, batch_size)")
        if training.start is None:
            raise RunEndedError(Outcome.INVALID, "train.py handed a model over without opening the training data")

    def facts(self) -> dict:
        """Return what was measured so far, under the names that `RunResult` has for it."""
        facts: dict = {
            "steps": self._reports.last_step,
            "log_bytes": self._log.total_bytes,
            **({} if self._contention is None else self._contention.facts(self._spec.contention_threshold)),
        }
        training = self._process
        if training is None:
            return facts
        facts["exit_code"] = training.exit_code
        facts["peak_memory_mb"] = round(training.tree.peak_memory_bytes / 2**20, 1)
        if self.handoff is not None:
            facts |= {name: value for name, value in self.handoff.items() if name != "batch_size"}
        if training.start is not None and training.end is not None:
            wall, cpu = training.end - training.start, training.cpu_seconds - training.cpu_at_start
            facts["startup_seconds"] = round(training.start - training.began, 3)
            facts["startup_cpu_seconds"] = round(training.cpu_at_start, 3)
            facts["startup_deducted_seconds"] = round(self._clock.deducted_seconds, 3)
            facts["wall_seconds"] = round(wall, 3)
            facts["cpu_seconds"] = round(cpu, 3)
            facts["elapsed_seconds"] = round(self._clock.elapsed(wall_seconds=wall, cpu_seconds=cpu), 3)
            name = None if self._gpu is None else self._gpu.device_name
            facts["model_flops_utilisation"] = model_flops_utilisation(facts, seconds=wall, device_name=name)
        return facts

    def _open_clock(self) -> mmap.mmap:
        self._paths.clock.write_bytes(_SECONDS.pack(self._spec.budget_seconds))
        fd = os.open(self._paths.clock, os.O_RDWR)
        try:
            return mmap.mmap(fd, _SECONDS.size)
        finally:
            os.close(fd)
