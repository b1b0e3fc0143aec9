"""Runs every attack on every rung, as this user and, where that is root, once more as an ordinary user; writes the table.

    everywhere.py [--table FILE] [--uid 65534] [--python PATH] [PYTEST ARGUMENT ...]

The ordinary user may need another Python than root's, which often lies in a home folder that others cannot enter. It gets a
home, a state folder and caches of its own below a temporary folder. What could not be run is said, and is "not run" in the
table; a promise that did not hold makes the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from table import write_table

ROOT = Path(__file__).resolve().parents[2]
ORDINARY = "ordinary user"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--uid", type=int, default=65534)
    parser.add_argument("--python", default=sys.executable, help="the ordinary user's, with the same packages")
    known, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="autoresearch-attacks-") as name:
        folder = Path(name)
        own = "root" if os.geteuid() == 0 else ORDINARY
        cells = {own: folder / "own.json"}
        statuses = {own: run([sys.executable], dict(os.environ), cells[own], more)}
        if own != ORDINARY:
            cells[ORDINARY] = folder / "home" / "cells.json"
            statuses[ORDINARY] = run_as(known.uid, known.python, cells[ORDINARY], more)
        if known.table is not None:
            write_table(known.table, {user: path for user, path in cells.items() if path.exists()})
    for user, status in statuses.items():
        said = {0: "every promise held", None: "not run"}.get(status, f"failed (pytest {status})")
        print(f"{user}: {said}")
    return int(any(status not in (0, None) for status in statuses.values()))


def run(python: list[str], environment: dict[str, str], cells: Path, more: list[str]) -> int:
    """Run the attacks with the command of a Python; return pytest's exit status."""
    command = [*python, "-m", "pytest", "-q", "tests/attacks", "--rungs=all", f"--attack-cells={cells}"]
    parallel = [] if any(argument.startswith("-n") for argument in more) else ["-n", "2"]
    return subprocess.run([*command, *parallel, *more], cwd=ROOT, env=environment, check=False).returncode


def run_as(uid: int, python: str, cells: Path, more: list[str]) -> int | None:
    """Run the attacks as another user; None, having said why, where that cannot be done."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        print("Not run as an ordinary user: setpriv (of util-linux) is not installed.")
        return None
    home = cells.parent
    home.mkdir()
    for path, owner in ((home.parent, 0), (home, uid)):
        os.chown(path, owner, owner)
        path.chmod(0o755)
    prefix = [setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    # It starts itself once more, as the tests will: the first start still has root's way through closed folders.
    again = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import pytest, autoresearch_mcp.lab.lab'], check=True)"
    )
    trial = [*prefix, python, "-c", again]
    tried = subprocess.run(trial, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(
            f"Not run as an ordinary user: user {uid} cannot use {python} and {ROOT} ({reason}). Let others read and enter "
            "these folders, or name a Python that they can use, with the same packages: --python PATH"
        )
        return None
    return run([*prefix, python], environment, cells, ["-p", "no:cacheprovider", *more])


if __name__ == "__main__":
    raise SystemExit(main())
