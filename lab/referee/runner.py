"""The runner: one process for one run, detached from the server, that times, confines, scores and records it.

Guarantees: no training token reaches the candidate before the clock has started; at the deadline the whole process tree
ends; the number comes from the scorer and never from what the candidate printed; result.json is written once, whole, as
the last act. Does not: decide anything, or write to the ledger. If this process dies, nothing is recorded,
and whoever finds its lock free starts the run again or declares it lost.
"""

from __future__ import annotations

import mmap
import os
import resource
import secrets
import selectors
import stat
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...prepare.channel import Channel, ChannelClosedError, Frame, ProtocolError
from ...prepare.corpus import Corpus, open_corpus
from ...prepare.tokenizer import VOCAB_SIZES
from ..devices import NvmlDriver
from ..executor import RunResult, RunSpec
from ..isolation import LEVELS, label
from ..jsonfiles import write_json
from ..locks import try_lock
from ..paths import RunPaths, device_lock_path
from ..states import Outcome
from . import pins, sandbox
from .advisory import advisory_numbers, model_flops_utilisation
from .candidate_process import prepare_folder, start_candidate
from .clock import BudgetClock
from .contention import ContentionMeter
from .gpu_meter import GpuMeter
from .gpu_neighbours import GpuNeighbours
from .log import CappedLog
from .processes import END_SECONDS, ProcessTree, adopt_orphans, exit_descriptor, signal_name
from .reference import load_reference, save_claims
from .reports import Reports
from .sandbox import IsolationLevel
from .scorer import AuditPlan, InvalidModelError, Score, Scorer
from .scoring_meter import cpu_warning
from .scratch import folder_bytes, is_disk_full, remove_folder
from .specfile import read_spec, write_result
from .tracing import Trace
from .windows import NoWindowsError, Rows, draw_windows, encode_rows
from .workers import NAMES, ScoringWorkers, WorkerError

TICK_SECONDS = 0.1
_SEND_SECONDS = 0.5  # a candidate that does not read its answers waits for nobody else
_MAX_OPENINGS = 4 * len(VOCAB_SIZES)  # an honest file opens each vocabulary once
_REASON_CHARACTERS = 2000
_LOGITS_BYTES, _GPU_LOGITS_BYTES = 256 << 20, 1 << 30  # of one scoring batch; several copies of it live at once
_SCORING_CHECK_SECONDS = 1.0
_SECONDS = struct.Struct("<d")


class RunEndedError(Exception):
    """The run ended without a score; carries the outcome and the reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason[:_REASON_CHARACTERS]


def run(folder: Path) -> None:
    """Execute the run described in ``folder`` and leave its result there."""
    paths = RunPaths(folder)
    output = os.open(paths.runner_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd in (1, 2):
        os.dup2(output, fd)
    spec = read_spec(paths)
    started, started_ns = time.monotonic(), time.time_ns()
    if tainted := _changed_pin(spec):  # the number would be worth nothing: better to say so now than after the budget
        reason = "nothing was trained, because what was pinned had changed before"
        write_result(paths, RunResult(outcome=Outcome.LOST, reason=reason, tainted=tainted))
        return
    runner = Runner(spec, paths)
    try:
        _keep_processes_together(spec)
        device_lock = _wait_for_device(spec, paths)
        try:
            fields = runner.execute()
        finally:
            os.close(device_lock)
    except RunEndedError as ended:
        fields = {"outcome": ended.outcome, "reason": ended.reason, **runner.facts()}
    for folder in (paths.scratch, paths.scoring, paths.python):
        remove_folder(folder)
    fields["tainted"] = _changed_pin(spec, since_ns=started_ns)
    write_result(paths, RunResult(**fields, total_seconds=round(time.monotonic() - started, 3)))


def _changed_pin(spec: RunSpec, *, since_ns: int | None = None) -> str | None:
    """Return which pin of the harness, the corpus or the environment does not hold, and what to do about it."""
    return None if spec.pins is None else pins.check(spec.pins, since_ns=since_ns)


def _keep_processes_together(spec: RunSpec) -> None:
    """Become the parent of whatever the run's processes leave behind, where the promised level says so."""
    if spec.isolation not in LEVELS or not (spec.isolation == IsolationLevel.NONE or adopt_orphans()):
        raise RunEndedError(Outcome.LOST, _broken_promise(spec, "it does not exist here"))


