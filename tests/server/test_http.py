"""HTTP without tokens: the same tools for several clients at once, in both protocol eras, and for nobody from elsewhere."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
from autoresearch_mcp.lab.paths import device_lock_path
from autoresearch_mcp.lab.states import RunState
from autoresearch_mcp.server.http import (
    MAX_BODY_BYTES,
    Address,
    names_of,
    parse_address,
    parse_allowed_host,
    security,
    serve_http,
)
from autoresearch_mcp.tools.catalog import TOOLS
from mcp import Client
from mcp.types import TextContent

from ..serving import START_SECONDS, Server, call, serving

MakeLab = Callable[..., Lab]

_ERAS = ("legacy", "2026-07-28")


def post(server: Server, body: bytes | Iterator[bytes] = b"{}", **headers: str) -> int:
    """Return the status of a raw request; headers are given with underscores, and what is iterated over is sent in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", "/mcp", body, sent)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("text", ["0.0.0.0:80", "192.168.1.5:8765", "[::]:80", "10.0.0.1:0"])
def test_an_address_that_others_reach_is_refused_without_tokens_and_names_with_the_commands_and_a_tunnel(
    text: str, lab: Lab
) -> None:
    with pytest.raises(NotReadyError, match="autoresearch token NAME") as refused:
        serve_http(lab.root, parse_address(text))
    assert "--allowed-host" in str(refused.value)
    assert "ssh -L" in str(refused.value)


def test_a_name_to_listen_on_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0:80 with --allowed-host example\.org"):
        parse_address("example.org:80")


