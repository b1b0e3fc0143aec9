"""What a client may offer while a person types the argument of a prompt or the id in a resource's address.

Guarantees: a list of names that this lab has, the newest first, at most as many as the protocol allows; nothing where there is
no lab or no such argument. Never raises for what a lab refuses, and changes nothing that opening the lab does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio.to_thread
from mcp.server import MCPServer
from mcp.types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from ..lab.errors import LabError
from ..lab.lab import Lab
from ..prepare.errors import PrepareError

_MOST = 100  # the protocol's limit
_NEWEST = 1_000  # experiments among which is looked


def add_completions(server: MCPServer, get_lab: Callable[[], Lab]) -> None:
    """Let ``server`` complete arguments from the lab, which is opened by the first request."""

    @server.completion()
    async def complete(  # pyright: ignore[reportUnusedFunction]
        ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: CompletionContext | None
    ) -> Completion:
        names = await anyio.to_thread.run_sync(names_here, get_lab, argument.name)
        matching = [name for name in names if name.startswith(argument.value)]
        return Completion(values=matching[:_MOST], total=len(matching), has_more=len(matching) > _MOST)


def names_here(get_lab: Callable[[], Lab], argument: str) -> list[str]:
    """Return what an argument of this name may be: sessions, researchers or experiments of the lab."""
    find = _FINDERS.get(argument)
    if find is None:
        return []
    try:
        return list(dict.fromkeys(find(get_lab())))
    except (LabError, PrepareError):
        return []


def _sessions(lab: Lab) -> Iterable[str]:
    return (session.tag for session in lab.ledger.sessions())


def _researchers(lab: Lab) -> Iterable[str]:
    return (researcher.name for session in lab.ledger.sessions() for researcher in lab.ledger.researchers(session.tag))


def _experiments(lab: Lab) -> Iterable[str]:
    return (experiment.id for experiment in lab.ledger.experiments(order="rowid DESC", limit=_NEWEST))


_FINDERS: dict[str, Callable[[Lab], Iterable[str]]] = {
    "tag": _sessions,
    "session": _sessions,
    "researcher": _researchers,
    "id": _experiments,
    "experiment_id": _experiments,
}
