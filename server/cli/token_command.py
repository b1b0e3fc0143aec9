"""The command with which a human decides who may use the lab over HTTP. No tool does this."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption


def token(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The researcher that gets a token, such as claude-2.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Say who has a token.")] = False,
    revoke: Annotated[str, typer.Option("--revoke", metavar="NAME", help="End the token of a researcher.")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a researcher's token for `serve --http`, and print it: once, since only its SHA-256 is kept.

    Whoever sends it is that researcher, in the record too. Once a lab has tokens, each HTTP request needs one; servers that run
    see what changed at once.
    """
    if (bool(name), list_, bool(revoke)).count(True) != 1:
        raise typer.BadParameter("name one researcher, or use --list or --revoke NAME", param_hint="NAME")
    with opened(lab) as this:
        path = this.state.tokens
    if list_:
        from ..tokens import read_tokens

        tokens = read_tokens(path)
        if as_json:
            rows = [{"researcher": one.researcher, "made_at": one.made_at} for one in tokens or ()]
            typer.echo(json.dumps({"file": str(path), "required": tokens is not None, "tokens": rows}))
            return
        for one in tokens or ():
            typer.echo(f"{one.researcher}  made {time.strftime('%Y-%m-%d %H:%M', time.localtime(one.made_at))}")
        if not tokens:
            typer.echo(
                _NOBODY.format(path=path) if tokens is not None else "No tokens: HTTP is open on this machine.", err=True
            )
        return
    if revoke:
        from ..tokens import revoke_token

        left = revoke_token(path, revoke)
        if as_json:
            typer.echo(json.dumps({"revoked": revoke, "left": [one.researcher for one in left]}))
            return
        typer.echo(f"Revoked the token of {revoke}: no server takes it from now on; an answer that it waits for still comes.")
        if not left:
            typer.echo(_NOBODY.format(path=path), err=True)
        return
    from ..tokens import make_token

    made = make_token(path, name)
    if as_json:
        typer.echo(json.dumps({"researcher": name, "token": made, "file": str(path)}))
        return
    typer.echo(made)
    typer.echo(_USE.format(name=name), err=True)


_NOBODY = """\
Nobody has a token now, so HTTP servers of this lab answer nobody. `autoresearch token NAME` makes one. To serve this machine
without tokens again, delete {path} and start the server anew."""

_USE = """\
This is the token of {name}; it is not shown again. A client sends it with each request, in the header
    Authorization: Bearer TOKEN
for example, with the token in the variable AUTORESEARCH_TOKEN:
    claude mcp add --transport http autoresearch http://127.0.0.1:8765/mcp --header "Authorization: Bearer $AUTORESEARCH_TOKEN"
    codex mcp add autoresearch --url http://127.0.0.1:8765/mcp --bearer-token-env-var AUTORESEARCH_TOKEN
The server: autoresearch serve --http 127.0.0.1:8765. To end the token: autoresearch token --revoke {name}"""
