"""The table of docs/RECOVERY.md from the outcomes that the tests wrote down.

    python -m tests.kills.table CELLS FILE

Replaces what stands between the two markers in FILE; `make kill-matrix` runs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .points import POINTS

BEGIN, END = "<!-- kill-matrix: begin -->", "<!-- kill-matrix: end -->"


def lines(cells: dict[str, dict[str, str]]) -> list[str]:
    """Return the table; a point that was not gone through says so."""
    rows = [
        "| point | what dies | killed with | recorded by then | recorded afterwards | attempts |",
        "|---|---|---|---|---|---|",
    ]
    for point in POINTS:
        cell = cells.get(point.label, {"found": "not run", "then": "", "attempts": ""})
        runner = {"quick": "runner", "real": "runner (real)"}.get(point.scenario, "server")
        both = "server and runner" if point.scenario == "wait-for-the-dead" else runner
        rows.append(f"| `{point.label}` | {both} | {point.says} | {cell['found']} | {cell['then']} | {cell['attempts']} |")
    return rows


def main() -> None:
    """Write the table into the file."""
    cells = {cell["label"]: cell for cell in json.loads(Path(sys.argv[1]).read_text())}
    path = Path(sys.argv[2])
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text("\n".join([before + BEGIN, "", *lines(cells), "", END]) + after)


if __name__ == "__main__":
    main()
