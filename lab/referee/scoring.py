"""The scoring phase: the handed-over model is certified on the windows of a held-out split by the scoring processes.

Guarantees: the model's file is copied and passed on, never looked into; what is scored does not depend on the candidate but for
its vocabulary. Does not: decide what the certified number is worth (`scorer` and `audits` do).
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...prepare.corpus import Corpus
from ..executor import RunSpec
from ..paths import RunPaths
from ..states import Outcome
from .ending import RunEndedError, require_room, tree_of
from .reference import load_reference, save_claims
from .reports import Reports
from .room import when_there_is_room
from .scored_rows import ScoredRows
from .scorer import AuditPlan, InvalidModelError, Score, Scorer
from .scoring_memory import ScoringMemory
from .scoring_meter import cpu_warning
from .windows import NoWindowsError, Rows
from .workers import NAMES, ScoringWorkers

_CPU_LOGITS_BYTES = 16 << 20  # of one batch; beyond, caches and the allocator's reuse of memory do not help any more
_CHECK_SECONDS = 1.0


class Scoring:
    """Scores one model.

    Attributes:
        claimed_bpb: what the model claimed, where that is known, also when it was contradicted.
        seconds: how long scoring took; None before it ended.
        notes: what the result's reason adds to the score.
    """

    def __init__(self, spec: RunSpec, paths: RunPaths, *, corpus: Corpus, workers: ScoringWorkers, reports: Reports) -> None:
        self._spec = spec
        self._paths = paths
        self._corpus = corpus
        self._workers = workers
        self._reports = reports
        self._next_check = 0.0
        self._scored: ScoredRows | None = None
        self.claimed_bpb: float | None = None
        self.seconds: float | None = None
        self.notes: list[str] = []

    def prepare(self, vocab_size: int, *, seconds: float) -> bool:
        """Make the rows of a vocabulary ready, as much of them as takes about ``seconds``; True when there is no more to do.

        They depend on nothing of the model, so this may be done, bit by bit, before there is one. What is not done by then, or
        was done for another vocabulary, `score` does. Raises `RunEndedError` where nothing can be scored.
        """
        if self._scored is None or self._scored.vocab_size != vocab_size:
            self._scored = ScoredRows(self._spec, self._corpus, vocab_size)
        try:
            return self._scored.advance(seconds)
        except NoWindowsError as error:
            raise RunEndedError(Outcome.LOST, str(error)) from None

    def score(self, handoff: dict) -> Score:
        """Return the certified score of the handed-over model; raises `RunEndedError` where it has none."""
        self._reports.phase("scoring")
        model_fds = self._open_model_twice()
        began = time.monotonic()
        spec, workers, vocab_size = self._spec, self._workers, handoff["vocab_size"]
        while not self.prepare(vocab_size, seconds=_CHECK_SECONDS):
            self._on_scoring_progress(None)
        assert self._scored is not None
        rows, token_bytes = self._scored.finish(), self._scored.tokenizer.token_bytes
        scorer = Scorer(
            bulk=workers.channels("bulk"),
            audit=workers.channels("audit"),
            time_limit_seconds=spec.scoring_seconds - (time.monotonic() - began),
            on_progress=self._on_scoring_progress,
            on_bulk_done=workers.end_bulk,
            cores=spec.cores,
            **({"logits_bytes": _CPU_LOGITS_BYTES, "memory_of": self._memory_of} if spec.device == "cpu" else {}),
        )
        plan = AuditPlan(
            audits=spec.audits,
            audits_before_keep=spec.audits_before_keep,
            keepable_below_bpb=spec.keepable_below_bpb,
            champion=self._champion(rows, token_bytes),
            champion_windows=spec.reference_window_nats,
        )
        try:
            score = scorer.score(
                model_fds,
                rows,
                vocab_size=vocab_size,
                batch_rows=handoff["batch_size"],
                plan=plan,
                decoys=self._scored.decoys,
                rng=self._scored.rng,
            )
        except InvalidModelError as error:
            self.claimed_bpb = error.claimed_bpb
            raise RunEndedError(Outcome.INVALID, str(error)) from None
        finally:
            for model_fd in (fd for fds in model_fds for fd in fds):
                os.close(model_fd)
            workers.sample_cpu()
            self.seconds = round(time.monotonic() - began, 3)
        self.claimed_bpb = score.claimed_bpb
        if spec.split == "val":  # where its children are scored
            with suppress(OSError):  # a full disk; then the audits of its children look at windows
                save_claims(self._paths.claims, rows, score.claims, token_bytes)
        self.notes += scorer.notes
        self._note_cpu_time(score, len(rows.scored))
        return score

    def _memory_of(self, name: str) -> ScoringMemory | None:
        """Return what measures the memory of a pass; None where its processes were not found."""
        pids = self._workers.pids_of(name)
        if len(pids) < len(self._workers.channels(name)):
            return None
        tree = tree_of(self._spec, None, set(), self._workers.mark)
        return ScoringMemory(limit_bytes=self._spec.memory_mb << 20, total_bytes=tree.proportional_memory_bytes, pids=pids)

    def _champion(self, rows: Rows, token_bytes: np.ndarray) -> np.ndarray | None:
        """Return the champion's nats at each position of ``rows``, where it left them."""
        path = self._spec.reference_claims
        reference = None if path is None else load_reference(Path(path), rows.scored_bytes)
        return None if reference is None else reference.at(rows, token_bytes)

    def _note_cpu_time(self, score: Score, rows: int) -> None:
        bulk, audit = (self._workers.cpu_seconds(name) for name in NAMES)
        if bulk is not None and audit is not None:
            warning = cpu_warning(bulk_cpu_seconds=bulk, audit_cpu_seconds=audit, rows=rows, audits=score.audits)
            self.notes += [warning] if warning else []

    def _on_scoring_progress(self, share: float | None) -> None:
        if self._paths.cancel.exists():
            raise RunEndedError(Outcome.CANCELLED, "cancelled by cancel_experiment")
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + _CHECK_SECONDS
            tree = tree_of(self._spec, None, set(), self._workers.mark)
            _, memory_bytes, processes = tree.sample()
            require_room(self._spec, tree, memory_bytes, processes, self._paths.scoring)
            self._workers.sample_cpu()
        if share is not None:
            self._reports.progress("scoring", share, None)

    def _open_model_twice(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return two private copies of the handed-over model, a descriptor for each process of a pass."""
        model_fd = self._open_model()
        try:
            first, second = (
                when_there_is_room(self._paths, lambda: self._workers.copy_model(model_fd)) for _ in range(2)
            )  # the training is done: a full disk must not waste it
            return first, second
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
