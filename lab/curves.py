"""What train.py reported while it trained: the lines of a run's curve.jsonl, as the referee wrote them.

Guarantees: a bounded amount is read, the oldest first; a line that is still being written is left out, and so is one that is no
report; a file that is gone or unreadable reads as empty. Does not: certify a number, or leave out those that are not finite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

_MOST_BYTES = 1 << 23  # the file lies where an agent can write


def lines_of(path: Path, *, most_bytes: int = _MOST_BYTES) -> list[bytes]:
    """Return the whole lines among the first ``most_bytes`` of a curve."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes).rpartition(b"\n")[0].splitlines()
    except OSError:
        return []


def reports_of(path: Path, *, most_bytes: int = _MOST_BYTES) -> list[dict[str, Any]]:
    """Return the reports among the first ``most_bytes`` of a curve: "step", "seconds" on the run's clock, and the metrics."""
    reports = list[dict[str, Any]]()
    for line in lines_of(path, most_bytes=most_bytes):
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(report, dict):
            reports.append(cast("dict[str, Any]", report))
    return reports
