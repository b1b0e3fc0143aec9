"""Shaking hands with an MCP server over stdio as a client does, on the wire: what comes, what should not, and when.

Guarantees: it ends by its deadline, whatever the program does; the program is ended with everything in its process group; a
reply is bounded in size. What goes wrong is a `HandshakeError` whose text says what happened, with the program's last words.
Does not: speak HTTP, keep the connection for anything else, or end what the program itself moved out of its group.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from mcp.types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY, SERVER_INFO_META_KEY

from ..lab.errors import LabError

_CLIENT = {"name": "autoresearch-doctor", "version": version("autoresearch-mcp")}
_MAX_REPLY_BYTES = 4 << 20
_MAX_STRAY_LINES = 50
_SHOWN_CHARACTERS = 160
_LAST_LINES = 4
_STDERR_BYTES = 8192
_ENDING_SECONDS = 2.0  # for a program whose input was closed; then it is killed


class Era(Enum):
    """The two ways in which clients begin, with the revision of each that most of them ask for."""

    LEGACY = "2025-06-18"
    MODERN = "2026-07-28"


class HandshakeError(LabError):
    """No client would get its tools from this program; the text says why, ``stderr`` is the end of what it wrote there."""

    def __init__(self, problem: str, stderr: str = "") -> None:
        lines = [_shown(line.strip()) for line in stderr.strip().splitlines()[-_LAST_LINES:]]
        super().__init__(f"{problem}. Its last words: {' | '.join(lines)}" if lines else problem)
        self.stderr = stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a client starts a server: ``command`` is resolved as that client would, in ``folder``, with ``environment`` added."""

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaken:
    """What a server said.

    Attributes:
        revision: of the protocol, as negotiated.
        seconds: from the start of the process to its list of tools.
        status: the first line of the answer to `status`; None where it was not asked.
        stray: the first line on standard output that is no message of the protocol; empty where there was none.
    """

    name: str
    version: str
    revision: str
    tools: int
    seconds: float
    status: str | None
    stray: str


def shake_hands(launch: Launch, era: Era, *, ask_status: bool, deadline_seconds: float) -> Shaken:
    """Start the program, negotiate, list the tools, ask `status` if so wanted, and end it.

    Raises:
        HandshakeError: it cannot be started, ends, is silent until the deadline, or answers with an error.
    """
    started = time.monotonic()
    with _started(launch) as (process, stderr):
        wire = _Wire(process, stderr, started + deadline_seconds, deadline_seconds)
        envelope: dict[str, Any] = {}
        if era is Era.LEGACY:
            info = {"protocolVersion": era.value, "capabilities": {}, "clientInfo": _CLIENT}
            said = wire.request("initialize", info)
            wire.send({"method": "notifications/initialized"})
            server, revision = said.get("serverInfo"), said.get("protocolVersion")
        else:
            meta = {PROTOCOL_VERSION_META_KEY: era.value, CLIENT_CAPABILITIES_META_KEY: {}, CLIENT_INFO_META_KEY: _CLIENT}
            envelope = {"_meta": meta}
            said = wire.request("server/discover", envelope)
            server = (said.get("_meta") or {}).get(SERVER_INFO_META_KEY)
            revision = era.value if era.value in said.get("supportedVersions", ()) else None
        tools = wire.request("tools/list", envelope).get("tools")
        seconds = time.monotonic() - started
        if revision is None or not isinstance(server, dict) or not isinstance(tools, list):
            raise HandshakeError(f"its answers are no handshake of MCP: {_shown(json.dumps(said))}")
        asked = {"name": "status", "arguments": {}, **envelope}
        status = _first_line(wire.request("tools/call", asked)) if ask_status else None
    return Shaken(
        name=str(server.get("name")),
        version=str(server.get("version")),
        revision=str(revision),
        tools=len(tools),
        seconds=seconds,
        status=status,
        stray=wire.stray[0] if wire.stray else "",
    )


class _Wire:
    """One connection: JSON-RPC in lines, with a deadline for all of it."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes], deadline: float, allowed_seconds: float) -> None:
        self._process = process
        self._stderr = stderr
        self._deadline = deadline
        self._allowed_seconds = allowed_seconds
        self._received = b""
        self._last_id = 0
        self.stray: list[str] = []

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(message["method"]) from None

    def request(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of a request; other messages that come meanwhile are passed over."""
        self._last_id += 1
        self.send({"id": self._last_id, "method": method, "params": parameters})
        while True:
            line = self._line(method)
            message = _message(line)
            if message is None:
                self.stray.append(_shown(line.decode(errors="replace")))
                if len(self.stray) > _MAX_STRAY_LINES:
                    raise HandshakeError(f"its standard output is not the protocol: {self.stray[0]!r}, and more of that kind")
            elif message.get("id") == self._last_id and "method" not in message:
                if not isinstance(result := message.get("result"), dict):
                    raise HandshakeError(f"it answers {method} with an error: {_shown(json.dumps(message.get('error')))}")
                return result

    def _line(self, method: str) -> bytes:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        while b"\n" not in self._received:
            left_seconds = self._deadline - time.monotonic()
            if left_seconds <= 0 or not select.select([source], [], [], left_seconds)[0]:
                hint = f"; instead it wrote {self.stray[0]!r} to its standard output" if self.stray else ""
                problem = f"no answer to {method} within {self._allowed_seconds:g} s of the start{hint}"
                raise HandshakeError(problem, _end_of(self._stderr))
            chunk = os.read(source, 1 << 16)
            if not chunk:
                raise self._ended(method)
            self._received += chunk
            if len(self._received) > _MAX_REPLY_BYTES:
                raise HandshakeError(f"more than {_MAX_REPLY_BYTES >> 20} MB came instead of an answer to {method}")
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _ended(self, method: str) -> HandshakeError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)
        code = self._process.returncode
        how = "it closed its output" if code is None else f"it ended with exit code {code}"
        if code is not None and code < 0:
            how = f"it was killed by signal {-code}"
        if self.stray:
            how += f" after writing {self.stray[0]!r} to its standard output"
        return HandshakeError(f"{how} instead of answering {method}", _end_of(self._stderr))


@contextmanager
def _started(launch: Launch) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=launch.folder,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )
        except OSError as error:
            raise HandshakeError(f"{launch.command[0]} cannot be started: {error.strerror or error}") from None
        try:
            yield process, stderr
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, as a client that leaves does, wait a moment, and kill what is left of its process group."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDING_SECONDS)
    with suppress(ProcessLookupError, PermissionError):  # macOS says that a group of zombies is not ours
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.get("jsonrpc") == "2.0" else None


def _first_line(answer: Mapping[str, Any]) -> str:
    """Return the beginning of a tool's answer; raises `HandshakeError` where there is none."""
    content = answer.get("content")
    text = content[0].get("text") if isinstance(content, list) and content and isinstance(content[0], dict) else None
    if not isinstance(text, str):
        raise HandshakeError(f"its answer to status has no text: {_shown(json.dumps(answer))}")
    return _shown(text.partition("\n")[0])


def _end_of(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_BYTES))
    return stderr.read().decode(errors="replace")


def _shown(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
