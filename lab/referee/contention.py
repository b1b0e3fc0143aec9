"""Whether a run had its device to itself, from START to the candidate's exit.

Measured: what others used of the run's cores (other programs, other virtual machines), whether the container's CPU quota held
the run back, and on a GPU whether others computed on it and what slowed it down. Guarantees: what cannot be measured is None
and marks nothing; measuring never ends a run. Does not: judge. A contended run's number stands, and `lab.confirmation` says
what it is worth. Does not see shared caches, memory bandwidth or disks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

from ..core_usage import Share, others_share, read_cores
from .gpu_neighbours import GpuNeighbours
from .quota import read_quota

_NAMED = 2  # programs that the sentence names
_LEAST_NAMED = 0.03  # of the run's cores
_SHOWN_PROCESSES = 5
_NAME_CHARACTERS = 20


class ContentionMeter:
    """Make it at START, `sample` it while the candidate lives, `stop` it at the candidate's exit, then ask for `facts`."""

    def __init__(self, *, cores: int, spared: Collection[int] = (), gpu: GpuNeighbours | None = None) -> None:
        """``cores`` are the run's; ``spared`` leads the referee's own processes, whose time is nobody else's."""
        self._cores = cores
        self._spared = tuple(spared)
        self._gpu = gpu
        self._programs = _cpu_by_program()
        self._quota = read_quota()
        self._referee_seconds = self._own_seconds()
        self._before = read_cores()
        self._began = time.monotonic()
        self._seconds = 0.0
        self._share: Share | None = None
        self._busiest = ""
        self._held_back = ""
        self._held_back_share = 0.0

    def sample(self) -> None:
        if self._gpu is not None:
            self._gpu.sample()

    def stop(self, *, cpu_seconds: float) -> None:
        """Take the second reading; ``cpu_seconds`` were used by the candidate's process tree since START."""
        after, self._seconds = read_cores(), time.monotonic() - self._began
        if self._before is not None and after is not None:
            own = cpu_seconds + max(0.0, self._own_seconds() - self._referee_seconds)
            self._share = others_share(self._before, after, own_seconds=own, cores=self._cores)
        self._busiest = self._name_busiest()
        self._compare_quota(cpu_seconds)

    def facts(self, threshold: float | None) -> dict[str, float | str | None]:
        """Return what is known under the names that `RunResult` has for it; without a threshold nothing is marked."""
        share = self._share
        return {
            "others_share": None if share is None else round(share.others, 4),
            "contended": None if threshold is None else "; ".join(self._complaints(threshold)) or None,
        }

    def _complaints(self, threshold: float) -> list[str]:
        """Return a sentence for each way in which the run had to share, beyond the threshold."""
        said, limit = [], f"more than the {threshold:.0%} that count as ordinary here"
        if (share := self._share) is not None and share.others > threshold:
            stolen = f", {share.stolen:.0%} of them other virtual machines" if share.stolen >= _LEAST_NAMED else ""
            said.append(
                f"others used {share.others:.0%} of the run's {_count(self._cores, 'core')}, {limit}{stolen}{self._busiest}"
            )
        if self._held_back and self._held_back_share > threshold:
            said.append(self._held_back)
        gpu = self._gpu
        if gpu is not None and gpu.shared is not None and gpu.shared > threshold:
            pids = sorted(gpu.processes)
            shown = ", ".join(map(str, pids[:_SHOWN_PROCESSES])) + (", …" if len(pids) > _SHOWN_PROCESSES else "")
            word = "process" if len(pids) == 1 else "processes"
            said.append(f"the GPU was shared with the {word} {shown} for {gpu.shared:.0%} of the run, {limit}")
        if gpu is not None and gpu.slow is not None and gpu.slow > threshold:
            why = ", ".join(sorted(gpu.slowdowns))
            said.append(f"the GPU was slowed down ({why}) for {gpu.slow:.0%} of the run, {limit}")
        return said

    def _compare_quota(self, cpu_seconds: float) -> None:
        """A run that used its quota up had what is its own; one that was held back below it shared it with others."""
        after = read_quota()
        if self._quota is None or after is None or self._seconds <= 0:
            return
        throttled = after.throttled_seconds - self._quota.throttled_seconds
        got = cpu_seconds / self._seconds
        allowed = min(after.cores, self._cores)
        self._held_back_share = min(throttled / self._seconds, 1.0, max(0.0, 1.0 - got / allowed))
        self._held_back = (
            f"the container's CPU quota of {_count(after.cores, 'core')} was used up by others: it held the run back for "
            f"{throttled:.0f} s, and the run got {got:.1f} of {_count(allowed, 'core')}"
        )

    def _name_busiest(self) -> str:
        """Return the programs that used most of the run's cores, as a part of the sentence; those that ended are not seen."""
        own = {process.pid for process in _own_processes(self._spared)}
        used: dict[str, float] = {}
        for key, (name, seconds) in _cpu_by_program().items():
            if key[0] not in own:
                before = self._programs.get(key, (name, 0.0))[1]
                used[name] = used.get(name, 0.0) + max(0.0, seconds - before)
        shares = {name: seconds / (self._seconds * self._cores) for name, seconds in used.items() if self._seconds > 0}
        top = sorted(shares.items(), key=lambda item: -item[1])[:_NAMED]
        named = [f"{name} {share:.0%}" for name, share in top if share >= _LEAST_NAMED]
        return f" (busiest: {', '.join(named)})" if named else ""

    def _own_seconds(self) -> float:
        """Return the CPU time of the referee: this process, and what scores beside the candidate."""
        total = 0.0
        for process in _own_processes(self._spared):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


def _own_processes(leaders: Collection[int]) -> list[psutil.Process]:
    """Return this process, and the living ones that ``leaders`` lead."""
    found = [psutil.Process()]
    for pid in leaders:
        with suppress(psutil.Error):
            leader = psutil.Process(pid)
            found += [leader, *leader.children(recursive=True)]
    return found


def _cpu_by_program() -> dict[tuple[int, float], tuple[str, float]]:
    """Return (name, CPU seconds) of every visible process, by its number and start; names are cut to plain characters."""
    found = {}
    for process in psutil.process_iter(["pid", "create_time", "name", "cpu_times"]):
        info = process.info
        if info["cpu_times"] is not None and info["create_time"] is not None:
            name = re.sub(r"[^A-Za-z0-9._+-]", "", info["name"] or "")[:_NAME_CHARACTERS] or "unnamed"
            found[info["pid"], info["create_time"]] = (name, info["cpu_times"].user + info["cpu_times"].system)
    return found


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"
