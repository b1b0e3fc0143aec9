"""The certified val_bpb of a candidate's model, measured in processes that the referee does not trust.

Bulk: a fresh process sees every row and its targets, and *claims* the nats of every position. Audit: a second fresh
process sees some rows up to a secret cut, followed by a decoy of training text, and returns logits at the cut; the true
next token never enters it, and the referee takes the log-softmax itself. `audits` says what both come to: an unbiased estimate
whatever the first process says; for an honest model the correction is numerically nothing, and a lie cancels itself.

Guarantees no number rather than a bad one: anything non-finite, negative, late or of the wrong size raises
`InvalidModelError`. Several processes may share a pass, side by side; each is asked for more than it works on, so that none
waits for the referee. Those of the bulk pass are let go before the audit begins, so that nothing passes between the two but
the choice of the cuts, and a GPU never holds the batches of both.
"""

from __future__ import annotations

import builtins
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...prepare.channel import Channel, ChannelClosedError, Frame, ProtocolError
from .audits import (
    InvalidModelError,
    Picks,
    Score,
    bits_per_byte,
    certify,
    check_claims,
    negative_log_softmax,
    pick_audits,
)
from .reference import claimed_gains
from .scoring_memory import ScoringMemory
from .windows import Rows

_MAX_ROWS = 128
_REQUESTS_AHEAD = 1  # of the one that is worked on, so that none waits for the referee; more would make one the last by more
_REQUESTS_AHEAD_ALONE = 2  # a GPU begins with the next while the last is read back
_SLICE_SECONDS = 0.5
_REQUEST_SHARE = 0.2  # of the time limit, for the answer to one request: a model that hangs is not waited for
_SHORTEST_REQUEST_SECONDS = 10.0
_GONE = "the model ended the process that scores it (out of memory, or a crash)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """How many rows are audited, and where the champion stands.

    ``audits`` in every run; ``audits_before_keep`` where the claim is below ``keepable_below_bpb`` (None: whatever it is);
    the bulk process has ended when that is decided. ``champion`` are the champion's nats at each position, float64 [rows, T],
    or None, and ``champion_windows`` those of each window, or nothing.
    """

    audits: int
    audits_before_keep: int = 0
    keepable_below_bpb: float | None = None
    champion: np.ndarray | None = None
    champion_windows: tuple[float, ...] = ()

    def wanted(self, claimed_bpb: float) -> int:
        """Return how many rows to audit of a run that claims ``claimed_bpb``."""
        if self.keepable_below_bpb is not None and claimed_bpb >= self.keepable_below_bpb:
            return self.audits
        return max(self.audits, self.audits_before_keep)


class Scorer:
    """Scores one model. ``bulk`` and ``audit`` are channels to fresh, ready scoring workers, one or more for each pass.

    Attributes:
        notes: which batch was picked, where it is not the one that was asked for.
    """

    def __init__(
        self,
        *,
        bulk: Sequence[Channel],
        audit: Sequence[Channel],
        time_limit_seconds: float,
        on_progress: Callable[[float | None], None],
        on_bulk_done: Callable[[], None] = lambda: None,
        logits_bytes: int | None = None,
        cores: int = 1,
        memory_of: Callable[[str], ScoringMemory | None] = lambda _: None,
    ) -> None:
        """Make one.

        Args:
            on_bulk_done: the place to end the bulk processes, whether they want to or not.
            logits_bytes: the most that the logits of one batch may take as float32; None: what the device has room for.
            cores: to be shared by the processes of a pass.
            memory_of: measures the memory of the pass "bulk" or "audit", which then begins with small batches.
        """
        self._bulk = bulk
        self._audit = audit
        self._deadline = time.monotonic() + time_limit_seconds
        self._request_seconds = max(_SHORTEST_REQUEST_SECONDS, _REQUEST_SHARE * time_limit_seconds)
        self._on_progress = on_progress
        self._on_bulk_done = on_bulk_done
        self._logits_bytes = logits_bytes
        self._cores = cores
        self._memory_of = memory_of
        self._memory: ScoringMemory | None = None  # of the pass that goes on
        self._batch = self._most = _MAX_ROWS  # rows: now, and never more than
        self._refused: str | None = None  # why it is no larger

    @property
    def notes(self) -> list[str]:
        rows = f"{self._most} row{'' if self._most == 1 else 's'}"
        return [] if self._refused is None else [f"scored in batches of {rows}: {self._refused}"]

    def score(
        self,
        model_fds: tuple[Sequence[int], Sequence[int]],
        rows: Rows,
        *,
        vocab_size: int,
        batch_rows: int,
        plan: AuditPlan,
        decoys: np.ndarray,
        rng: np.random.Generator,
    ) -> Score:
        """Return the certified score.

        ``model_fds`` are two copies of the model, for bulk and audit: a descriptor for each process. ``decoys`` are training
        tokens (uint16) that follow the cuts.
        """
        count, context = len(rows.scored), rows.tokens.shape[1] - 1
        self._most = max(1, min(batch_rows, _MAX_ROWS, count))
        if self._logits_bytes is not None:
            self._most = max(1, min(self._most, self._logits_bytes // (4 * context * vocab_size)))
        bulk_fds, audit_fds = model_fds
        loaded = self._load("bulk", self._bulk, bulk_fds, context, vocab_size)
        claims = np.empty((count, context))
        self._work(loaded, self._bulk_jobs(rows, vocab_size, claims, rng))
        for channel in self._bulk:
            channel.close()
        self._on_bulk_done()
        check_claims(rows, claims)
        wanted = plan.wanted(bits_per_byte(float(claims.sum()), rows))
        gains = claimed_gains(rows, claims, champion=plan.champion, champion_windows=plan.champion_windows)
        picks = pick_audits(rows, gains, wanted, rng)
        # Only now: a model that was loaded before could listen, in a thread, to what the bulk process does to the machine.
        loaded = self._load("audit", self._audit, audit_fds, context, vocab_size)
        audited = np.empty(len(picks.rows))
        self._work(loaded, self._audit_jobs(rows, picks, vocab_size, decoys, audited, rng))
        return certify(rows, claims, picks, audited)

    def _load(
        self, name: str, channels: Sequence[Channel], model_fds: Sequence[int], context: int, vocab_size: int
    ) -> Sequence[Channel]:
        """Have the model loaded and tried on random tokens: what fails now can be told in the model's own words.

        All at once where there surely is memory for that, else one process after the other, as many as there is memory for.
        Returns the channels of those that have loaded it.
        """
        memory = self._memory = self._memory_of(name)
        at_once = memory is None or memory.all_fit(os.fstat(model_fds[0]).st_size)
        header = {"type": "load", "context": context, "vocab_size": vocab_size}
        if at_once:
            for channel, model_fd in zip(channels, model_fds, strict=True):
                self._send(channel, header, fds=(model_fd,))
        loaded: list[Channel] = []
        for channel, model_fd in zip(channels, model_fds, strict=True):
            if not at_once:
                if loaded and memory is not None and not memory.another_fits():
                    break
                self._send(channel, header, fds=(model_fd,))
            frame = self._check(self._wait(channel), "loaded")
            self._limit(frame.header.get("rows"))
            loaded.append(channel)
            if memory is not None:
                memory.loaded()
        self._batch = self._most if memory is None else 1
        return loaded

    def _limit(self, fitting: object) -> None:
        """Use no larger batches than a device has room for, as the process on it measured."""
        if type(fitting) is int and fitting < self._most:
            self._refused = f"the device has no memory for {self._most}"
            self._most = max(1, fitting)

    def _bulk_jobs(self, rows: Rows, vocab_size: int, claims: np.ndarray, rng: np.random.Generator) -> Iterator[_Job]:
        """Every row once, in a secret order; fills ``claims``, nats float64 [rows, T]."""
        count, context = claims.shape
        order, start, answered = rng.permutation(count), 0, 0

        def store(chosen: np.ndarray, answer: np.ndarray) -> None:
            nonlocal answered
            claims[chosen] = answer
            answered += len(chosen)
            self._on_progress(answered / count)

        while start < count:
            chosen = order[start : start + self._batch]
            header = {"type": "bulk", "vocab_size": vocab_size}
            yield _Job(header=header, rows=rows.tokens[chosen], places=chosen, columns=context, store=store)
            start += len(chosen)

    def _audit_jobs(
        self,
        rows: Rows,
        picks: Picks,
        vocab_size: int,
        decoys: np.ndarray,
        audited: np.ndarray,
        rng: np.random.Generator,
    ) -> Iterator[_Job]:
        """Every picked row up to its cut, then a decoy; fills ``audited``, the referee's own nats, float64 [audits]."""
        context, start = rows.tokens.shape[1] - 1, 0

        def store(places: np.ndarray, logits: np.ndarray) -> None:
            if not np.isfinite(logits).all():
                raise InvalidModelError("the model's logits are not finite (NaN or infinity)")
            targets = rows.tokens[picks.rows[places], picks.cuts[places] + 1]
            audited[places] = negative_log_softmax(logits.astype(np.float64), targets)

        while start < len(audited):
            places = np.arange(start, min(start + self._batch, len(audited)))
            cuts = picks.cuts[places]
            inputs = rows.tokens[picks.rows[places], :-1]
            for row, cut in zip(inputs, cuts.tolist(), strict=True):
                offset = int(rng.integers(0, len(decoys) - context))
                row[cut + 1 :] = decoys[offset : offset + context - cut - 1]
            header = {"type": "audit", "vocab_size": vocab_size, "cuts": cuts.tolist()}
            yield _Job(header=header, rows=inputs, places=places, columns=vocab_size, store=store)
            start += len(places)

    def _work(self, channels: Sequence[Channel], jobs: Iterator[_Job]) -> None:
        """Have all jobs done: each process always has the next ones before it has answered the last."""
        lines = [_Line(channel=channel) for channel in channels]
        halves: deque[_Job] = deque()
        threads = max(1, self._cores // len(lines))
        ahead = _REQUESTS_AHEAD if len(lines) > 1 else _REQUESTS_AHEAD_ALONE
        while True:
            for line in lines:
                while len(line.jobs) <= ahead:
                    job = halves.popleft() if halves else next(jobs, None)
                    if job is None:
                        break
                    line.ask(job, threads)
            busy = [line for line in lines if line.jobs]
            if not busy:
                return
            for line, frame in self._exchange(busy):
                job = line.answered()
                if frame.header["type"] == "out_of_memory":
                    halves += self._halve(job)
                else:
                    job.take(self._check(frame, "answer"))
                    self._grow(len(job.rows))

    def _halve(self, job: _Job) -> tuple[_Job, _Job]:
        """Return a job that did not fit into memory as two; later jobs are as small, until one row does not fit."""
        rows = len(job.rows)
        if rows < 2:
            raise InvalidModelError("the model ran out of memory while it was scored, even with one row at once")
        self._batch = min(self._batch, rows // 2)
        self._most = self._batch
        self._refused = f"{2 * self._batch} did not fit into memory"
        return job.part(0, rows // 2), job.part(rows // 2, rows)

    def _grow(self, answered: int) -> None:
        """Double the batch after one of its size was answered, as far as memory allows."""
        if self._memory is None or answered < self._batch or self._batch >= self._most:
            return
        larger = min(2 * self._batch, self._most)
        if self._memory.twice_fits():
            self._batch = larger
        else:
            self._most = self._batch
            self._refused = f"{larger} would not be sure to fit into [limits] memory_mb"

    # -- talking to a process that is not trusted -------------------------------------------------------------------------

    def _send(self, channel: Channel, header: dict, *, fds: tuple[int, ...] = ()) -> None:
        try:
            channel.send(header, fds=fds, timeout_seconds=min(self._request_seconds, self._seconds_left()))
        except ChannelClosedError:
            raise InvalidModelError(_GONE) from None

    def _wait(self, channel: Channel) -> Frame:
        """Wait for one answer."""
        asked = time.monotonic()
        while True:
            self._select([channel], [], asked)
            for frame in self._frames(channel):
                return frame  # a process that answers more than it was asked is not listened to

    def _exchange(self, lines: Sequence[_Line]) -> Iterator[tuple[_Line, Frame]]:
        """Wait until something can be written or read, and do so; yields the answers that are due."""
        writing = [line.channel for line in lines if line.channel.has_unwritten]
        ready, writable = self._select([line.channel for line in lines], writing, min(line.since for line in lines))
        for line in lines:
            if line.channel in writable:
                try:
                    line.channel.flush()
                except ChannelClosedError:
                    raise InvalidModelError(_GONE) from None
            for frame in self._frames(line.channel)[: len(line.jobs)] if line.channel in ready else []:
                yield line, frame

    def _select(self, reading: list[Channel], writing: list[Channel], since: float) -> tuple[list[Channel], list[Channel]]:
        """Wait a while, so that the run can be cancelled meanwhile, for an answer that was asked for at ``since``."""
        left = min(self._seconds_left(), since + self._request_seconds - time.monotonic())
        if left <= 0:
            raise InvalidModelError(
                f"the model took longer than {self._request_seconds:g} s over one batch, the time limit of a single answer "
                "(a fifth of [budget] scoring_seconds)"
            )
        ready, writable, _ = select.select(reading, writing, [], min(_SLICE_SECONDS, left))
        self._on_progress(None)
        return ready, writable

    def _frames(self, channel: Channel) -> list[Frame]:
        try:
            return channel.poll()
        except ChannelClosedError:
            raise InvalidModelError(_GONE) from None
        except ProtocolError:  # its text has numbers that the model chose
            raise InvalidModelError("the model interfered with its scoring: not a frame of the agreed size") from None

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise InvalidModelError("scoring took longer than its time limit ([budget] scoring_seconds)")
        return left

    def _check(self, frame: Frame, expected: str) -> Frame:
        if frame.header["type"] == "error":
            message = str(frame.header.get("message", ""))[-1500:]
            if expected == "answer":  # by now it has seen validation data, and could say it
                message = _kind_of_error(message) + ". What it says is withheld: it could be validation data"
            raise InvalidModelError(f"the model failed while it was scored: {message}")
        if frame.header["type"] != expected:
            raise InvalidModelError("the model interfered with its scoring: an unexpected answer")
        return frame


def _kind_of_error(message: str) -> str:
    """Return the name of the built-in exception that a traceback ends with, which is all that is believed of it."""
    name = message.strip().rpartition("\n")[2].partition(":")[0].strip()
    kind = getattr(builtins, name, None) if name.isascii() else None
    return name if isinstance(kind, type) and issubclass(kind, Exception) else "an exception"


@dataclass(slots=True, kw_only=True)
class _Job:
    """One batch for a scoring process, and where its answer goes."""

    header: dict
    rows: np.ndarray
    places: np.ndarray  # one for each row, for `store`
    columns: int  # of the answer, float32 [rows, columns]
    store: Callable[[np.ndarray, np.ndarray], None]

    @property
    def answer_bytes(self) -> int:
        return 4 * len(self.rows) * self.columns

    def take(self, frame: Frame) -> None:
        if len(frame.payload) != self.answer_bytes:
            raise InvalidModelError(f"scoring returned {len(frame.payload)} bytes where {self.answer_bytes} were due")
        self.store(self.places, np.frombuffer(frame.payload, np.float32).reshape(len(self.rows), self.columns))

    def part(self, begin: int, end: int) -> _Job:
        """Return the job of some of the rows."""
        header = dict(self.header)
        if "cuts" in header:
            header["cuts"] = header["cuts"][begin:end]
        return replace(self, header=header, rows=self.rows[begin:end], places=self.places[begin:end])


@dataclass(slots=True, kw_only=True)
class _Line:
    """One scoring process, and the jobs that it was asked for, the one that it works on first."""

    channel: Channel
    jobs: deque[_Job] = field(default_factory=deque)
    since: float = 0.0  # time.monotonic() from which the answer to the first has been due

    def ask(self, job: _Job, threads: int) -> None:
        """Put one more job into the line."""
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.append(job)
        self.channel.allow_payload_bytes(max(job.answer_bytes for job in self.jobs))
        header = {**job.header, "rows": list(job.rows.shape), "threads": threads}
        self.channel.queue(header, np.ascontiguousarray(job.rows, np.int32).tobytes())

    def answered(self) -> _Job:
        """Return the job whose answer has come."""
        self.since = time.monotonic()
        return self.jobs.popleft()
