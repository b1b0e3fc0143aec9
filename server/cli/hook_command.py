"""The command that a client's hook runs. Whatever goes wrong, the agent may stop: exit 0, `{}`, and one line on stderr.

An exit status of 2 would tell Claude Code, Codex and Gemini CLI to hold the agent, so not even a wrong option ends with it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

_WRONG_USE: type[Exception] = typer.BadParameter.__bases__[0]  # typer has no public name for it
_MOST_SECONDS = 10.0  # for a client that does not close its end, or a disk that does not answer


class HookGroup(TyperGroup):
    """Hook commands, whose wrong use is told and does not count as an answer."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _WRONG_USE as error:
            _let_go(str(error))


hook = typer.Typer(cls=HookGroup, help="What clients' hooks run.")


@hook.callback()
def _hooks() -> None:
    """What clients' hooks run; see docs/CLIENTS.md."""


@hook.command()
def stop(
    client: Annotated[str, typer.Option(metavar="NAME", help="claude-code, codex, gemini or cursor.")],
    lab: Annotated[
        Path | None, typer.Option("--lab", metavar="DIR", help="The lab.", show_default="the one that the client serves")
    ] = None,
) -> None:
    """Answer a client whose agent is about to stop: it goes on while its session does. Reads the client's JSON on stdin.

    Outside a session that this client's agent began, in a paused lab, and where a stop rule is met, the agent may stop.
    """
    limit = threading.Timer(_MOST_SECONDS, _let_go, (f"no answer within {_MOST_SECONDS:g} s",))
    limit.daemon = True
    limit.start()
    try:
        answer = _answer(client, lab)
    except Exception as error:  # noqa: BLE001 - whatever it is, an agent must be able to stop
        _let_go(f"{type(error).__name__}: {' '.join(str(error).split())}")
    _print(answer)


def _answer(client: str, lab: Path | None) -> str:
    import json

    from ..hooks import CLIENTS, MOST_INPUT_BYTES, answer_stop

    if client not in CLIENTS:
        raise ValueError(f"no client {client!r}; there is {', '.join(CLIENTS)}")
    given = sys.stdin.buffer.read(MOST_INPUT_BYTES + 1)
    return json.dumps(answer_stop(client, given, lab))


def _let_go(why: str) -> NoReturn:
    print(f"autoresearch: the hook lets the agent stop: {why}", file=sys.stderr, flush=True)
    _print("{}")


def _print(answer: str) -> NoReturn:
    """Answer, and end at once: no thread and no clean-up can change the answer any more."""
    print(answer, flush=True)
    os._exit(0)
