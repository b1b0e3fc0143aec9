"""The events of a lab's runs, told from their folders: each in its order, all in one sequence, replayable from the first.

The first look reads every run, the next ones only those that have not ended and those that are new. All that was told stays in
memory (about 700 bytes a run), in a process that asks for events; servers do not. Does not: write anything.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .executor import Event
from .jsonfiles import read_json
from .paths import RunPaths, StatePaths
from .states import Outcome

_SETTLED_SECONDS = 2.0  # a folder that has not changed for so long shows its next change in its time
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ENDED = MappingProxyType({outcome: MappingProxyType({"outcome": outcome}) for outcome in Outcome})  # shared by all runs


@dataclass(slots=True)
class _Told:
    """What has been told of a run that has not ended."""

    read_bytes: int = 0  # of its events.jsonl
    at: float = 0.0  # of the newest event


class RunEvents:
    """One object's sequence of events; ``outcome_of`` says how a run without a result ended, None while it has not."""

    def __init__(self, state: StatePaths, outcome_of: Callable[[RunPaths], Outcome | None]) -> None:
        self._state = state
        self._outcome_of = outcome_of
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._unfinished: dict[str, _Told] = {}
        self._ended: set[str] = set()
        self._listed_at_ns = 0

    def since(self, sequence: int) -> Sequence[Event]:
        """Look at the folders, and return the events from ``sequence`` on."""
        with self._lock:
            fresh = [event for run_id in self._worth_a_look() for event in self._news(run_id)]
            fresh.sort(key=lambda event: event[0])  # a run's own never go back, so they stay in their order
            for at, run_id, kind, data in fresh:
                self._events.append(Event(sequence=len(self._events), run_id=run_id, kind=kind, at=at, data=data))
            return self._events[sequence:]

    def _worth_a_look(self) -> list[str]:
        """Return the runs that have not ended, as far as was told, and those that are new."""
        found = set(self._unfinished)
        changed_at_ns = self._state.runs.stat().st_mtime_ns
        if changed_at_ns != self._listed_at_ns or time.time() - changed_at_ns / 1e9 < _SETTLED_SECONDS:
            self._listed_at_ns = changed_at_ns
            found |= {folder.name for folder in self._state.runs.iterdir()} - self._ended
        return sorted(found)

    def _news(self, run_id: str) -> Iterator[tuple[float, str, Any, Mapping[str, Any]]]:
        """Yield what has not been told of a run, as (at, run_id, kind, data)."""
        paths = self._state.run(run_id)
        if run_id not in self._unfinished:
            if not paths.spec.exists():
                return
            self._unfinished[run_id] = _Told()
            yield self._in_order(run_id, _changed_at(paths.spec)), run_id, "queued", _NOTHING
        result = read_json(paths.result)
        outcome = self._outcome_of(paths) if result is None else Outcome(result["outcome"])
        for entry in self._unread(paths):  # after the look at the end, which nothing follows
            yield self._in_order(run_id, entry["at"]), run_id, sys.intern(entry["kind"]), _NOTHING
        if outcome is not None:
            yield self._in_order(run_id, _changed_at(paths.result)), run_id, "terminal", _ENDED[outcome]
            self._ended.add(run_id)
            del self._unfinished[run_id]

    def _unread(self, paths: RunPaths) -> list[dict[str, Any]]:
        """Return the whole lines that a runner has added since the last look."""
        told = self._unfinished[paths.root.name]
        with suppress(FileNotFoundError), paths.events.open("rb") as file:
            file.seek(told.read_bytes)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            told.read_bytes += len(whole)
            return [json.loads(line) for line in whole.splitlines()]
        return []

    def _in_order(self, run_id: str, at: float) -> float:
        """Return ``at``, or the time of the run's event before: a clock may be set back, a file system's ticks are coarse."""
        told = self._unfinished[run_id]
        told.at = max(told.at, at)
        return told.at


def _changed_at(path: Path) -> float:
    """Return when a file was written; now, where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