@pytest.mark.parametrize(
    "text", ["*", "*.example.org", "", "0.0.0.0", "::", "[::]", "a b", "host:80", "http://host", "host/mcp", "-x", ".x", "x..y"]
)
def test_what_no_client_would_call_the_server_is_no_allowed_host(text: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        parse_allowed_host(text)


def test_an_allowed_host_is_written_as_in_a_host_header() -> None:
    named = [parse_allowed_host(text) for text in ("GPU-Box", "gpu.example.org", "192.168.1.5", "fd00::0:1", "[FD00::1]")]
    assert named == ["gpu-box", "gpu.example.org", "192.168.1.5", "[fd00::1]", "[fd00::1]"]
    assert "0.0.0.0" not in names_of(parse_address("0.0.0.0:80"), named)


@pytest.mark.parametrize(
    "text", ["8765", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:-1"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 127\.0\.0\.1:8765"):
        parse_address(text)


def test_every_loopback_address_is_accepted() -> None:
    assert parse_address("127.0.0.1:0").host == "127.0.0.1"
    assert parse_address("127.9.9.9:80").host == "127.9.9.9"
    assert parse_address("LocalHost:80").host == "127.0.0.1"
    assert parse_address("[::1]:8765").url_host == "[::1]"
    assert all(parse_address(text).is_loopback for text in ("127.9.9.9:80", "localhost:80", "[::1]:80"))


def test_only_pages_of_the_server_itself_are_an_allowed_origin() -> None:
    settings = security(parse_address("127.0.0.2:8765"))
    assert settings.enable_dns_rebinding_protection
    assert "127.0.0.2:*" in settings.allowed_hosts
    assert all(origin.endswith(":8765") for origin in settings.allowed_origins)


def test_a_browsers_request_from_elsewhere_is_refused_and_so_is_a_huge_one(lab: Lab) -> None:
    with serving(lab.root) as served:
        assert post(served, Host="evil.example:80") == 421
        assert post(served, Host=f"127.0.0.1.evil.example:{served.port}") == 421
        assert post(served, Host=f"127.0.0.1:{served.port}.evil.example") == 421
        assert post(served, Host="[::1].evil.example:80") == 421
        assert post(served, Host="") == 421
        assert post(served, Host="LOCALHOST:80") == 400
        assert post(served, Origin="http://evil.example") == 403
        assert post(served, Origin="http://localhost:1") == 403
        assert post(served, Host="evil.example", MCP_Protocol_Version="2026-07-28") == 421
        assert post(served, Origin="http://evil.example", MCP_Protocol_Version="2026-07-28") == 403
        assert post(served, Origin="null") == 403
        assert post(served, b" " * (MAX_BODY_BYTES + 1)) == 413
        assert post(served, iter([b" " * 65_536] * (MAX_BODY_BYTES // 65_536 + 1))) == 413
        assert post(served, Origin=f"http://127.0.0.1:{served.port}") == 400  # let in; it is no request of the protocol
    assert "every program and user of this machine" in "".join(served.said)


def test_a_taken_port_and_a_folder_that_is_no_lab_are_refused_before_anything_is_served(lab: Lab, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(NotReadyError, match="choose another port"):
        serve_http(lab.root, Address(host="127.0.0.1", port=taken.getsockname()[1]))
    with pytest.raises(NotReadyError, match="init"):
        serve_http(tmp_path, Address(host="127.0.0.1", port=0))


def test_all_clients_share_the_session_and_the_one_that_moves_them_is_told(make_lab: MakeLab) -> None:
    lab = make_lab()

    async def use(url: str) -> None:
        async with Client(url, mode="legacy") as first, Client(url, mode="2026-07-28") as second:
            assert [each.name for each in (await second.list_tools()).tools] == [each.name for each in TOOLS]
            assert (await call(first, "start_session", tag="one"))["warnings"] == []
            (shared,) = (await call(second, "start_session", tag="one"))["warnings"]
            assert "a name of your own" in shared
            (warning,) = (await call(second, "start_session", tag="two"))["warnings"]
            assert "session one" in warning
            assert "every client" in warning
            assert (await call(first, "status"))["session"] == "two"

    with serving(lab.root) as served:
        anyio.run(use, served.url)


@pytest.mark.slow
def test_sixty_waiting_clients_keep_nobody_out_and_leaving_ends_nothing(lab: Lab) -> None:
    """The device is held here, so the run is queued for as long as this test likes."""
    waiting, all_wait = set[int](), anyio.Event()

    async def wait(url: str, number: int, experiment: str, verdicts: list[str]) -> None:
        async def progress(*_: object) -> None:
            waiting.add(number)
            if len(waiting) == 60:
                all_wait.set()

        async with Client(url, mode=_ERAS[number % 2]) as client:
            arguments = {"experiment_id": experiment, "wait_seconds": 60.0}
            result = await client.call_tool("wait_experiment", arguments, progress_callback=progress)
            assert result.structured_content is not None
            verdicts.append(result.structured_content["experiment"]["verdict"])

    async def use(url: str) -> None:
        verdicts: list[str] = []
        async with Client(url) as client:
            answer = await call(client, "run_experiment", description="baseline", wait_seconds=0.0)
            experiment = answer["experiment"]["id"]
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(wait, url, 60, experiment, verdicts)
                while 60 not in waiting:
                    await call(client, "status")
                leaving.cancel_scope.cancel()
            waiting.clear()
            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(wait, url, number, experiment, verdicts)
                await all_wait.wait()
                asked = time.monotonic()
                status = await call(client, "status")
                assert time.monotonic() - asked < 10.0  # the others wait for a minute
                assert status["undecided"] == [experiment]
                assert verdicts == []
                await call(client, "cancel_experiment", experiment_id=experiment)
        assert verdicts == ["cancelled"] * 60

    with locked_if_free(device_lock_path("cpu")) as ours, serving(lab.root) as served:
        assert ours
        anyio.run(use, served.url)


@pytest.mark.slow
def test_eight_clients_at_once_run_one_experiment(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.start_session("eight", "tester")

    async def research(url: str, era: str, seen: list[tuple[str, str, str]]) -> None:
        async with Client(url, mode=era) as client:
            assert "baseline" in (await call(client, "read_program"))["next"][0]
            assert (await call(client, "status"))["session"] == "eight"
            await call(client, "history")
            answer = await call(client, "run_experiment", description="baseline")
            seen.append((answer["experiment"]["id"], answer["experiment"]["verdict"], answer["experiment"]["decision"]))

    async def use(url: str) -> list[tuple[str, str, str]]:
        seen: list[tuple[str, str, str]] = []
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(research, url, _ERAS[number % 2], seen)
        return seen

    with serving(lab.root) as served:
        assert anyio.run(use, served.url) == [("e0001", "improved", "kept")] * 8
    assert lab.ledger.verify() == []


@pytest.mark.slow
def test_sigterm_ends_the_server_while_a_run_goes_on_and_the_next_server_records_it(make_lab: MakeLab) -> None:
    lab = make_lab(seconds=3.0)

    async def start(served: Server) -> str:
        async def end_the_server(*_: object) -> None:
            served.process.send_signal(signal.SIGTERM)

        async with Client(served.url) as client:
            await call(client, "start_session", tag="term")
            waiting = await client.call_tool("run_experiment", {"description": "baseline"}, progress_callback=end_the_server)
            assert waiting.is_error
            (content,) = waiting.content
            assert isinstance(content, TextContent)
            return content.text

    async def result(url: str) -> dict[str, Any]:
        async with Client(url) as client:
            return await call(client, "wait_experiment", experiment_id="e0001", wait_seconds=60.0)

    with serving(lab.root) as served:
        assert "the experiment goes on" in anyio.run(start, served)
        assert served.process.wait(timeout=START_SECONDS) == 0
    assert [run.experiment for run in lab.ledger.runs_in_state(RunState.RUNNING)] == ["e0001"]
    with serving(lab.root) as served:
        assert anyio.run(result, served.url)["experiment"]["verdict"] == "improved"
