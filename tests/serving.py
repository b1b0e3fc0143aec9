"""A real HTTP server of a lab in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    url: str
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path, address: str = "127.0.0.1:0", *, max_wait_seconds: float = 60.0) -> Iterator[Server]:
    """Start the real server, and end it; it ends by itself when asked to, without a word about an error."""
    # -P: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "autoresearch_mcp.server.cli", "serve", "--lab", str(folder), "--http", address]
    environment = {**os.environ, "AUTORESEARCH_MAX_WAIT": str(max_wait_seconds)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("autoresearch: serving "), line + process.stderr.read()
        yield Server(url=line.split()[-1], process=process)
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=START_SECONDS)
        assert "Traceback" not in rest, rest
        assert process.returncode == 0, rest
