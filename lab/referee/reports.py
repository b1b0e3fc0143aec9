"""What a run tells while it lasts: its phase and seconds left, the live curve, and the events an executor replays.

The candidate's numbers are shown, never scored; they are cleaned here, because names and values come from untrusted code.
Nothing here ends a run: what the disk does not take is dropped, counted, and said with the result.
"""

from __future__ import annotations

import re
import time
from typing import Literal

from ..disk import is_about_disk
from ..jsonfiles import JsonLines, write_json
from ..paths import RunPaths

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_OURS = ("step", "seconds")  # what a point says besides the metrics
_LARGEST = 2**53  # also leaves NaN and infinity out, which compare as false
_MAX_METRICS = 16
_MAX_POINTS = 20_000
_PROGRESS_INTERVAL_SECONDS = 0.25

Phase = Literal["starting", "training", "scoring"]


class Reports:
    """The only writer of events.jsonl, curve.jsonl and progress.json of one run."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._curve = JsonLines(paths.curve)
        self._events = JsonLines(paths.events)
        self._points = 0
        self._metrics: dict[str, float] = {}
        self._next_progress = 0.0
        self.last_step: int | None = None

    def phase(self, phase: Phase) -> None:
        """Record that the run entered a phase."""
        kind = "started" if phase == "starting" else phase
        self._events.append({"kind": kind, "at": round(time.time(), 3)})
        self._next_progress = 0.0
        self.progress(phase, 0.0, None)

    def point(self, header: dict, elapsed_seconds: float) -> None:
        """Take one report of the candidate; what is not a name and a finite number is left out.

        What is reported before the data is opened, such as the seconds of compilation, stands in the curve at second 0.
        """
        step, metrics = header.get("step"), header.get("metrics")
        if type(step) is not int or not 0 <= step < _LARGEST or not isinstance(metrics, dict):
            return
        if self._points >= _MAX_POINTS:
            return
        self._metrics = {
            name: float(value)
            for name, value in list(metrics.items())[:_MAX_METRICS]
            if _NAME.fullmatch(name) and name not in _OURS and type(value) in (int, float) and abs(value) < _LARGEST
        }
        self.last_step = step
        self._points += 1
        self._curve.append({"step": step, "seconds": round(elapsed_seconds, 3), **self._metrics})

    def progress(self, phase: Phase, elapsed_seconds: float, seconds_left: float | None) -> None:
        """Publish where the run stands, a few times a second."""
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + _PROGRESS_INTERVAL_SECONDS
        standing = {
            "phase": phase,
            "elapsed_seconds": round(elapsed_seconds, 2),
            "seconds_left": None if seconds_left is None else round(seconds_left, 2),
            "step": self.last_step,
            "metrics": self._metrics,
        }
        try:
            write_json(self._paths.progress, standing)
        except OSError as error:
            if not is_about_disk(error):
                raise

    @property
    def notes(self) -> list[str]:
        """What is missing of the curve and the events, if anything is."""
        dropped = self._curve.dropped + self._events.dropped
        return [f"the disk was full: {dropped} points of the curve and events are missing"] if dropped else []

    def close(self) -> None:
        """Close the curve; the phase that follows still writes progress and events."""
        self._curve.close()

    def end(self) -> None:
        """Close everything: the run has no further phase."""
        self._curve.close()
        self._events.close()
