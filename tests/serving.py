"""A real HTTP server of a lab in a process of its own, and clients that carry a token."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from .polling import until

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs; ``said`` holds what it wrote to stderr, once it has ended."""

    url: str
    process: subprocess.Popen[bytes]
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port


@contextmanager
def serving(
    folder: Path, address: str = "127.0.0.1:0", *, max_wait_seconds: float = 60.0, allowed_hosts: tuple[str, ...] = ()
) -> Iterator[Server]:
    """Start the real server, and end it; it ends by itself when asked to, without a word about an error."""
    # -P: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "autoresearch_mcp.server.cli", "serve", "--lab", str(folder), "--http", address]
    command += [part for name in allowed_hosts for part in ("--allowed-host", name)]
    environment = {**os.environ, "AUTORESEARCH_MAX_WAIT": str(max_wait_seconds)}
    with tempfile.TemporaryDirectory() as folder_of_log:
        log = Path(folder_of_log) / "stderr"  # a file: a reader of a pipe that stops reading stops the server
        with log.open("ab") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env=environment)
        said: list[str] = []
        try:
            until(lambda: "\n" in log.read_text() or process.poll() is not None, deadline_seconds=START_SECONDS)
            line = log.read_text().partition("\n")[0]
            assert line.startswith("autoresearch: serving "), log.read_text()
            yield Server(url=line.split()[-1], process=process, said=said)
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)
            said.append(log.read_text())
            assert "Traceback" not in said[0], said[0]
            assert process.returncode == 0, said[0]


@asynccontextmanager
async def client_of(url: str, mode: str = "auto", *, token: str = "", host: str = "") -> AsyncIterator[Client]:
    """A client that sends a token with each request, and another Host where one is given."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Host": host} if host else {}
    async with (
        # verify: it reads the certificates of the machine, which takes longer than a call, and nothing here is encrypted.
        httpx2.AsyncClient(headers=headers, verify=False, trust_env=False, timeout=httpx2.Timeout(60.0, read=300.0)) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured answer of a tool, which must not refuse."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content
