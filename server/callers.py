"""Which researcher calls, where the transport knows it: over HTTP, each token is one researcher's.

Guarantees: the name comes from the request that is being answered, since the modern protocol has no sessions that could
remember one; a call cannot speak for another researcher than its token's. Without tokens nobody is identified, and calls say
for whom they are where several work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from ..lab.caller import called_by, caller
from ..lab.errors import NotReadyError
from ..lab.researchers import one_line
from ..tools.catalog import Tool

_PARAMETER = "researcher"


def identity_of(researcher: str) -> AuthenticatedUser:
    """Return what stands for a researcher in an HTTP request's scope; mcp also binds a session to whoever opened it by this.

    The token itself is not in it.
    """
    return AuthenticatedUser(AccessToken(token="-", client_id=researcher, scopes=[]))


async def identify(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Answer a message as a call of the researcher whose token came with it: the middleware of a server that has tokens."""
    scope = getattr(ctx.request, "scope", {})
    user = scope.get("user")
    with called_by(user.access_token.client_id if isinstance(user, AuthenticatedUser) else ""):
        return await call_next(ctx)


def as_caller(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments, with the researcher filled in whom the transport has identified.

    Raises:
        NotReadyError: the call names another researcher than the token's.
    """
    name = caller()
    if not name or _PARAMETER not in inspect.signature(tool.function).parameters:
        return dict(arguments)
    given = one_line(str(arguments.get(_PARAMETER) or ""))
    if given not in ("", name):
        raise NotReadyError(
            f"Your token is that of the researcher {name!r}, so you cannot call as {given!r}: leave researcher out. Each "
            "researcher has a token of its own; the human makes one with `autoresearch token NAME`."
        )
    return {**arguments, _PARAMETER: name}
