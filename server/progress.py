"""Progress notifications of a call that waits for a verdict: what the run does, the seconds left and its current loss.

Guarantees: one at once, and one a second or when the phase changes, in every phase: some clients give up on a call that is
silent. The number never goes down within a call, also where a run is repeated or a clock is set: it is the seconds since the
experiment was proposed; the total is known while a run trains. A client that asked for none gets none. Does not: decide how
long a call waits.
"""

from __future__ import annotations

import threading
import time

import anyio.from_thread
from mcp.server.mcpserver import Context

from ..lab.errors import NotReadyError
from ..lab.executor import Progress

_INTERVAL_SECONDS = 1.0
_LEAST_STEP = 0.001  # the protocol wants every number above the one before
_LOSS = "loss"


class ProgressReporter:
    """What a waiting tool calls, from its thread, a few times a second."""

    def __init__(self, ctx: Context, stopping: threading.Event) -> None:
        self._ctx = ctx
        self._stopping = stopping
        self._phase = ""
        self._told = 0.0
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell the client; ends the waiting, and nothing else, of a call whose client is gone or whose server ends."""
        anyio.from_thread.check_cancelled()
        if self._stopping.is_set():
            raise NotReadyError("This server is ending; the experiment goes on. Call wait_experiment again once it is back.")
        now = time.monotonic()
        if now < self._next and progress.phase == self._phase:
            return
        self._phase, self._next = progress.phase, now + _INTERVAL_SECONDS
        self._told = max(self._told + _LEAST_STEP, progress.age_seconds)
        left = progress.seconds_left
        total = None if left is None else self._told + max(0.0, left)
        anyio.from_thread.run(self._ctx.report_progress, self._told, total, message_of(progress))


def message_of(progress: Progress) -> str:
    """Return one line for people."""
    parts: list[str] = [progress.phase]
    parts.append(
        f"{progress.age_seconds:.0f} s since it was proposed"
        if progress.seconds_left is None
        else f"{progress.seconds_left:.0f} s left"
    )
    metrics = progress.metrics or {}
    if _LOSS in metrics:
        parts.append(f"loss {metrics[_LOSS]:.4g}")
    return ", ".join(parts) + (f" ({progress.note})" if progress.note else "")