def _broken_promise(spec: RunSpec, why: str) -> str:
    return f"the isolation {spec.isolation!r}, which the run was promised, cannot be had: {why}"


def _wait_for_device(spec: RunSpec, paths: RunPaths) -> int:
    """Return the lock of the device, once it is free; ends the run when it is cancelled before."""
    while (lock := try_lock(device_lock_path(spec.device))) is None:
        if paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled before it started")
        time.sleep(TICK_SECONDS)
    return lock


@dataclass(kw_only=True)
class _Training:
    """What the runner knows of the candidate's process."""

    sandboxed: sandbox.Sandboxed
    tree: ProcessTree
    began: float = field(default_factory=time.monotonic)
    start: float | None = None  # time.monotonic() of START
    cpu_at_start: float = 0.0
    end: float | None = None
    cpu_seconds: float = 0.0  # of the tree since the process was started
    handoff: dict | None = None
    openings: int = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.sandboxed.process

    @property
    def exit_code(self) -> int | None:
        """The program's own, negative for a signal; None while it lives."""
        code = self.process.returncode
        return None if code is None else self.sandboxed.rung.exit_code(code)


class Runner:
    """Owns every process and descriptor of one run. Single-threaded on purpose."""

    def __init__(self, spec: RunSpec, paths: RunPaths) -> None:
        self._spec = spec
        self._paths = paths
        self._clock = BudgetClock(kind=spec.clock, budget_seconds=spec.budget_seconds, cores=spec.cores)
        self._corpus: Corpus = open_corpus(spec.corpus)
        self._log = CappedLog(paths.log, limit_bytes=spec.log_kb * 1024)
        self._reports = Reports(paths)
        self._marks = (secrets.token_hex(16), secrets.token_hex(16))  # of the candidate's and of the scoring processes
        self._workers = ScoringWorkers(spec, paths, mark=self._marks[1])
        self._gpu: GpuMeter | None = None
        self._gpu_neighbours: GpuNeighbours | None = None
        self._contention: ContentionMeter | None = None  # from START on
        self._next_scoring_check = 0.0
        self._vocab_sizes = self._corpus.manifest.vocab_sizes
        self._training: _Training | None = None
        self._scoring_seconds: float | None = None
        self._claimed_bpb: float | None = None
        self._notes: list[str] = []  # what the result's reason adds to a score
        self._clock_page = self._open_clock()
        self._in_force: dict[str, str] = {}  # what the rung guarantees, once the candidate was confined

    # -- the three phases -------------------------------------------------------------------------------------------------

    def execute(self) -> dict:
        """Train, end, score. Returns the fields of a scored result; raises `RunEndedError` for everything else."""
        self._reports.phase("starting")
        try:
            interpreter = prepare_folder(self._spec, self._paths)
        except sandbox.InterpreterError as error:
            raise RunEndedError(Outcome.LOST, str(error)) from None
        if self._spec.device != "cpu":
            driver = NvmlDriver()
            self._gpu = GpuMeter(self._spec.device, driver)
            self._gpu_neighbours = GpuNeighbours(self._spec.device, driver)
        try:
            self._train(interpreter)
            assert self._training is not None
            score = self._score(self._training.handoff or {})
        finally:
            self._workers.end()
            survivors = self._tree(None, set(), *self._marks).kill()
        self._require_no_survivor(survivors)
        return {
            "outcome": Outcome.SCORED,
            "reason": "; ".join(["scored", *self._notes]),
            "val_bpb": score.val_bpb,
            "standard_error": score.standard_error,
            "audits": score.audits,
            "scored_bytes": score.scored_bytes,
            "scored_tokens": score.scored_tokens,
            "window_nats": score.window_nats,
            **self.facts(),
        }

    def facts(self) -> dict:
        """Return what was measured about the run so far, whatever its outcome."""
        facts: dict = {
            "steps": self._reports.last_step,
            "log_bytes": self._log.total_bytes,
            "guarantees": self._guarantees(),
            "claimed_bpb": self._claimed_bpb,
            "scoring_seconds": self._scoring_seconds,
            "bulk_cpu_seconds": self._workers.cpu_seconds("bulk"),
            "audit_cpu_seconds": self._workers.cpu_seconds("audit"),
            **({} if self._gpu is None else self._gpu.facts()),
            **({} if self._contention is None else self._contention.facts(self._spec.contention_threshold)),
        }
        training = self._training
        if training is None:
            return facts
        facts["exit_code"] = training.exit_code
        facts["peak_memory_mb"] = round(training.tree.peak_memory_bytes / 2**20, 1)
        if training.handoff is not None:
            facts |= {name: value for name, value in training.handoff.items() if name != "batch_size"}
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

    def _train(self, interpreter: sandbox.Interpreter) -> None:
        """Run the candidate to its exit; returns when it handed a model over in time and nothing of it is left alive."""
        ours, theirs = Channel.pair()
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            self._workers.start(interpreter)
            sandboxed = start_candidate(
                self._spec,
                self._paths,
                interpreter,
                tokenizer=self._corpus.tokenizer_path,
                mark=self._marks[0],
                channel_fd=theirs.fileno(),
                output_fd=write_end,
            )
        except sandbox.SandboxError as error:
            raise RunEndedError(Outcome.LOST, _broken_promise(self._spec, str(error))) from None
        process = sandboxed.process
        theirs.close()
        os.close(write_end)
        tree = self._tree(process.pid, self._workers.pids, self._marks[0])
        training = self._training = _Training(sandboxed=sandboxed, tree=tree)
        sessions = [process.pid, *self._workers.pids]  # each leads one
        write_json(self._paths.processes, {"sessions": sessions, "marks": self._marks})
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
        self._require_no_survivor(survivors)
        self._judge_exit(training)

    def _confirm_confinement(self, sandboxed: sandbox.Sandboxed) -> None:
        """Wait until both sandboxes are made; a run whose promise cannot be kept ends before its code has begun."""
        try:
            self._in_force = sandboxed.rung.guarantees(sandboxed.wait_until_confined())
            self._workers.wait_until_confined()
        except sandbox.SandboxError as error:
            raise RunEndedError(Outcome.LOST, _broken_promise(self._spec, str(error))) from None

    def _require_no_survivor(self, survivors: int) -> None:
        if survivors:
            raise RunEndedError(Outcome.INVALID, f"{survivors} processes of the run could not be ended")

    def _watch(self, training: _Training, channel: Channel, output_fd: int) -> None:
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
                ready = {key.fd for key, _ in selector.select(TICK_SECONDS)}
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

    def _receive(self, training: _Training, channel: Channel) -> bool:
        """Handle what the candidate said; False when it will say no more."""
        try:
            for frame in channel.poll():
                self._handle(training, channel, frame)
        except ChannelClosedError:
            return False
        except ProtocolError as error:
            raise RunEndedError(Outcome.INVALID, f"the candidate broke the protocol: {error}") from None
        return True

    def _handle(self, training: _Training, channel: Channel, frame: Frame) -> None:
        header = frame.header
        if header["type"] == "report":
            self._reports.point(header, self._elapsed(training))
        elif header["type"] == "open_train":
            self._hand_over_data(training, channel, header.get("vocab_size"))
        elif header["type"] == "handoff":
            vocab_size, batch_size = header.get("vocab_size"), header.get("batch_size")
            if type(vocab_size) is not int or vocab_size not in self._vocab_sizes or type(batch_size) is not int:
                raise RunEndedError(Outcome.INVALID, f"evaluate_bpb named an unknown vocabulary of {vocab_size!r}")
            training.handoff = {"vocab_size": vocab_size, "batch_size": batch_size, **advisory_numbers(header)}

    def _hand_over_data(self, training: _Training, channel: Channel, vocab_size: object) -> None:
        """Start the clock, then pass the tokens; building them, and waiting for the scorers, comes before."""
        if training.end is not None:
            return  # it asked, and was gone before it could be answered
        training.openings += 1
        if training.openings > _MAX_OPENINGS:
            raise RunEndedError(Outcome.INVALID, "train.py opened the training data too often; open each vocabulary once")
        if type(vocab_size) is not int or vocab_size not in self._vocab_sizes:
            message = f"no vocabulary of {vocab_size!r}; there are {self._vocab_sizes}"[:_REASON_CHARACTERS]
            with suppress(ChannelClosedError):
                channel.send({"type": "refused", "message": message}, timeout_seconds=_SEND_SECONDS)
            return
        if training.start is None:
            try:
                self._workers.wait_until_ready(lambda: self._check(training))
            except WorkerError as error:
                raise RunEndedError(Outcome.CRASHED, f"{error} (see [limits] memory_mb)") from None
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

    def _start_clock(self, training: _Training) -> None:
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
                raise RunEndedError(Outcome.TIMED_OUT, f"{used}, all of it, were gone before the training could start")
            self._notes.append(f"{used} were deducted")
        _SECONDS.pack_into(self._clock_page, 0, self._clock.budget_seconds - self._clock.deducted_seconds)
        self._reports.phase("training")

    def _check(self, training: _Training) -> None:
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
        self._check_room(training.tree, memory_bytes, processes, self._paths.scratch)

    def _check_room(self, tree: ProcessTree, memory_bytes: int, processes: int, folder: Path) -> None:
        """End the run when its processes have more memory, siblings or disk than they may; memory is confirmed by PSS."""
        spec, limit_bytes = self._spec, self._spec.memory_mb << 20
        if memory_bytes > limit_bytes and tree.proportional_memory_bytes() > limit_bytes:
            raise RunEndedError(Outcome.CRASHED, f"used more than {spec.memory_mb} MB of memory ([limits] memory_mb)")
        if processes > spec.processes or tree.threads > sandbox.thread_limit(spec.processes):
            raise RunEndedError(Outcome.CRASHED, f"started more than {spec.processes} processes ([limits] processes)")
        if folder_bytes(folder, limit_bytes=spec.disk_mb << 20) + tree.deleted_bytes() > spec.disk_mb << 20:
            raise RunEndedError(
                Outcome.CRASHED,
                f"wrote more than {spec.disk_mb} MB to disk ([limits] disk_mb), or into folders that cannot be measured",
            )
        if is_disk_full(folder):
            raise RunEndedError(Outcome.CRASHED, "the disk is full")

    def _overrun_reason(self) -> str:
        return (
            f"ran past its budget of {self._spec.budget_seconds:g} s and the grace of {self._clock.grace_seconds:g} s; "
            "end the loop on seconds_left() and hand the model over with evaluate_bpb"
        )

    def _measure(self, training: _Training) -> tuple[int, int]:
        if self._gpu is not None:
            self._gpu.sample()
        cpu_seconds, memory_bytes, processes = training.tree.sample()
        training.cpu_seconds = max(training.cpu_seconds, cpu_seconds)
        if training.end is not None:
            # The candidate has been waited for, the workers have not: what this process has reaped is exactly the tree.
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            training.cpu_seconds = max(training.cpu_seconds, usage.ru_utime + usage.ru_stime)
        return memory_bytes, processes

    def _elapsed(self, training: _Training) -> float:
        if training.start is None:
            return 0.0
        wall, cpu = time.monotonic() - training.start, training.cpu_seconds - training.cpu_at_start
        return self._clock.elapsed(wall_seconds=wall, cpu_seconds=cpu)

    def _judge_exit(self, training: _Training) -> None:
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
            raise RunEndedError(Outcome.CRASHED, f"train.py {how}; its log says why")
        if training.handoff is None:
            raise RunEndedError(Outcome.CRASHED, "train.py ended without evaluate_bpb(model, tokenizer, batch_size)")
        if training.start is None:
            raise RunEndedError(Outcome.INVALID, "train.py handed a model over without opening the training data")

    # -- scoring ----------------------------------------------------------------------------------------------------------

    def _score(self, handoff: dict) -> Score:
        began = time.monotonic()
        self._reports.phase("scoring")
        spec, vocab_size = self._spec, handoff["vocab_size"]
        tokenizer = self._corpus.tokenizer(vocab_size)
        padding = np.memmap(self._corpus.token_store(vocab_size), dtype=np.uint16, mode="r")
        rng = np.random.default_rng(secrets.randbits(128))
        try:
            windows = draw_windows(
                self._corpus.text("val"),
                self._corpus.offsets("val"),
                secret=Path(spec.validation_secret).read_bytes(),
                total_bytes=spec.validation_bytes,
                window_bytes=spec.window_bytes,
            )
        except NoWindowsError as error:
            raise RunEndedError(Outcome.LOST, str(error)) from None
        rows = encode_rows(
            self._corpus.text("val"),
            windows,
            tokenizer,
            context_length=spec.context_length,
            padding=padding,
            rng=rng,
        )
        bulk, audit = self._workers.channels
        scorer = Scorer(
            bulk=bulk,
            audit=audit,
            time_limit_seconds=spec.scoring_seconds - (time.monotonic() - began),
            on_progress=self._on_scoring_progress,
            on_bulk_done=self._workers.end_bulk,
            logits_bytes=_LOGITS_BYTES if spec.device == "cpu" else _GPU_LOGITS_BYTES,
        )
        plan = AuditPlan(
            audits=spec.audits,
            audits_before_keep=spec.audits_before_keep,
            keepable_below_bpb=spec.keepable_below_bpb,
            champion=self._champion(rows, tokenizer.token_bytes),
            champion_windows=spec.reference_window_nats,
        )
        model_fds = self._open_model_twice()
        try:
            score = scorer.score(
                model_fds,
                rows,
                vocab_size=vocab_size,
                batch_rows=handoff["batch_size"],
                plan=plan,
                decoys=padding,
                rng=rng,
            )
        except InvalidModelError as error:
            self._claimed_bpb = error.claimed_bpb
            raise RunEndedError(Outcome.INVALID, str(error)) from None
        finally:
            for model_fd in model_fds:
                os.close(model_fd)
            self._scoring_seconds = round(time.monotonic() - began, 3)
        self._claimed_bpb = score.claimed_bpb
        with suppress(OSError):  # a full disk; then the audits of its children look at windows
            save_claims(self._paths.claims, rows, score.claims, tokenizer.token_bytes)
        self._note_cpu_time(score, len(rows.scored))
        return score

    def _champion(self, rows: Rows, token_bytes: np.ndarray) -> np.ndarray | None:
        """Return the champion's nats at each position of ``rows``, where it left them."""
        path = self._spec.reference_claims
        reference = None if path is None else load_reference(Path(path), rows.scored_bytes)
        return None if reference is None else reference.at(rows, token_bytes)

    def _note_cpu_time(self, score: Score, rows: int) -> None:
        bulk, audit = (self._workers.cpu_seconds(name) for name in NAMES)
        if bulk is not None and audit is not None:
            warning = cpu_warning(bulk_cpu_seconds=bulk, audit_cpu_seconds=audit, rows=rows, audits=score.audits)
            self._notes += [warning] if warning else []

    def _on_scoring_progress(self, share: float | None) -> None:
        if self._paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled by cancel_experiment")
        if time.monotonic() >= self._next_scoring_check:
            self._next_scoring_check = time.monotonic() + _SCORING_CHECK_SECONDS
            tree = self._tree(None, set(), *self._marks)
            _, memory_bytes, processes = tree.sample()
            self._check_room(tree, memory_bytes, processes, self._paths.scoring)
        self._workers.sample_cpu()
        if share is not None:
            self._reports.progress("scoring", share, None)

    def _open_model_twice(self) -> tuple[int, int]:
        """Return two private copies of the handed-over model."""
        model_fd = self._open_model()
        try:
            return self._workers.copy_model(model_fd), self._workers.copy_model(model_fd)
        finally:
            os.close(model_fd)

    def _open_model(self) -> int:
        """Open the handed-over file: a regular one, of a bounded size; its content is never looked at here."""
        try:
            fd = os.open(self._paths.model, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise RunEndedError(Outcome.INVALID, f"there is no model to score: {error.strerror}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > self._spec.disk_mb << 20:
            os.close(fd)
            raise RunEndedError(Outcome.INVALID, "the handed-over model is not a regular file of an acceptable size")
        return fd

    def _guarantees(self) -> dict[str, str]:
        isolation = LEVELS.get(self._spec.isolation)
        named = {} if isolation is None else {"isolation": label(isolation, self._spec.isolation_accepted_on)}
        return {**sandbox.guarantees_of(self._spec.device), **self._in_force, **named}

    # -- processes and files ----------------------------------------------------------------------------------------------

    def _tree(self, root_pid: int | None, spared: set[int], *marks: str) -> ProcessTree:
        trace = Trace(marks) if self._spec.isolation == IsolationLevel.NONE else None
        return ProcessTree(root_pid, spared, trace)

    def _open_clock(self) -> mmap.mmap:
        self._paths.clock.write_bytes(_SECONDS.pack(self._spec.budget_seconds))
        fd = os.open(self._paths.clock, os.O_RDWR)
        try:
            return mmap.mmap(fd, _SECONDS.size)
        finally:
            os.close(fd)
