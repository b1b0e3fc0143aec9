"""What stands before the MCP application on HTTP: who is let in, by the headers alone, and how long a request may take.

Guarantees: a request whose Host is no name of this server is answered 421, one from a web page of another origin 403, a path
that is not the server's 404 (clients look there for a login before they send a token), and, where there are tokens, one without
a valid token 401; of such a request no byte of the body is read. Host and Origin come first, so a web page learns
nothing about tokens. A token is taken from the Authorization header only, and what is behind the gate never sees it. A request
that has not arrived whole in time is cut off, and so are connections beyond a number that leaves the server room for files.
Does not: encrypt anything, or tell an honest crowd from one that only holds connections open.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..lab.errors import NotReadyError
from .callers import identity_of
from .tokens import TokenFile

REQUEST_SECONDS = 30.0  # for all of a request, once a connection is open or its first byte is there
_MOST_CONNECTIONS = 1_000
_FILES_KEPT = 128  # for the record, run folders and pipes
_CHALLENGE = 'Bearer realm="autoresearch"'
_INVALID = f'{_CHALLENGE}, error="invalid_token"'


class Gate:
    """The application behind it, for those who may use it.

    Args:
        hosts: the names under which this server is called, in lower case, IPv6 addresses in brackets; any port.
        origins: the web pages that may call it.
        most_bytes: of a body; more is answered 413.
    """

    def __init__(
        self, app: ASGIApp, *, path: str, hosts: Collection[str], origins: Collection[str], tokens: TokenFile, most_bytes: int
    ) -> None:
        self._app = app
        self._path = path
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._tokens = tokens
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if (host := self._host(headers)) is None:
            text = "This server is not called by that name: use one of its own, or start it with --allowed-host NAME."
            await _refuse(send, HTTPStatus.MISDIRECTED_REQUEST, text)
            return
        if any(origin.decode("latin-1") not in self._origins for origin in _values(headers, b"origin")):
            await _refuse(send, HTTPStatus.FORBIDDEN, "Web pages of other origins may not use this server.")
            return
        if scope["path"].removesuffix("/") != self._path:
            await _refuse(send, HTTPStatus.NOT_FOUND, f"The tools are at {self._path}.")
            return
        try:
            needed = self._tokens.required()
            researcher = self._researcher(headers) if needed else ""
        except NotReadyError:
            text = "The tokens file of this lab cannot be used; `autoresearch token --list` on the server's machine says why."
            await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, text)
            return
        if researcher is None:
            text = "A researcher's token is needed, in the header `Authorization: Bearer TOKEN`; none is taken from a URL."
            challenge = _INVALID if _values(headers, b"authorization") else _CHALLENGE
            await _refuse(send, HTTPStatus.UNAUTHORIZED, text, (b"www-authenticate", challenge.encode()))
            return
        kept = [(name, value) for name, value in headers if name not in (b"authorization", b"host")]
        inner: dict[str, Any] = {**scope, "headers": [(b"host", host), *kept]}
        if needed:
            inner["user"] = identity_of(researcher)
        try:
            body = await self._body(headers, receive)
        except ValueError:
            await _refuse(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has {self._most_bytes} bytes at most.")
            return
        if body is not None:
            await self._app(inner, _replayed(body, receive), send)

    async def _body(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        """Return all of a request's body; None: the client left before it was there. Raises ValueError for too long a one."""
        declared = next(iter(_values(headers, b"content-length")), b"0")
        if int(declared) > self._most_bytes:  # its form is checked where headers are read
            raise ValueError(declared)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._most_bytes:
                raise ValueError(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _host(self, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """Return the Host header in lower case; None: it is missing, or no name of this server."""
        values = _values(headers, b"host")
        if len(values) != 1:
            return None
        host = values[0].decode("latin-1").lower()
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, "0"
        return host.encode("latin-1") if name in self._hosts and port.isascii() and port.isdecimal() else None

    def _researcher(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Return whose token a request carries, if it carries one."""
        values = _values(headers, b"authorization")
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        return self._tokens.researcher_of(token.strip()) if scheme.lower() == b"bearer" else None


class BoundedProtocol(H11Protocol):
    """uvicorn's connection, which also ends where a request does not arrive, and is refused where there are too many."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
            )
            transport.close()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and (self.conn.trailing_data[0] or not self.timeout_keep_alive_task)):
            self._arm()
        else:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def most_connections() -> int:
    """Return how many connections may be open: as many as the process may have files, less those that it needs itself."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, max(16, soft - _FILES_KEPT))


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body once, and then what comes of the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, status: HTTPStatus, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = f"{text}\n".encode()
    sent = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": int(status), "headers": sent})
    await send({"type": "http.response.body", "body": body})
