"""How much of a run's memory limit is left for larger batches, measured from outside of the scoring processes.

The limit counts all of them together, and the watchdog ends a run that passes it; an honest model must not get there by the
referee's own choice of a batch. So where the model is large one process loads it before the next one does, and batches begin
with one row and double while it fits: twice the rows need at most twice what one batch took above the loaded model. Linux only:
elsewhere nothing is known, and everything is said to fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

_USABLE_SHARE = 0.9  # of the limit; the watchdog looks once a second, and what it sees is not all alike
_LOADING_PER_BYTE = 4  # memory per byte of the model's file: its text, its tensors, and the largest of them twice
_FIRST_FORWARD_BYTES = 256 << 20  # what the libraries of one process take for it, with room
_FIELDS = re.compile(rb"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


class ScoringMemory:
    """What fits into ``limit_bytes`` during one pass over the rows, by the processes ``pids``, which have no model yet.

    ``total_bytes`` measures what the whole run has in memory, shared pages counted once.
    """

    def __init__(self, *, limit_bytes: int, total_bytes: Callable[[], int], pids: Sequence[int]) -> None:
        self._usable_bytes = int(_USABLE_SHARE * limit_bytes)
        self._pids = pids
        self._empty_total = total_bytes()  # slow: tens of milliseconds
        self._empty = [_resident(pid) for pid in pids]
        self._loaded: list[int] = []  # resident bytes of each process that has the model

    def all_fit(self, model_bytes: int) -> bool:
        """Say whether all processes can load a model at once that has so many bytes as a file, by a generous guess."""
        each = _LOADING_PER_BYTE * model_bytes + _FIRST_FORWARD_BYTES
        return self._empty_total + len(self._pids) * each <= self._usable_bytes

    def loaded(self) -> None:
        """The next process has loaded the model, and run it on one row."""
        self._loaded.append(_resident(self._pids[len(self._loaded)]))

    def another_fits(self) -> bool:
        """Say whether one more process can load the model beside those that have."""
        took = max(_peak(pid) - empty for pid, empty, _ in zip(self._pids, self._empty, self._loaded, strict=False))
        return self._total() + took <= self._usable_bytes

    def twice_fits(self) -> bool:
        """Say whether batches of twice the rows fit, once one as large as now has been answered."""
        above = max(_peak(pid) - loaded for pid, loaded in zip(self._pids, self._loaded, strict=False))
        return self._total() + 2 * len(self._loaded) * above <= self._usable_bytes

    def _total(self) -> int:
        """Return what the run had in memory, apart from batches, when the last process had loaded the model."""
        return self._empty_total + sum(loaded - empty for loaded, empty in zip(self._loaded, self._empty, strict=False))


def _resident(pid: int) -> int:
    return _status(pid).get(b"RSS", 0)


def _peak(pid: int) -> int:
    return _status(pid).get(b"HWM", 0)


def _status(pid: int) -> dict[bytes, int]:
    """Return what the kernel says of a process's memory in bytes: RSS now, and HWM, the most there ever was."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return {}
    return {name: int(size) << 10 for name, size in _FIELDS.findall(text)}
