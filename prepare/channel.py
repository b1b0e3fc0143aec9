"""Messages between the referee and a process that runs a candidate's code, over one inherited Unix socket.

A frame is a JSON header and an optional binary payload, each length-prefixed; file descriptors may ride on a frame that the
referee sends. The referee's side trusts nothing: sizes are bounded before memory is taken, received descriptors are dropped
by the kernel, and `poll` never blocks, so a peer that stalls in the middle of a frame stalls only itself.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct("!II")  # bytes of the header, bytes of the payload
MAX_HEADER_BYTES = 65_536
_CHUNK_BYTES = 1 << 20


class ChannelClosedError(ConnectionError):
    """The other side is gone."""


class ProtocolError(ValueError):
    """The other side sent something that is not a frame of the agreed size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message: ``header["type"]`` says what it is; ``payload`` carries arrays; ``fds`` are now owned by the reader."""

    header: dict[str, Any]
    payload: bytes = b""
    fds: tuple[int, ...] = ()


class Channel:
    """One end of the socket. ``accept_fds`` is True only in the candidate's processes, never in the referee."""

    def __init__(self, sock: socket.socket, *, max_payload_bytes: int = 0, accept_fds: bool = False) -> None:
        self._socket = sock
        self._max_payload_bytes = max_payload_bytes
        self._accept_fds = accept_fds
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._unwritten = bytearray()

    @classmethod
    def from_fd(cls, fd: int, *, max_payload_bytes: int = 1 << 31, accept_fds: bool = True) -> Channel:
        """Adopt an inherited descriptor (a candidate's side)."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd), max_payload_bytes=max_payload_bytes, accept_fds=accept_fds)

    @classmethod
    def pair(cls, *, max_payload_bytes: int = 0) -> tuple[Channel, socket.socket]:
        """Return the referee's end and the raw socket that the child inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours, max_payload_bytes=max_payload_bytes), theirs

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def allow_payload_bytes(self, limit: int) -> None:
        """Set the largest payload that the next frames may carry."""
        self._max_payload_bytes = limit

    def send(
        self,
        header: dict[str, Any],
        payload: bytes | memoryview = b"",
        *,
        fds: Sequence[int] = (),
        timeout_seconds: float | None = None,
    ) -> None:
        """Write one frame; raises `ChannelClosedError` when the reader is gone or does not read within the timeout."""
        encoded = json.dumps(header).encode()
        head = _LENGTHS.pack(len(encoded), len(payload)) + encoded
        self._socket.settimeout(timeout_seconds)
        try:
            if fds:
                sent = socket.send_fds(self._socket, [head], list(fds))
                head = head[sent:]
            self._socket.sendall(head)
            if payload:  # a reader that has the whole frame may be gone by now
                self._socket.sendall(payload)
        except OSError as error:
            raise ChannelClosedError(f"the process at the other end does not read: {error}") from error

    def queue(self, header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Take one frame, which `flush` writes: for who must not wait for a reader that may be writing itself."""
        encoded = json.dumps(header).encode()
        self._unwritten += _LENGTHS.pack(len(encoded), len(payload)) + encoded
        self._unwritten += payload

    @property
    def has_unwritten(self) -> bool:
        """True while something queued is not written."""
        return bool(self._unwritten)

    def flush(self) -> None:
        """Write as much of what is queued as the socket takes now; raises `ChannelClosedError` when the reader is gone."""
        self._socket.setblocking(False)
        try:
            while self._unwritten:
                sent = self._socket.send(self._unwritten)
                del self._unwritten[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosedError(f"the process at the other end does not read: {error}") from error

    def poll(self) -> list[Frame]:
        """Return the complete frames that have arrived, without waiting (the referee's event loop)."""
        self._socket.setblocking(False)
        closed = False
        for _ in range(8):  # bounded, so that a peer that floods cannot hold the caller
            try:
                chunk = self._read_chunk()
            except BlockingIOError:
                break
            except ConnectionError:  # it died with unread data; what it said before still counts
                chunk = b""
            if not chunk:
                closed = True
                break
            self._buffer += chunk
        frames = []
        while (frame := self._take_frame()) is not None:
            frames.append(frame)
        if closed and not frames:
            raise ChannelClosedError("the process at the other end closed the channel")
        return frames

    def receive(self, *, timeout_seconds: float | None = None) -> Frame:
        """Wait for one frame; raises `TimeoutError` when it does not arrive whole in time."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (frame := self._take_frame()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("no answer within the time limit")
            self._socket.settimeout(left)
            try:
                chunk = self._read_chunk()
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise TimeoutError("no answer within the time limit") from error
                raise ChannelClosedError(str(error)) from error
            if not chunk:
                raise ChannelClosedError("the process at the other end closed the channel")
            self._buffer += chunk
        return frame

    def _read_chunk(self) -> bytes:
        if not self._accept_fds:
            return self._socket.recv(_CHUNK_BYTES)
        chunk, fds, _, _ = socket.recv_fds(self._socket, _CHUNK_BYTES, 4)
        self._fds += fds
        return chunk

    def _take_frame(self) -> Frame | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        header_bytes, payload_bytes = _LENGTHS.unpack_from(self._buffer)
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > self._max_payload_bytes:
            raise ProtocolError(f"a frame of {header_bytes} + {payload_bytes} bytes is larger than agreed")
        end = _LENGTHS.size + header_bytes + payload_bytes
        if len(self._buffer) < end:
            return None
        raw = bytes(self._buffer[_LENGTHS.size : _LENGTHS.size + header_bytes])
        payload = bytes(self._buffer[_LENGTHS.size + header_bytes : end])
        del self._buffer[:end]
        fds, self._fds = tuple(self._fds), []
        try:
            header = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("a frame's header is not JSON") from error
        if not isinstance(header, dict) or not isinstance(header.get("type"), str):
            raise ProtocolError("a frame's header has no type")
        return Frame(header=header, payload=payload, fds=fds)
