"""A client in memory, connected to a server of a lab, in either protocol era."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.app import build_server
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

ResultT = TypeVar("ResultT")

in_both_eras = pytest.mark.parametrize("era", ["auto", "legacy"])


def connected(folder: Path, use: Callable[[Client], Awaitable[ResultT]], *, era: str = "auto") -> ResultT:
    """Return what ``use`` returns with a client of the lab in ``folder``."""

    async def connect() -> ResultT:
        async with Client(build_server(partial(Lab.open, folder, pinned=False)), mode=era) as client:
            return await use(client)

    return anyio.run(connect)


def text_of(result: CallToolResult) -> str:
    """Return the text of an answer, whatever is beside it."""
    (text,) = [part.text for part in result.content if isinstance(part, TextContent)]
    return text


def picture_of(result: CallToolResult) -> bytes | None:
    """Return the PNG beside an answer; None: there is none."""
    pictures = [part for part in result.content if isinstance(part, ImageContent)]
    assert all(picture.mime_type == "image/png" for picture in pictures)
    return base64.b64decode(pictures[0].data, validate=True) if pictures else None
