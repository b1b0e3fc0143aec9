"""The command that serves a lab's tools: to the one client that started it, or over HTTP to several."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import HERE, BudgetOption, LabOption


def serve(
    lab: LabOption = HERE,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Serve over HTTP, on a loopback address; port 0 is any free one."),
    ] = None,
    budget_seconds: BudgetOption = None,
) -> None:
    """Serve the lab's tools to an MCP client on standard input and output, or with --http to several at once.

    Over HTTP the tools are at http://HOST:PORT/mcp (streamable HTTP). The URL is printed on stderr; Ctrl-C or SIGTERM ends the
    server, never a training. All clients of one server share one session, each as a researcher of its own name.
    """
    if http is None:
        from ..app import serve_stdio

        serve_stdio(lab.resolve(), budget_seconds=budget_seconds)
        return
    from ..http import parse_address, serve_http

    try:
        address = parse_address(http)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--http") from None
    serve_http(lab.resolve(), address, budget_seconds=budget_seconds)
