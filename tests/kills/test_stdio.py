"""The same through the real server, over stdio: it is killed in the middle of a call, and the next one is asked again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .checks import Now, Users, require_whole
from .conftest import Arm
from .labs import Copy
from .scenarios import LONG_SECONDS, SCENARIOS

# A label of the table, and the scenario whose calls lead there.
_CASES = [("create.branch-before", "session"), ("keep.branch-during", "keep"), ("revert.unnamed", "revert")]


@pytest.mark.slow
@pytest.mark.parametrize(("label", "name"), _CASES, ids=[label for label, _ in _CASES])
def test_what_a_killed_server_was_asked_is_done_once_by_the_next_one(
    copy: Copy, arm: Arm, disarm: Callable[[], None], label: str, name: str
) -> None:
    scenario = SCENARIOS[name]
    place = copy(scenario.stage)
    if scenario.train is not None:
        place.train.write_bytes(scenario.train)
    users, nows = Users.of(place), []
    arm(server=label)
    with _Client.connected(place.lab) as client:
        assert client.call(*scenario.calls[0]) is None
        assert client.process.wait(timeout=LONG_SECONDS) == -signal.SIGKILL
    assert place.reached(label) == 1
    disarm()
    with _Client.connected(place.lab) as client, place.opened() as lab:
        for _ in range(2):
            answer = client.call(*scenario.again[0])
            assert answer is not None
            assert not answer.get("isError"), answer
            nows.append(Now.of(place, lab))
        client.process.kill()
        require_whole(place, lab, users, train=scenario.final_train, backups=scenario.backups)
    assert nows[0] == nows[1]


class _Client:
    """As little of a client as is needed to call one tool of a server that may die in the middle of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._requests = 0

    @classmethod
    @contextmanager
    def connected(cls, lab: Path) -> Iterator[_Client]:
        command = [sys.executable, "-B", "-m", "autoresearch_mcp.server.cli", "serve", "--lab", str(lab)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")
        try:
            client = cls(process)
            about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
            assert client._request("initialize", about) is not None
            client._say({"method": "notifications/initialized"})
            yield client
        finally:
            process.kill()
            process.communicate()

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Call a tool; None: the server died."""
        return self._request("tools/call", {"name": tool, "arguments": arguments})

    def _request(self, method: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
        self._requests += 1
        self._say({"id": self._requests, "method": method, "params": parameters})
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._requests:
                return answer["result"]
        return None

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()
