"""The certified val_bpb of a candidate's model, measured in processes that the referee does not trust.

Bulk: one fresh process sees every row and its targets, and *claims* the nats of every position. Audit: a second fresh
process sees some rows up to a secret cut, followed by a decoy of training text, and returns logits at the cut; the true
next token never enters it, and the referee takes the log-softmax itself. `audits` says what both come to: an unbiased estimate
whatever the first process says; for an honest model the correction is numerically nothing, and a lie cancels itself.

Guarantees no number rather than a bad one: anything non-finite, negative, late or of the wrong size raises
`InvalidModelError`. The bulk process is let go before the audit begins, so that nothing passes between the two but the choice
of the cuts, and a GPU never holds the batches of both.
"""

from __future__ import annotations

import builtins
import math
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
from .windows import Rows

_MAX_ROWS = 64
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
    """Scores one model. ``bulk`` and ``audit`` are channels to two fresh, ready scoring workers."""

    def __init__(
        self,
        *,
        bulk: Channel,
        audit: Channel,
        time_limit_seconds: float,
        on_progress: Callable[[float | None], None],
        on_bulk_done: Callable[[], None] = lambda: None,
        logits_bytes: int = 256 << 20,
    ) -> None:
        self._logits_bytes = logits_bytes  # of one batch, as float32; bounds the rows that are scored at once
        self._batch = 1
        self._bulk = bulk
        self._audit = audit
        self._deadline = time.monotonic() + time_limit_seconds
        self._request_seconds = max(_SHORTEST_REQUEST_SECONDS, _REQUEST_SHARE * time_limit_seconds)
        self._on_progress = on_progress
        self._on_bulk_done = on_bulk_done  # the place to end the bulk process, whether it wants to or not

    def score(
        self,
        model_fds: tuple[int, int],
        rows: Rows,
        *,
        vocab_size: int,
        batch_rows: int,
        plan: AuditPlan,
        decoys: np.ndarray,
        rng: np.random.Generator,
    ) -> Score:
        """Return the certified score.

        ``model_fds`` are two copies of the model, for bulk and audit. ``decoys`` are training tokens (uint16) that follow
        the cuts.
        """
        count, context = len(rows.scored), rows.tokens.shape[1] - 1
        self._batch = max(1, min(batch_rows, _MAX_ROWS, self._logits_bytes // (4 * context * vocab_size)))
        bulk_fd, audit_fd = model_fds
        self._load(self._bulk, bulk_fd, context, vocab_size)
        claims = np.empty((count, context))
        self._work(self._bulk, self._bulk_jobs(rows, vocab_size, claims, rng))
        self._bulk.close()
        self._on_bulk_done()
        check_claims(rows, claims)
        wanted = plan.wanted(bits_per_byte(float(claims.sum()), rows))
        gains = claimed_gains(rows, claims, champion=plan.champion, champion_windows=plan.champion_windows)
        picks = pick_audits(rows, gains, wanted, rng)
        # Only now: a model that was loaded before could listen, in a thread, to what the bulk process does to the machine.
        self._load(self._audit, audit_fd, context, vocab_size)
        audited = np.empty(len(picks.rows))
        self._work(self._audit, self._audit_jobs(rows, picks, vocab_size, decoys, audited, rng))
        return certify(rows, claims, picks, audited)

    def _load(self, channel: Channel, model_fd: int, context: int, vocab_size: int) -> None:
        """Have the model loaded and tried on random tokens: what fails now can be told in the model's own words."""
        self._send(channel, {"type": "load", "context": context, "vocab_size": vocab_size}, fds=(model_fd,))
        self._check(self._wait(channel), "loaded")

    def _bulk_jobs(self, rows: Rows, vocab_size: int, claims: np.ndarray, rng: np.random.Generator) -> Iterator[_Job]:
        """Every row once, in a secret order; fills ``claims``, nats float64 [rows, T]."""
        count, context = claims.shape
        order, start = rng.permutation(count), 0
        while start < count:
            chosen = order[start : start + self._batch]
            header = {"type": "bulk", "vocab_size": vocab_size}
            job = _Job(header=header, rows=rows.tokens[chosen], shape=(len(chosen), context))
            yield job
            claims[chosen] = job.answer
            start += len(chosen)
            self._on_progress(start / count)

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
        context = rows.tokens.shape[1] - 1
        start = 0
        while start < len(audited):
            chosen, cuts = picks.rows[start : start + self._batch], picks.cuts[start : start + self._batch]
            inputs = rows.tokens[chosen, :-1].copy()
            for row, cut in zip(inputs, cuts.tolist(), strict=True):
                offset = int(rng.integers(0, len(decoys) - context))
                row[cut + 1 :] = decoys[offset : offset + context - cut - 1]
            header = {"type": "audit", "vocab_size": vocab_size, "cuts": cuts.tolist()}
            job = _Job(header=header, rows=inputs, shape=(len(chosen), vocab_size))
            yield job
            if not np.isfinite(job.answer).all():
                raise InvalidModelError("the model's logits are not finite (NaN or infinity)")
            targets = rows.tokens[chosen, cuts + 1]
            audited[start : start + len(chosen)] = negative_log_softmax(job.answer, targets)
            start += len(chosen)

    def _work(self, channel: Channel, jobs: Iterator[_Job]) -> None:
        """Send one job after the other and take the answers, until all are answered."""
        halves: list[_Job] = []
        while (job := halves.pop(0) if halves else next(jobs, None)) is not None:
            channel.allow_payload_bytes(job.answer_bytes)
            header = {**job.header, "rows": list(job.rows.shape)}
            self._send(channel, header, payload=np.ascontiguousarray(job.rows, np.int32).tobytes())
            frame = self._wait(channel)
            if frame.header["type"] == "out_of_memory":
                halves += self._halve(job)
            else:
                job.take(self._check(frame, "answer"))

    def _halve(self, job: _Job) -> list[_Job]:
        """Return a job that did not fit into memory as two, once; later jobs are as small."""
        rows = len(job.rows)
        if job.whole is not None or rows < 2:
            raise InvalidModelError(f"the model ran out of memory while it was scored, even with {rows} rows at once")
        self._batch = min(self._batch, rows // 2)
        job.answer = np.zeros(job.shape)
        return [job.part(0, rows // 2), job.part(rows // 2, rows)]

    # -- talking to a process that is not trusted -------------------------------------------------------------------------

    def _send(self, channel: Channel, header: dict, *, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        try:
            channel.send(header, payload, fds=fds, timeout_seconds=min(self._request_seconds, self._seconds_left()))
        except ChannelClosedError:
            raise InvalidModelError(_GONE) from None

    def _wait(self, channel: Channel) -> Frame:
        """Wait for one answer, in slices, so that the run can be cancelled meanwhile."""
        asked = time.monotonic()
        while True:
            left = min(self._seconds_left(), self._request_seconds - (time.monotonic() - asked))
            if left <= 0:
                raise InvalidModelError(
                    f"the model took longer than {self._request_seconds:g} s over one batch, the time limit of a single answer "
                    "(a fifth of [budget] scoring_seconds)"
                )
            ready, _, _ = select.select([channel], [], [], min(_SLICE_SECONDS, left))
            self._on_progress(None)
            for frame in self._frames(channel) if ready else []:
                return frame

    def _frames(self, channel: Channel) -> list[Frame]:
        try:
            return channel.poll()[:1]  # a process that answers more than it was asked is not listened to
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
    """One batch for a scoring process, and its answer."""

    header: dict
    rows: np.ndarray
    shape: tuple[int, int]
    answer: np.ndarray = field(default_factory=lambda: np.zeros(0))  # float64 of exactly ``shape``, once taken
    whole: _Job | None = None  # the job of which this is a part, from the row ``begin`` on
    begin: int = 0

    @property
    def answer_bytes(self) -> int:
        return 4 * math.prod(self.shape)

    def take(self, frame: Frame) -> None:
        if len(frame.payload) != self.answer_bytes:
            raise InvalidModelError(f"scoring returned {len(frame.payload)} bytes where {self.answer_bytes} were due")
        self.answer = np.frombuffer(frame.payload, np.float32).reshape(self.shape).astype(np.float64)
        if self.whole is not None:
            self.whole.answer[self.begin : self.begin + len(self.rows)] = self.answer

    def part(self, begin: int, end: int) -> _Job:
        """Return the job of some of the rows; its answer goes into this one's."""
        header = dict(self.header)
        if "cuts" in header:
            header["cuts"] = header["cuts"][begin:end]
        shape = (end - begin, self.shape[1])
        return _Job(header=header, rows=self.rows[begin:end], shape=shape, whole=self, begin=begin)
