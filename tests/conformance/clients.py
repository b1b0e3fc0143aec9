"""The official clients of MCP, as `make clients` installs them beside this file, and the Node.js that runs them.

Where they are missing, a test that needs them is skipped with the command that installs them; where the environment variable
AUTORESEARCH_CLIENTS is "required", as in CI, it fails instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).resolve().parent
MODULES = FOLDER / "node_modules"
_INSTALLED = MODULES / ".installed"  # written by `make clients` after everything else
_LOCK = FOLDER / "package-lock.json"
_SECONDS = 600.0

INSPECTOR = MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
CONFORMANCE = MODULES / "conformance" / "dist" / "index.js"
CONFORMANCE_NEXT = MODULES / "conformance-next" / "dist" / "index.js"


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the clients; skips or fails the test where it is not installed."""
    if not _INSTALLED.exists() or _INSTALLED.stat().st_mtime < _LOCK.stat().st_mtime:
        _missing("the official MCP clients are not installed")
    command = [node(), str(script), *arguments]
    # HOME: the Inspector keeps a catalog of servers there, and none of a person's may be read or written.
    environment = {**os.environ, "HOME": str(MODULES), "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False)


@cache
def node() -> str:
    """Return a Node.js that is new enough: that of the clients' folder, where it has one for this platform, or the system's."""
    paths = [*map(str, sorted(MODULES.glob("node-linux-*/bin/node"))), shutil.which("node") or "node"]
    found = next(filter(_is_new_enough, paths), None)
    if found is None:
        _missing("there is no Node.js 22 or newer")
    return found


def _is_new_enough(path: str) -> bool:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return int(done.stdout.strip().removeprefix("v").partition(".")[0]) >= 22


def _missing(what: str) -> NoReturn:
    text = f"{what}: run `make clients` (needs Node.js with npm, and the network)"
    if os.environ.get("AUTORESEARCH_CLIENTS") == "required":
        pytest.fail(text)
    pytest.skip(text)
