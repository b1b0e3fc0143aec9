"""How long a client waits from starting the server to its list of tools, in both eras.

    .venv/bin/python -m tests.server.cold_start [RUNS]

Each run is a new process, as a client starts it, in a lab that nothing has opened yet. The files are in the page cache after
the first run; that one is printed by itself, and is as cold as the machine happened to be: nothing here can empty the cache.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from autoresearch_mcp.lab.machine import command_path
from autoresearch_mcp.lab.scaffold import create_lab
from autoresearch_mcp.server.handshake import Era, Launch, shake_hands

_DEADLINE_SECONDS = 60.0


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        lab = Path(place) / "lab"
        create_lab(lab)
        settings = {"AUTORESEARCH_STATE": f"{place}/state"}
        launch = Launch(command=(command_path(), "serve", "--lab", str(lab)), folder=lab, environment=settings)

        def seconds(era: Era) -> float:
            return shake_hands(launch, era, ask_status=False, deadline_seconds=_DEADLINE_SECONDS).seconds

        print(f"first start: {seconds(Era.LEGACY):.2f} s to tools/list")
        for era in Era:
            measured = sorted(seconds(era) for _ in range(runs))
            p50, spread = statistics.median(measured), f"{measured[0]:.2f} to {measured[-1]:.2f} s"
            print(f"{runs} starts, revision {era.value}: p50 {p50:.2f} s ({spread})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
