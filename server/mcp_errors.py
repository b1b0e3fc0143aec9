"""The one place where the lab's errors become errors of the protocol.

A tool's error is an answer that the model reads; a resource's is an error of the request, which most clients show to the
person: "no such experiment" as invalid parameters, everything else with its own text. What is no error of ours is a bug, and
keeps its text on the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import INVALID_PARAMS

from ..lab.disk import disk_errors_told
from ..lab.errors import LabError, UnknownExperimentError
from ..prepare.errors import PrepareError


@contextmanager
def told_to_the_model() -> Iterator[None]:
    """Raise what the lab refuses in the block as the `ToolError` that the model reads."""
    try:
        with disk_errors_told():
            yield
    except (LabError, PrepareError) as error:
        raise ToolError(str(error)) from error


@contextmanager
def told_to_the_reader() -> Iterator[None]:
    """Raise what the lab refuses in the block as the error of a resource."""
    try:
        with disk_errors_told():
            yield
    except UnknownExperimentError as error:
        raise ResourceNotFoundError(str(error)) from error
    except (LabError, PrepareError) as error:
        raise ResourceError(str(error)) from error


async def unknown_prompts_told(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Answer a request for a prompt that there is not, or with a missing argument, as invalid parameters: a middleware.

    The SDK raises ValueError for these, which a client would get as an error without a code, or as a bug of this server.
    """
    try:
        return await call_next(ctx)
    except ValueError as error:
        if ctx.method != "prompts/get":
            raise
        raise MCPError(INVALID_PARAMS, str(error)) from error
