"""Serving a lab over streamable HTTP on this machine: the same tools as over stdio, for several clients at once.

Guarantees: only a loopback address is bound; a request whose Host header is another name is refused (421), and one from a web
page of another origin (403), so no web site reaches the server through a browser; bodies are bounded (413). A client that
leaves, and the end of the server, never end a training. Does not: ask who calls. There is no token yet, so every program and
user of this machine can use the tools, a running candidate included.

The clients share one process, so they share its session; the modern protocol has no connections that a session could belong
to. They are told apart by the name that each gives to `start_session`, and repeats where an answer asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from ..lab.errors import NotReadyError
from ..lab.lab import Lab, find_lab_root
from .app import build_server, has_record

PATH = "/mcp"
MAX_BODY_BYTES = 1 << 20  # the largest honest request has a few kilobytes
_SESSION_IDLE_SECONDS = 86_400.0  # a night without a call; some clients do not come back from a closed session
_MAX_SESSIONS = 1_000
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 2  # for answers that are being written; then what is still open is closed
_BACKLOG = 512
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A loopback address to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        return f"http://{self.url_host}:{self.port}{PATH}"


def parse_address(text: str) -> Address:
    """Return the address in ``HOST:PORT``; raises ValueError, with the reason, for anything but a loopback address."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT: write 127.0.0.1:8765, or port 0 for any free one")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        tunnel = int(port) or 8765
        raise ValueError(
            f"{host!r} is not a loopback address (127.0.0.1, ::1, localhost). There is no password yet, so whoever reaches the "
            f"port may use the lab. From another machine use a tunnel: ssh -L {tunnel}:127.0.0.1:{tunnel} THIS_MACHINE"
        )
    return Address(host=host, port=int(port))


def serve_http(folder: Path, address: Address, *, budget_seconds: float | None = None) -> None:
    """Serve the lab around ``folder`` until SIGINT or SIGTERM; prints the URL on stderr once it listens.

    Raises:
        NotReadyError: there is no lab, or the port is taken.
    """
    root = find_lab_root(folder)
    listener, address = _listen(address)
    stopping = threading.Event()
    server = build_server(partial(_open_lab, root, budget_seconds), exists=partial(has_record, root), stopping=stopping)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=address.host,
        max_request_body_size=MAX_BODY_BYTES,
        session_idle_timeout=_SESSION_IDLE_SECONDS,
        max_sessions=_MAX_SESSIONS,
        transport_security=security(address),
    )
    logging.getLogger("mcp").setLevel(logging.WARNING)  # a line for each session would hide the URL
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    announcement = f"autoresearch: serving {root} at {address.url}"
    asyncio.run(_Server(config, announcement, stopping).serve(sockets=[listener]))


def security(address: Address) -> TransportSecuritySettings:
    """Return whom the server answers: any loopback name as host, since a tunnel may end at another port; its own pages only."""
    names = dict.fromkeys((*_LOOPBACK_NAMES, address.url_host))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:{address.port}" for name in names],
    )


def _open_lab(root: Path, budget_seconds: float | None) -> Lab:
    lab = Lab.open(root, budget_seconds=budget_seconds)
    lab.presence.serves_many = True
    return lab


def _listen(address: Address) -> tuple[socket.socket, Address]:
    """Return a listening socket and the address with the port it has."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise NotReadyError(
            f"Cannot listen on {address.url_host}:{address.port} ({error.strerror or error}): choose another port, or 0 for "
            "any free one."
        ) from error
    return listener, Address(host=address.host, port=listener.getsockname()[1])


class _Server(uvicorn.Server):
    """uvicorn, which says when it listens, and whose process ends with code 0 after the signal that asked it to."""

    def __init__(self, config: uvicorn.Config, announcement: str, stopping: threading.Event) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(self._announcement, file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it calls every stream that it closes an error
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield
