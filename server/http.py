"""Serving a lab over streamable HTTP: the same tools as over stdio, for several clients at once.

Guarantees: without tokens only a loopback address is bound; where a lab has tokens, each request needs one, and is its
researcher's. An address that other machines reach, or a name that they use, needs a token and the names that clients may call
the server by. Who is let in is decided before anything of the body is read (`http_gate`); bodies are bounded (413). A client
that leaves, and the end of the server, never end a training. Does not: encrypt; whoever listens on the network between reads
what passes, the token included, so other machines come through `ssh -L` or a reverse proxy that speaks TLS.

The clients share one process, so they share its session; the modern protocol has no connections that a session could belong
to. Without tokens they are told apart by the name that each gives to `start_session`, and repeats where an answer asks for it;
then every program and user of this machine can use the tools, a running candidate included.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from ..lab.errors import LabError, NotReadyError
from ..lab.git import GitRepository
from ..lab.identity import known_identity
from ..lab.lab import Lab, find_lab_root
from .app import build_server, has_record
from .callers import identify
from .http_gate import BoundedProtocol, Gate
from .tokens import TokenFile

PATH = "/mcp"
MAX_BODY_BYTES = 1 << 20  # the largest honest request has a few kilobytes
_SESSION_IDLE_SECONDS = 86_400.0  # a night without a call; some clients do not come back from a closed session
_MAX_SESSIONS = 1_000
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 2  # for answers that are being written; then what is still open is closed
_BACKLOG = 512
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_address(text: str) -> Address:
    """Return the address in ``HOST:PORT``; raises ValueError, with the reason, for what is none."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT: write 127.0.0.1:8765, or port 0 for any free one")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    try:
        return Address(host=str(ipaddress.ip_address(host)), port=int(port))
    except ValueError:
        raise ValueError(
            f"{host!r} is no IP address of this machine: write 127.0.0.1:{port}, or for other machines 0.0.0.0:{port} with "
            f"--allowed-host {host}"
        ) from None


def parse_allowed_host(text: str) -> str:
    """Return a name of the server as it stands in a Host header; raises ValueError, with the reason, for what is none."""
    name = text.lower().removeprefix("[").removesuffix("]")
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        if _HOST_NAME.fullmatch(name) is None:
            raise ValueError(
                f"{text!r} is not a host name or address: write what stands in the clients' URL between // and the port, such "
                "as gpu-box or 192.168.1.5, once for each. There are no wildcards: any web site could then pose as this server."
            ) from None
        return name
    if number.is_unspecified:
        raise ValueError(f"{text!r} is what a server listens on, not what clients call it: write the address in their URL")
    return f"[{number}]" if number.version == 6 else str(number)


