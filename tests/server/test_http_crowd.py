"""Two hundred clients of one server at once: everybody is answered, and the server's memory and descriptors are bounded."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import Any

import anyio
import psutil
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
from autoresearch_mcp.lab.paths import device_lock_path
from autoresearch_mcp.server import http_gate
from autoresearch_mcp.server.http_gate import BoundedProtocol, most_connections
from autoresearch_mcp.server.tokens import make_token
from mcp import ClientSession

from ..serving import call, client_of, serving

CLIENTS = 200
_RESEARCHERS = 8
_MOST_MB = 400.0  # more than the server had before they came: each waiting call holds a thread


async def _trusting(session: ClientSession, name: str, result: object) -> None:
    """What a client does with an answer whose schema it knows already."""


@pytest.mark.slow
def test_two_hundred_clients_of_both_eras_are_all_answered_within_bounds(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is held here, so what some of them wait for does not end before it is cancelled."""
    monkeypatch.setattr(ClientSession, "validate_tool_result", _trusting)  # else most of the time goes into checking schemas
    tokens = [make_token(lab.state.tokens, f"r{number}") for number in range(_RESEARCHERS)]
    answers: list[str] = []
    verdicts: list[str] = []

    async def one(url: str, number: int, experiment: str, met: anyio.Event) -> None:
        async with client_of(url, ("legacy", "2026-07-28")[number % 2], token=tokens[number % _RESEARCHERS]) as client:
            answers.append((await call(client, "status"))["session"])
            answers.append(str((await call(client, "history"))["experiments"][0]["id"]))
            if len(answers) == 2 * CLIENTS:
                met.set()
            if number % 4 == 0:
                assert (await client.list_tools()).tools
                verdict = None
                while verdict is None:  # on a busy machine the crowd takes longer than one wait
                    waited = await call(client, "wait_experiment", experiment_id=experiment, wait_seconds=60.0)
                    verdict = waited["experiment"]["verdict"]
                verdicts.append(verdict)

    async def use(url: str, process: psutil.Process) -> None:
        met = anyio.Event()
        async with client_of(url, token=tokens[0]) as first:
            session = (await call(first, "start_session"))["tag"]
            experiment = (await call(first, "run_experiment", description="baseline", wait_seconds=0.0))["experiment"]["id"]
            before_mb = process.memory_info().rss / 1e6
            async with anyio.create_task_group() as tasks:
                for number in range(CLIENTS):
                    tasks.start_soon(one, url, number, experiment, met)
                await met.wait()
                assert process.memory_info().rss / 1e6 - before_mb < _MOST_MB
                assert process.num_fds() < most_connections()
                await call(first, "cancel_experiment", experiment_id=experiment)
            assert verdicts == ["cancelled"] * (CLIENTS // 4)
        assert {answer: answers.count(answer) for answer in set(answers)} == {session: CLIENTS, "e0001": CLIENTS}
        deadline = time.monotonic() + 20.0
        while process.num_fds() > 60 and time.monotonic() < deadline:  # what the clients held is let go
            await anyio.sleep(0.05)
        assert process.num_fds() <= 60

    with locked_if_free(device_lock_path("cpu")) as ours, serving(lab.root) as served:
        assert ours
        anyio.run(use, served.url, psutil.Process(served.process.pid))


async def _listening(app: Any) -> tuple[asyncio.Server, int, Any]:
    """Serve an application with the server's own connections, in this process."""
    import uvicorn
    from uvicorn.server import ServerState

    config, state = uvicorn.Config(app, log_config=None, http=BoundedProtocol, lifespan="off"), ServerState()
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0, family=socket.AF_INET
    )
    return server, server.sockets[0].getsockname()[1], state


async def _refusing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    "trickle",
    [
        pytest.param((b"",), id="says nothing"),
        pytest.param((b"POST /mcp HTTP/1.1\r\n", b"Host: a\r\n", b"X: a\r\n"), id="never ends its headers"),
        pytest.param((b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"a", b"a"), id="never ends a refused body"),
        pytest.param((b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b" /"), id="never ends its second request"),
    ],
)
def test_a_client_that_never_finishes_a_request_is_cut_off(trickle: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_gate, "REQUEST_SECONDS", 0.3)

    async def use() -> None:
        server, port, _ = await _listening(_refusing)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):  # cut off already, on a busy machine
                for part in trickle:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                while await reader.read(4096):
                    pass
        writer.close()
        server.close()

    asyncio.run(use())


def test_connections_beyond_the_most_are_told_so_and_room_is_made_by_those_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_gate, "_MOST_CONNECTIONS", 3)

    async def use() -> None:
        server, port, state = await _listening(_refusing)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        held[0][1].close()
        async with asyncio.timeout(10):
            while len(state.connections) > 2:
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        for _, each in [*held, (reader, writer)]:
            each.close()
        server.close()

    asyncio.run(use())
