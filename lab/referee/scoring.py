"""The scoring phase: the handed-over model is certified on the validation windows by the two scoring processes.

Guarantees: the model's file is copied and passed on, never looked into; what is scored does not depend on the candidate but for
its vocabulary. Does not: decide what the certified number is worth (`scorer` and `audits` do).
"""

from __future__ import annotations

import os
import secrets
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
from .scorer import AuditPlan, InvalidModelError, Score, Scorer
from .scoring_meter import cpu_warning
from .windows import NoWindowsError, Rows, draw_windows, encode_rows
from .workers import NAMES, ScoringWorkers

_LOGITS_BYTES, _GPU_LOGITS_BYTES = 256 << 20, 1 << 30  # of one scoring batch; several copies of it live at once
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
        self.claimed_bpb: float | None = None
        self.seconds: float | None = None
        self.notes: list[str] = []

    def score(self, handoff: dict) -> Score:
        """Return the certified score of the handed-over model; raises `RunEndedError` where it has none."""
        self._reports.phase("scoring")
        model_fds = self._open_model_twice()
        began = time.monotonic()
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
            self.claimed_bpb = error.claimed_bpb
            raise RunEndedError(Outcome.INVALID, str(error)) from None
        finally:
            for model_fd in model_fds:
                os.close(model_fd)
            self.seconds = round(time.monotonic() - began, 3)
        self.claimed_bpb = score.claimed_bpb
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

    def _open_model_twice(self) -> tuple[int, int]:
        """Return two private copies of the handed-over model."""
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