def serve_http(
    folder: Path, address: Address, *, allowed_hosts: Collection[str] = (), budget_seconds: float | None = None
) -> None:
    """Serve the lab around ``folder`` until SIGINT or SIGTERM; prints the URL on stderr once it listens.

    Args:
        allowed_hosts: names of the server besides those of loopback, as `parse_allowed_host` returns them.

    Raises:
        NotReadyError: there is no lab, the port is taken, the tokens file cannot be used, or other machines could reach a
            server that lacks tokens or a name.
    """
    root = find_lab_root(folder)
    tokens = TokenFile(_tokens_of(root))
    _require_guarded(root, address, allowed_hosts, tokens)
    listener, address = _listen(address)
    stopping = threading.Event()
    server = build_server(partial(_open_lab, root, budget_seconds), exists=partial(has_record, root), stopping=stopping)
    server.middleware.append(identify)
    settings = security(address, allowed_hosts)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=address.host,
        max_request_body_size=MAX_BODY_BYTES,
        session_idle_timeout=_SESSION_IDLE_SECONDS,
        max_sessions=_MAX_SESSIONS,
        transport_security=settings,
    )
    hosts = names_of(address, allowed_hosts)
    gate = Gate(app, path=PATH, hosts=hosts, origins=settings.allowed_origins, tokens=tokens, most_bytes=MAX_BODY_BYTES)
    logging.getLogger("mcp").setLevel(logging.WARNING)  # a line for each session would hide the URL
    config = uvicorn.Config(
        gate,
        http=BoundedProtocol,
        log_level="error",  # it warns of each request that is none, so anybody could fill the log
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    asyncio.run(_Server(config, _announcement(root, address, allowed_hosts, tokens), stopping).serve(sockets=[listener]))


def names_of(address: Address, allowed_hosts: Collection[str] = ()) -> tuple[str, ...]:
    """Return by which names the server answers: loopback's, since a tunnel ends there, and those that the human allows."""
    own = (address.url_host,) if address.is_loopback else ()
    return tuple(dict.fromkeys((*_LOOPBACK_NAMES, *own, *allowed_hosts)))


def security(address: Address, allowed_hosts: Collection[str] = ()) -> TransportSecuritySettings:
    """Return whom the server answers: its names at any port, since a tunnel may end at another; its own pages only.

    A page of an allowed name may also have come through a proxy that speaks TLS.
    """
    names = names_of(address, allowed_hosts)
    proxied = [origin for name in allowed_hosts for origin in (f"https://{name}", f"https://{name}:{address.port}")]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[*names, *(f"{name}:*" for name in names)],
        allowed_origins=[*(f"http://{name}:{address.port}" for name in names), *proxied],
    )


def _require_guarded(root: Path, address: Address, allowed_hosts: Collection[str], tokens: TokenFile) -> None:
    """Refuse to serve other machines without a token, or without the names by which they call this one."""
    tokens.required()  # a file that cannot be used is told at once
    if address.is_loopback and not allowed_hosts:
        return
    missing = []
    if not tokens.researchers():
        missing.append(f"a token for each researcher: `autoresearch token NAME --lab {shlex.quote(str(root))}`")
    if not allowed_hosts:
        missing.append(
            "the names by which clients call it: `--allowed-host NAME`, the name or address in their URL, repeatable"
        )
    if missing:
        where = "a server with --allowed-host" if address.is_loopback else f"{address.url_host} is no loopback address, so it"
        port = address.port or 8765
        raise NotReadyError(
            f"{where[0].upper()}{where[1:]} can be reached from other machines. It needs {', and '.join(missing)}. Without: "
            f"serve --http 127.0.0.1:{port} here and ssh -L {port}:127.0.0.1:{port} THIS_MACHINE there."
        )


def _announcement(root: Path, address: Address, allowed_hosts: Collection[str], tokens: TokenFile) -> str:
    """Return what is said once the server listens: the URL, and who can use it."""
    host = address.url_host if address.is_loopback else next(iter(allowed_hosts))
    lines = [f"autoresearch: serving {root} at http://{host}:{address.port}{PATH}"]
    if not tokens.required():
        lines.append(
            "autoresearch: no tokens, so every program and user of this machine can use it; once `autoresearch token NAME` has "
            "made one, each request needs one"
        )
    else:
        lines.append(
            f"autoresearch: each request needs the token of a researcher: {', '.join(tokens.researchers()) or 'nobody'}"
        )
    if not address.is_loopback:
        lines.append(
            "autoresearch: this is plain HTTP: whoever listens on the network between reads the tokens; use ssh -L, or a "
            "reverse proxy that speaks TLS"
        )
    return "\n".join(lines)


def _tokens_of(root: Path) -> partial[Path | None]:
    """Return what finds the tokens file of a lab, also of one that is opened for the first time later."""
    try:
        return partial(_tokens_path, GitRepository.discover(root).common_dir)
    except LabError:  # each call will say so
        return partial(_tokens_path, None)


def _tokens_path(common_dir: Path | None) -> Path | None:
    identity = None if common_dir is None else known_identity(common_dir)
    return None if identity is None else identity.state.tokens


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
