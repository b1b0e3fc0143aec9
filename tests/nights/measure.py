"""What the tools need over records of growing length: wall and CPU time, and the size of their answers, as a table.

python -m tests.nights.measure [--counts 100 1000 10000] [--sessions 1] [--times 20]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.report import report
from autoresearch_mcp.tools.results import Answer
from autoresearch_mcp.tools.show_experiment import show_experiment
from autoresearch_mcp.tools.status import status
from autoresearch_mcp.tools.wait_experiment import wait_experiment

from .soak import make_lab
from .synthetic import fill

CALLS: dict[str, Callable[[Lab, str], Answer]] = {
    "status": lambda lab, _: status(lab),
    "history": lambda lab, _: history(lab),
    "history, all sessions": lambda lab, _: history(lab, session="all"),
    "history, the best": lambda lab, _: history(lab, session="all", sort="best"),
    "history, a search": lambda lab, _: history(lab, session="all", text="decay heads"),
    "read_program": lambda lab, _: read_program(lab),
    "wait_experiment": wait_experiment,
    "show_experiment": show_experiment,
    "report": lambda lab, _: report(lab),
}


def measure(lab: Lab, times: int) -> list[str]:
    """Return a row for each call: the median and the 95th percentile, CPU time with that of git, and bytes."""
    (newest,) = lab.ledger.experiments(order="rowid DESC", limit=1)
    rows = []
    for name, call in CALLS.items():
        answer, took = call(lab, newest.id), list[float]()
        repeats, before = max(3, times // 10) if name == "report" else times, os.times()
        for _ in range(repeats):
            began = time.perf_counter()
            call(lab, newest.id)
            took.append(1000 * (time.perf_counter() - began))
        cpu_ms = 1000 * sum(b - a for a, b in zip(before[:4], os.times()[:4], strict=True)) / repeats
        sizes = f"{len(answer.text().encode())} | {len(answer.model_dump_json().encode())}"
        late = sorted(took)[min(len(took) - 1, int(0.95 * len(took)))]
        rows.append(f"{name} | {statistics.median(took):.1f} | {late:.1f} | {cpu_ms:.1f} | {sizes}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--times", type=int, default=20)
    known = parser.parse_args()
    head = ("experiments", "call", "p50 ms", "p95 ms", "CPU ms", "bytes of text", "of JSON")
    print(*(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head))), sep="\n")
    for count in known.counts:
        with tempfile.TemporaryDirectory(prefix="autoresearch-measure-") as name:
            root = Path(name)
            os.environ |= {"AUTORESEARCH_STATE": str(root / "state"), "AUTORESEARCH_CACHE": str(root / "cache")}
            folder, _ = make_lab(root / "lab")
            with closing(Lab.open(folder)) as lab:
                lab.start_session(None)
                fill(lab, count, sessions=known.sessions)
                print(*(f"| {count} | {row} |" for row in measure(lab, known.times)), sep="\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
