"""The certified val_bpb of a candidate's model, measured in processes that the referee does not trust.

Bulk: one fresh process sees every row and its targets, and *claims* the nats of every position. Audit: a second fresh
process sees some rows up to a secret cut, followed by a decoy of training text, and returns logits at the cut; the true
next token never enters it, and the referee takes the log-softmax itself. The certified value is the claim plus the weighted
mean of (audit - claim), an unbiased estimate whatever the first process says: for an honest model the correction is
numerically nothing, and a lie cancels itself. Guarantees no number rather than a bad one: anything non-finite, negative,
late or of the wrong size raises `InvalidModelError`.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...prepare.channel import Channel, ChannelClosedError, Frame, ProtocolError
from .windows import Rows

TOLERANCE_BPB = 0.001  # a correction below this is numerical noise, whatever its standard error
_NEGATIVE_NATS = -1e-4  # what float32 rounding may do to a probability of one
_MAX_ROWS = 64
_SLICE_SECONDS = 0.5
_GONE = "the model ended the process that scores it (out of memory, or a crash)"


class InvalidModelError(Exception):
    """The model has no honest number; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The outcome of scoring; bits per byte of the scored text."""

    val_bpb: float
    standard_error: float
    claimed_bpb: float
    audits: int
    scored_bytes: int
    scored_tokens: int
    window_nats: tuple[float, ...]


class Scorer:
    """Scores one model. ``bulk`` and ``audit`` are channels to two fresh, ready scoring workers."""

    def __init__(
        self,
        *,
        bulk: Channel,
        audit: Channel,
        deadline: float,
        on_progress: Callable[[float | None], None],
        logits_bytes: int = 256 << 20,
        side_by_side: bool = True,
    ) -> None:
        self._side_by_side = side_by_side  # whether both processes may work at once; they would share a GPU's memory
        self._logits_bytes = logits_bytes  # of one batch, as float32; bounds the rows that are scored at once
        self._batch = 1
        self._bulk = bulk
        self._audit = audit
        self._deadline = deadline  # time.monotonic()
        self._on_progress = on_progress

    def score(
        self,
        model_fds: tuple[int, int],
        rows: Rows,
        *,
        vocab_size: int,
        batch_rows: int,
        audits: int,
        reference_window_nats: tuple[float, ...],
        decoys: np.ndarray,
        rng: np.random.Generator,
    ) -> Score:
        """Return the certified score.

        ``model_fds`` are two copies of the model, for bulk and audit. ``decoys`` are training tokens (uint16) that follow
        the cuts. Where every row is audited, the audit need not know the claims and may run beside the bulk pass; else
        the bulk process is let go before the audit, so that a GPU never holds the batches of both.
        """
        count, context = len(rows.scored), rows.tokens.shape[1] - 1
        self._batch = max(1, min(batch_rows, _MAX_ROWS, self._logits_bytes // (4 * context * vocab_size)))
        for channel, model_fd in zip((self._bulk, self._audit), model_fds, strict=True):
            self._send(channel, {"type": "load"}, fds=(model_fd,))
        for channel in (self._bulk, self._audit):
            self._check(self._wait(channel), "loaded")
        claims = np.empty((count, context))
        bulk_jobs = self._bulk_jobs(rows, vocab_size, claims, rng)
        reference, no_claims = np.array(reference_window_nats), np.zeros(0)
        if audits >= count and self._side_by_side:
            picks = pick_audits(rows, no_claims, no_claims, count, rng)
            audited = np.empty(len(picks.rows))
            audit_jobs = self._audit_jobs(rows, picks, vocab_size, decoys, audited, rng)
            self._work({self._bulk: bulk_jobs, self._audit: audit_jobs})
            window_nats = check_claims(rows, claims)
        else:
            self._work({self._bulk: bulk_jobs})
            self._bulk.close()
            window_nats = check_claims(rows, claims)
            picks = pick_audits(rows, window_nats, reference, audits, rng)
            audited = np.empty(len(picks.rows))
            self._work({self._audit: self._audit_jobs(rows, picks, vocab_size, decoys, audited, rng)})
        return certify(rows, claims, picks, audited, window_nats)

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

    def _work(self, queues: dict[Channel, Iterator[_Job]]) -> None:
        """Keep every channel busy, one job at a time, until all jobs are answered."""
        current: dict[Channel, _Job] = {}
        halves: dict[Channel, list[_Job]] = {channel: [] for channel in queues}
        for channel, jobs in queues.items():
            self._next(channel, jobs, halves[channel], current)
        while current:
            for channel in self._readable(list(current)):
                for frame in self._frames(channel):
                    job = current.pop(channel)
                    if frame.header["type"] == "out_of_memory":
                        halves[channel] += self._halve(job)
                    else:
                        job.take(self._check(frame, "answer"))
                    self._next(channel, queues[channel], halves[channel], current)

    def _halve(self, job: _Job) -> list[_Job]:
        """Return a job that did not fit into memory as two, once; later jobs are as small."""
        rows = len(job.rows)
        if job.whole is not None or rows < 2:
            raise InvalidModelError(f"the model ran out of memory while it was scored, even with {rows} rows at once")
        self._batch = min(self._batch, rows // 2)
        job.answer = np.zeros(job.shape)
        return [job.part(0, rows // 2), job.part(rows // 2, rows)]

    def _next(self, channel: Channel, jobs: Iterator[_Job], halves: list[_Job], current: dict[Channel, _Job]) -> None:
        """Let a queue take its last answer, and send its next job if it has one."""
        job = halves.pop(0) if halves else next(jobs, None)
        if job is not None:
            channel.allow_payload_bytes(job.answer_bytes)
            header = {**job.header, "rows": list(job.rows.shape)}
            self._send(channel, header, payload=np.ascontiguousarray(job.rows, np.int32).tobytes())
            current[channel] = job

    # -- talking to a process that is not trusted -------------------------------------------------------------------------

    def _send(self, channel: Channel, header: dict, *, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        try:
            channel.send(header, payload, fds=fds, timeout_seconds=self._seconds_left())
        except ChannelClosedError:
            raise InvalidModelError(_GONE) from None

    def _wait(self, channel: Channel) -> Frame:
        while True:
            for ready in self._readable([channel]):
                for frame in self._frames(ready):
                    return frame

    def _readable(self, channels: list[Channel]) -> list[Channel]:
        """Wait for a channel that can be read, in slices, so that the run can be cancelled meanwhile."""
        ready, _, _ = select.select(channels, [], [], min(_SLICE_SECONDS, self._seconds_left()))
        self._on_progress(None)
        return ready

    def _frames(self, channel: Channel) -> list[Frame]:
        try:
            return channel.poll()[:1]  # a process that answers more than it was asked is not listened to
        except ChannelClosedError:
            raise InvalidModelError(_GONE) from None
        except ProtocolError as error:
            raise InvalidModelError(f"the model interfered with its scoring: {error}") from None

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise InvalidModelError("scoring took longer than its time limit ([budget] scoring_seconds)")
        return left

    def _check(self, frame: Frame, expected: str) -> Frame:
        if frame.header["type"] == "error":
            message = str(frame.header.get("message", ""))[-1500:]
            raise InvalidModelError(f"the model failed while it was scored: {message}")
        if frame.header["type"] != expected:
            raise InvalidModelError("the model interfered with its scoring: an unexpected answer")
        return frame


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


def check_claims(rows: Rows, claims: np.ndarray) -> np.ndarray:
    """Blank the padding of ``claims``, refuse what is no loss, and return the nats of each window, float64 [windows]."""
    claims[~rows.mask()] = 0.0
    if not np.isfinite(claims).all():
        raise InvalidModelError("the model's loss is not finite on the validation text (NaN or infinity)")
    if claims.min() < _NEGATIVE_NATS:
        raise InvalidModelError(f"the model claims a probability above one ({claims.min():.3g} nats)")
    return np.bincount(rows.window, weights=claims.sum(1), minlength=int(rows.window.max()) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Which positions are audited: at most one cut for a row."""

    rows: np.ndarray  # int64 [audits]
    cuts: np.ndarray  # int64 [audits]: the target at this position is predicted from the inputs up to it
    weights: np.ndarray  # float64 [audits]: 1 / probability that this position was picked


