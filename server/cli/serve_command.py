"""The command that serves a lab's tools: to the one client that started it, or over HTTP to several."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import HERE, BudgetOption, LabOption


def serve(
    lab: LabOption = HERE,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Serve over HTTP, such as 127.0.0.1:8765; port 0 is any free one."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name or address by which clients on other machines call it."),
    ] = None,
    budget_seconds: BudgetOption = None,
    autopilot: Annotated[bool, typer.Option("--autopilot", hidden=True)] = False,
) -> None:
    """Serve the lab's tools to an MCP client on standard input and output, or with --http to several at once.

    Over HTTP the tools are at http://HOST:PORT/mcp (streamable HTTP). The URL is printed on stderr; Ctrl-C or SIGTERM ends the
    server, never a training. All clients of one server share one session, each as a researcher of its own name. Once
    `autoresearch token NAME` has made a token, each request needs one. Other machines reach it by `ssh -L`, or on an address
    that is not loopback's, which needs a token and --allowed-host.
    """
    if http is None:
        if allowed_host:
            raise typer.BadParameter("it is about HTTP: add --http HOST:PORT", param_hint="--allowed-host")
        from ..app import serve_stdio

        serve_stdio(lab.resolve(), budget_seconds=budget_seconds, autopilot=autopilot)
        return
    from ..http import parse_address, parse_allowed_host, serve_http

    try:
        address = parse_address(http)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--http") from None
    try:
        hosts = tuple(dict.fromkeys(parse_allowed_host(name) for name in allowed_host or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--allowed-host") from None
    serve_http(lab.resolve(), address, allowed_hosts=hosts, budget_seconds=budget_seconds)
