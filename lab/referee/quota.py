"""The CPU quota of the container that this process runs in, and for how long it was held back by it.

Read from the process's own control group, version 2 or 1. Guarantees: no quota, no control group, or files that say something
else is None, never an error. Does not: see the quotas of groups further out that a container hides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_V1_FOLDERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReading:
    """One moment: ``throttled_seconds`` were spent waiting for the quota of ``cores`` so far, summed over the cores."""

    cores: float
    throttled_seconds: float


def read_quota(*, groups: Path = _SELF, mount: Path = _MOUNT) -> QuotaReading | None:
    """Return the quota in force; None: there is none, or it cannot be read."""
    for folder in _folders(groups, mount):
        cores, throttled = _cores(folder), _throttled_seconds(folder)
        if cores is not None and throttled is not None:
            return QuotaReading(cores=cores, throttled_seconds=throttled)
    return None


def _folders(groups: Path, mount: Path) -> list[Path]:
    """Return where the group's files may lie: below its own path, or at the top where a container sees no more."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        tops = [mount / name for name in _V1_FOLDERS] if "cpu" in controllers.split(",") else [] if controllers else [mount]
        for top in tops:
            found += [top / path.lstrip("/"), top]
    return found


def _cores(folder: Path) -> float | None:
    """Return the quota in cores."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return cores if cores > 0 else None


def _throttled_seconds(folder: Path) -> float | None:
    try:
        stat = dict(line.split(maxsplit=1) for line in (folder / "cpu.stat").read_text().splitlines())
        return int(stat["throttled_usec"]) / 1e6 if "throttled_usec" in stat else int(stat["throttled_time"]) / 1e9
    except (OSError, ValueError, KeyError):
        return None