def pick_audits(rows: Rows, window_nats: np.ndarray, reference: np.ndarray, audits: int, rng: np.random.Generator) -> Picks:
    """Pick rows by systematic sampling with probability proportional to size, then a uniform cut in each.

    Half of the size is the row's share of the scored positions, half its window's share of what this run claims to gain on
    the ``reference`` (the champion's claims): a lie pays where the claim beats the champion, so that is where we look.
    """
    scored = rows.scored.astype(np.float64)
    size = scored / scored.sum()
    if len(reference) == len(window_nats):
        gain = np.clip(reference - window_nats, 0.0, None)
        if gain.sum() > 0:
            window_tokens = np.bincount(rows.window, weights=scored, minlength=len(gain))
            size = 0.5 * size + 0.5 * (gain / gain.sum())[rows.window] * scored / window_tokens[rows.window]
    probability = _inclusion_probabilities(size, min(audits, len(size)))
    order = rng.permutation(len(size))
    ticks = np.cumsum(probability[order])
    hits = np.searchsorted(ticks, np.arange(rng.random(), ticks[-1] - 1e-9, 1.0), side="right")
    chosen = order[np.unique(hits)]
    cuts = rng.integers(0, rows.scored[chosen])
    return Picks(rows=chosen, cuts=cuts, weights=scored[chosen] / probability[chosen])


