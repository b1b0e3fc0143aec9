"""Runs Python source behind the stage, with just the restrictions that a test is about."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch_mcp.lab.referee.sandbox.starting import STAGE

_SECONDS = 30
# What every source begins with: a way to say what came of a system call.
_WORDS = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def outcome(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What the stage said and the program printed."""

    said: list[dict[str, Any]]
    output: str
    code: int

    @property
    def answers(self) -> dict[str, Any]:
        assert self.code == 0, (self.said, self.output)
        return json.loads(self.output)


def run_staged(source: str, folder: Path, **order: Any) -> Staged:
    """Run source that prints one JSON object; ``order`` is what differs from no restriction at all."""
    return run_order({"argv": [sys.executable, "-I", "-S", "-c", _WORDS + source], "folder": str(folder), **order})


def run_order(order: Mapping[str, Any]) -> Staged:
    """Give the stage an order; what is missing in it is no restriction."""
    complete = {
        "environment": {},
        "limits": {},
        "parent": None,
        "access": None,
        "filter": None,
        "drop_capabilities": False,
        **order,
    }
    if isinstance(complete["filter"], bytes):
        complete["filter"] = base64.b64encode(complete["filter"]).decode()
    hear, say = os.pipe()
    with tempfile.TemporaryFile() as file, os.fdopen(hear, "rb") as said:
        file.write(json.dumps(complete).encode())
        file.seek(0)
        command = [sys.executable, "-I", "-S", "-B", str(STAGE), str(file.fileno()), str(say)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(file.fileno(), say),
            cwd="/",
            start_new_session=True,
        )
        os.close(say)
        output, _ = process.communicate(timeout=_SECONDS)
        lines = said.read().splitlines()
    return Staged(said=[json.loads(line) for line in lines], output=output.decode(), code=process.returncode)
