"""The autopilot's connection to the server: a real MCP client over stdio, and typed calls of the tools.

The server is a process of its own, started as any client would start it. What it prints to stderr is collected and told only
when the connection fails, so that it cannot disturb a live view.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, TypeVar

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent

from ...lab.errors import LabError, StoppedError
from ...tools.results import Answer
from ..app import ERROR_KIND

_STDERR_CHARACTERS = 2_000

AnswerT = TypeVar("AnswerT", bound=Answer)
ResultT = TypeVar("ResultT")


class AutopilotError(LabError):
    """The autopilot cannot go on; the text says why and what to do."""


class ToolRefusedError(AutopilotError):
    """A tool answered with an error that a researcher can act on; ``kind`` is the name of the error's class in the lab."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


class LabClient:
    """The tools of one connected server, as calls that return the tools' own models."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, answer: type[AnswerT], **arguments: object) -> AnswerT:
        """Call a tool and return its structured answer.

        Raises:
            StoppedError: a stop rule is met, or the lab is paused.
            ToolRefusedError: any other error of the tool, with its text.
        """
        result = await self._client.call_tool(tool, arguments)
        if result.is_error:
            text = " ".join(part.text for part in result.content if isinstance(part, TextContent))
            text = text.removeprefix(f"Error executing tool {tool}: ")
            kind = str((result.meta or {}).get(ERROR_KIND, ""))
            raise StoppedError(text) if kind == StoppedError.__name__ else ToolRefusedError(text, kind)
        return answer.model_validate(result.structured_content)

    async def tool_names(self) -> list[str]:
        """Return the names of the tools that the server offers."""
        return [tool.name for tool in (await self._client.list_tools()).tools]


def server_parameters(folder: Path, budget_seconds: float | None) -> StdioServerParameters:
    """Return how to start the autopilot's server of the lab in ``folder``, with this process's environment."""
    # -P keeps the lab's own files off the server's import path: an agent's mcp.py must not be imported there.
    arguments = ["-P", "-m", "autoresearch_mcp.server.cli", "serve", "--autopilot", "--lab", str(folder)]
    if budget_seconds is not None:
        arguments += ["--budget-seconds", str(budget_seconds)]
    return StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ), cwd=folder)


async def with_server(
    folder: Path, work: Callable[[LabClient], Awaitable[ResultT]], *, budget_seconds: float | None = None
) -> ResultT:
    """Start the server of a lab, await ``work`` with a client of it, and close both.

    Raises:
        AutopilotError: the server did not start or broke off (its last words are in the text), or ``work`` raised it.
    """
    error: LabError | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        try:
            async with Client(stdio_client(server_parameters(folder, budget_seconds), stderr)) as client:
                try:
                    return await work(LabClient(client))
                except LabError as raised:
                    error = raised  # kept out of the client's task groups, which would wrap it
        except* (MCPError, OSError) as group:
            reason = _first(group)
            error = AutopilotError(f"The connection to the server broke: {reason}.{_last_words(stderr)}")
    assert error is not None
    raise error


def _first(group: BaseExceptionGroup) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _last_words(stderr: IO[str]) -> str:
    stderr.seek(0)
    text = stderr.read()[-_STDERR_CHARACTERS:].strip()
    return f" Its last words:\n{text}" if text else ""
