"""HTTP with tokens: nobody without one is heard, each is its researcher's, and other machines are served with both guards."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.http import MAX_BODY_BYTES, parse_address, serve_http
from autoresearch_mcp.server.tokens import make_token, revoke_token
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import TextContent

from ..serving import Server, client_of, serving
from ..serving import call as called

MakeLab = Callable[..., Lab]

_ERAS = ("legacy", "2026-07-28")
_TYPES = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_ASKS_WHO = re.compile(r"<your name>|call again with researcher|researcher='")


def ask(server: Server, path: str = "/mcp", body: bytes = b"{}", **headers: str) -> tuple[int, str]:
    """Return the status of a raw request and its challenge."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", path, body, _TYPES | {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.getheader("WWW-Authenticate", "")
    finally:
        connection.close()


def answered(server: Server, request: bytes) -> bytes:
    """Return the first line of the answer to bytes that need not be a whole request."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        with suppress(ConnectionError):  # it need not read all of it before it answers
            connection.sendall(request)
        return connection.recv(4096).split(b"\r\n")[0]


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await called(client, tool, **arguments)
    assert not _ASKS_WHO.search(str(answer)), answer
    return answer


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_nobody_is_heard_without_a_valid_token_and_no_token_is_ever_written_out(lab: Lab) -> None:
    ann, ben = (make_token(lab.state.tokens, name) for name in ("ann", "ben"))
    bearer = f"Bearer {ann}"
    with serving(lab.root) as served:
        plain, invalid = 'Bearer realm="autoresearch"', 'Bearer realm="autoresearch", error="invalid_token"'
        assert ask(served) == (401, plain)
        assert ask(served, MCP_Protocol_Version="2026-07-28") == (401, plain)
        assert ask(served, f"/mcp?token={ann}&access_token={ann}") == (401, plain)
        assert ask(served, body=f"access_token={ann}".encode()) == (401, plain)
        assert ask(served, Cookie=f"token={ann}", X_Api_Key=ann) == (401, plain)
        for wrong in (
            ann,
            "Bearer",
            "Bearer ",
            f"Basic {ann}",
            f"{bearer}x",
            bearer[:-1],
            f"Bearer {ann},{ben}",
            "Bearer \xe4",
        ):
            assert ask(served, Authorization=wrong) == (401, invalid), wrong
        assert answered(served, two_headers(served, ann, ben)) == b"HTTP/1.1 401 Unauthorized"
        # Let in: it is no request of the protocol.
        assert ask(served, Authorization=bearer)[0] == ask(served, Authorization=f"bearer   {ben} ")[0] == 400
        # What a web page may learn is the same with and without a token.
        assert ask(served, Host="evil.example", Authorization=bearer)[0] == ask(served, Host="evil.example")[0] == 421
        assert ask(served, Origin="http://evil.example", Authorization=bearer)[0] == 403
        assert ask(served, Origin="http://evil.example")[0] == 403
        assert ask(served, "/.well-known/oauth-protected-resource") == (404, "")
        # The body of a request without a token is not waited for; one with a token is bounded.
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        unfinished = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        assert answered(served, (head + unfinished).encode()) == b"HTTP/1.1 401 Unauthorized"
        assert ask(served, body=b" " * (MAX_BODY_BYTES + 1), Authorization=bearer)[0] == 413
        endless = f"Authorization: {bearer}\r\nTransfer-Encoding: chunked\r\n\r\n" + "10000\r\n" + " " * 65_536 + "\r\n"
        chunks = endless + ("10000\r\n" + " " * 65_536 + "\r\n") * (MAX_BODY_BYTES // 65_536)
        assert answered(served, (head + chunks).encode())[9:12] == b"413"
        assert answered(served, f"{head}Authorization: {bearer}\r\nX: {'x' * 100_000}\r\n\r\n".encode())[9:12] == b"400"
        assert answered(served, f"Authorization: {bearer}\r\n\r\n".encode())[9:12] == b"400"
        # What changes counts at once.
        revoke_token(lab.state.tokens, "ann")
        assert ask(served, Authorization=bearer) == (401, invalid)
        cleo = make_token(lab.state.tokens, "cleo")
        assert ask(served, Authorization=f"Bearer {cleo}")[0] == 400
        lab.state.tokens.chmod(0o644)
        assert ask(served, Authorization=f"Bearer {ben}")[0] == 503
        lab.state.tokens.unlink()
        assert ask(served) == (401, plain)
    said = "".join(served.said)
    assert "each request needs the token of a researcher: ann, ben" in said
    assert not [token for token in (ann, ben, cleo) if token in said or token[3:] in said]


def two_headers(server: Server, *tokens: str) -> bytes:
    lines = [f"Authorization: Bearer {token}" for token in tokens]
    return "\r\n".join([f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}", *lines, "\r\n"]).encode()


def test_an_open_server_asks_for_tokens_once_there_is_one(lab: Lab) -> None:
    async def use(url: str) -> None:
        async with Client(url) as open_one:
            await call(open_one, "status")
            token = make_token(lab.state.tokens, "ann")
            with pytest.raises(MCPError, match="error response"):
                await open_one.call_tool("status", {})
        async with client_of(url, token=token) as known:
            await call(known, "status")

    with serving(lab.root) as served:
        anyio.run(use, served.url)


@pytest.mark.parametrize(
    ("address", "has_token", "allowed", "missing"),
    [
        ("0.0.0.0:0", False, (), "autoresearch token NAME.*and the names.*--allowed-host NAME"),
        ("0.0.0.0:0", True, (), "It needs the names.*--allowed-host NAME"),
        ("0.0.0.0:0", False, ("gpu-box",), "It needs a token.*autoresearch token NAME"),
        ("127.0.0.1:0", False, ("gpu-box",), "--allowed-host can be reached.*autoresearch token NAME"),
    ],
)
def test_other_machines_are_not_served_while_a_guard_is_missing(
    lab: Lab, address: str, has_token: bool, allowed: Sequence[str], missing: str
) -> None:
    if has_token:
        make_token(lab.state.tokens, "ann")
    with pytest.raises(NotReadyError, match=missing):
        serve_http(lab.root, parse_address(address), allowed_hosts=allowed)


def test_a_tokens_file_that_others_can_read_starts_no_server(lab: Lab) -> None:
    make_token(lab.state.tokens, "ann")
    lab.state.tokens.chmod(0o640)
    with pytest.raises(NotReadyError, match="chmod 600"):
        serve_http(lab.root, parse_address("127.0.0.1:0"))


def test_other_machines_are_served_by_an_allowed_name_with_a_token(lab: Lab) -> None:
    token = make_token(lab.state.tokens, "ann")

    async def use(port: int, era: str) -> None:
        async with client_of(f"http://127.0.0.1:{port}/mcp", era, token=token, host=f"GPU-Box:{port}") as client:
            assert (await call(client, "status"))["next"]

    with serving(lab.root, "0.0.0.0:0", allowed_hosts=("gpu-box",)) as served:
        assert served.url == f"http://gpu-box:{served.port}/mcp"
        for era in _ERAS:
            anyio.run(use, served.port, era)
        bearer = f"Bearer {token}"
        assert ask(served, Host="gpu-box", Authorization=bearer)[0] == 400
        assert ask(served, Host="gpu-box")[0] == 401
        assert ask(served, Host=f"0.0.0.0:{served.port}", Authorization=bearer)[0] == 421
        assert ask(served, Host="evil.example", Authorization=bearer)[0] == 421
        assert ask(served, Origin="https://gpu-box", Authorization=bearer)[0] == 400
        assert ask(served, Origin="https://evil.example", Authorization=bearer)[0] == 403
    assert "reverse proxy" in "".join(served.said)


@pytest.mark.slow
def test_two_tokens_are_two_researchers_in_the_record_whatever_the_era_and_nobody_says_who_it_is(
    make_quick_lab: MakeLab,
) -> None:
    lab = make_quick_lab()
    tokens = {name: make_token(lab.state.tokens, name) for name in ("ann", "ben")}

    async def use(url: str) -> None:
        async with (
            client_of(url, "legacy", token=tokens["ann"]) as ann,
            client_of(url, "2026-07-28", token=tokens["ben"]) as ben,
        ):
            assert "Call start_session() to join" in await refused(ann, "run_experiment", description="baseline")
            assert (await call(ben, "read_program"))["next"][0].startswith("start_session(tag=")
            sessions = {name: await call(client, "start_session") for name, client in (("ann", ann), ("ben", ben))}
            assert {name: session["researcher"] for name, session in sessions.items()} == {"ann": "ann", "ben": "ben"}
            assert sessions["ann"]["train_file"] != sessions["ben"]["train_file"]
            for client, tool in ((ann, "run_experiment"), (ben, "run_experiment"), (ben, "start_session"), (ann, "revert")):
                arguments = {"run_experiment": {"description": "theirs"}, "revert": {"experiment_id": "workspace"}}.get(
                    tool, {}
                )
                assert "Your token is that of" in await refused(client, tool, researcher="somebody", **arguments)
            assert (await call(ann, "run_experiment", description="baseline"))["experiment"]["decision"] == "kept"
            for number, (name, client) in enumerate((("ann", ann), ("ben", ben))):
                await call(client, "revert", experiment_id="workspace")
                file = lab.root / sessions[name]["train_file"]
                better = file.read_text().replace("val_bpb=2.0", f"val_bpb=1.{9 - number}")
                file.write_text(better.replace("WIDTH = 16" if number else "DEPTH = 2", f"NUMBER = {number}"))
                said = {"researcher": name} if number else {}
                experiment = (await call(client, "run_experiment", description=f"of {name}", **said))["experiment"]
                assert experiment["researcher"] == name
            assert "is ben's experiment" in await refused(ann, "keep", experiment_id="e0003")
            assert "is ben's experiment" in await refused(ann, "revert", experiment_id="e0003", lesson="mine is better")
            assert "is ben's experiment" in await refused(ann, "cancel_experiment", experiment_id="e0003")
            assert not re.search(
                "(keep|revert)[^ ]*e0003", str((await call(ann, "wait_experiment", experiment_id="e0003"))["next"])
            )
            for client in (ann, ben):
                for tool in ("status", "history", "read_program"):
                    assert (await call(client, tool))["ledger_head"]
                assert not _ASKS_WHO.search(str((await client.get_prompt("resume")).messages))
            await call(ann, "keep", experiment_id="e0002", reason="lower")
            await call(ben, "revert", experiment_id="e0003", lesson="too late")

    with serving(lab.root) as served:
        anyio.run(use, served.url)
    assert [each.researcher for each in lab.ledger.experiments()] == ["ann", "ann", "ben"]
    kept, reverted = lab.ledger.latest("experiment_kept"), lab.ledger.latest("experiment_reverted")
    assert kept is not None
    assert reverted is not None
    assert (kept.body["by"], reverted.body["by"]) == ("ann", "ben")
    assert lab.ledger.verify() == []


@pytest.mark.slow
def test_a_session_answers_only_the_token_that_opened_it(lab: Lab) -> None:
    ann, ben = (make_token(lab.state.tokens, name) for name in ("ann", "ben"))
    opening = (
        b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, '
        b'"clientInfo": {"name": "t", "version": "1"}}}'
    )
    listing = b'{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}'
    with serving(lab.root) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        connection.request("POST", "/mcp", opening, _TYPES | {"Authorization": f"Bearer {ann}"})
        session = connection.getresponse().getheader("mcp-session-id", "")
        connection.close()
        assert session
        assert ask(served, body=listing, Mcp_Session_Id=session, Authorization=f"Bearer {ben}")[0] == 404
        assert ask(served, body=listing, Mcp_Session_Id=session, Authorization=f"Bearer {ann}")[0] == 200
        assert ask(served, body=listing, Mcp_Session_Id=session)[0] == 401