def _inclusion_probabilities(size: np.ndarray, count: int) -> np.ndarray:
    """Scale ``size`` to probabilities that sum to ``count``, none above one."""
    certain = np.zeros(len(size), dtype=bool)
    while True:
        probability = np.ones(len(size))
        rest = ~certain
        if rest.any():
            probability[rest] = (count - certain.sum()) * size[rest] / size[rest].sum()
        over = rest & (probability > 1.0)
        if not over.any():
            return np.minimum(probability, 1.0)
        certain |= over


def negative_log_softmax(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 logits [n, V], int targets [n] -> nats float64 [n]."""
    highest = logits.max(axis=1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)) - logits[np.arange(len(targets)), targets]


def certify(rows: Rows, claims: np.ndarray, picks: Picks, audited: np.ndarray, window_nats: np.ndarray) -> Score:
    """Combine claims and audits; raises `InvalidModelError` when they contradict each other."""
    bits = math.log(2) * rows.scored_bytes
    terms = picks.weights * (audited - claims[picks.rows, picks.cuts])
    correction = terms.sum() / bits
    count = len(terms)
    standard_error = math.sqrt(count / max(count - 1, 1) * float(((terms - terms.mean()) ** 2).sum())) / bits
    claimed = float(claims.sum()) / bits
    if abs(correction) > max(3 * standard_error, TOLERANCE_BPB):
        raise InvalidModelError(
            f"the model claimed {claimed:.4f} bits per byte, but {count} audits contradict it by {correction:+.4f} "
            "(it looks ahead, is not normalised, keeps state between rows, or answers dishonestly)"
        )
    certified = claimed + correction
    if not (math.isfinite(certified) and math.isfinite(standard_error) and certified >= 0):
        raise InvalidModelError(
            f"the losses are too uneven to be certified ({claimed:.4g} bits per byte claimed, {correction:+.4g} by audits)"
        )
    return Score(
        val_bpb=certified,
        standard_error=standard_error,
        claimed_bpb=claimed,
        audits=count,
        scored_bytes=rows.scored_bytes,
        scored_tokens=rows.scored_tokens,
        window_nats=tuple(round(float(value), 4) for value in window_nats),
    )
