"""A real server as a client starts it, with its process in the test's hand: it can be asked, left alone, stopped and killed."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch_mcp.server.autopilot.client import server_parameters

ANSWER_SECONDS = 60.0


class ToolError(Exception):
    """A tool answered with an error; the text is what the model reads."""


class StdioServer:
    """`autoresearch serve` in a process of its own, spoken to in JSON-RPC over its standard input and output."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        parameters = server_parameters(folder, None)
        self.process = subprocess.Popen(
            [parameters.command, *parameters.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._next_id = 0
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        self.errors = b""
        for reader in self._readers:
            reader.start()

    def connect(self) -> StdioServer:
        """Shake hands, as a client does before anything else."""
        info = {"name": "test", "version": "1"}
        self.request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.request("tools/list")["tools"]]

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured answer."""
        answer = self.request("tools/call", name=tool, arguments=arguments)
        if answer.get("isError"):
            raise ToolError(answer["content"][0]["text"])
        return answer["structuredContent"]

    def request(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._next_id += 1
        self._send({"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": parameters})
        while (answer := self._answers.get(timeout=ANSWER_SECONDS)).get("id") != self._next_id:
            assert answer, f"the server ended: {self.errors.decode()}"
        assert "error" not in answer, answer
        return answer["result"]

    def hang_up(self) -> int:
        """Close standard input, as a client that ends does; return the server's exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(ANSWER_SECONDS)

    def kill(self) -> None:
        """End the process, whatever it does, and everything that belongs to it here."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            if not stream.closed:
                stream.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def _read_answers(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put({})

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line
