"""The MCP application: the tools of `tools.catalog` over a lab, with its resources and prompts.

A tool runs in a worker thread and may be abandoned by its client at any moment; training never depends on a request. The
lab is opened by the first call, so a client sees the tools at once, and a folder that is no lab yet gets an answer that
says which command makes one. A lab that exists is opened without a call, a moment after the start: any window of a client
then keeps the queue moving, also one that nobody uses, when the server of another was killed.
"""

from __future__ import annotations

import base64
import inspect
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent, ToolAnnotations

from ..lab.dispatch import dispatch
from ..lab.errors import LabError
from ..lab.git import GitRepository
from ..lab.identity import known_identity
from ..lab.lab import Lab, find_lab_root
from ..lab.states import RunState
from ..prepare.errors import PrepareError
from ..tools.catalog import TOOLS, Tool
from ..tools.results import Answer
from .attendance import Attending
from .awake import Awake
from .callers import as_caller
from .completions import add_completions
from .instructions import INSTRUCTIONS
from .mcp_errors import told_to_the_model, unknown_prompts_told
from .plot_curves import chart_png
from .progress import ProgressReporter
from .prompts import add_prompts
from .resources import add_resources
from .strict_tool import strict_tool

_DISPATCH_SECONDS = 1.0
_OPEN_SECONDS = 2.0  # after the start, when clients have listed the tools
_MAX_WAITING = 512  # calls that wait for a verdict at the same time, from all clients
_INJECTED = ("lab", "on_progress")
ERROR_KIND = "autoresearch/error"  # key in `_meta` of an error: the name of its class, for programs; the text is for models


class LabHolder:
    """Opens the lab when it is first needed, and keeps its queue moving while the server lives.

    Where ``exists`` says that there is a lab, it is opened soon, needed or not, which makes nothing and complains of nothing.
    """

    def __init__(
        self, open_lab: Callable[[], Lab], exists: Callable[[], bool], stopping: threading.Event, attending: Attending | None
    ) -> None:
        self._open = open_lab
        self._exists = exists
        self.stopping = stopping
        self.attending = attending
        self._awake = Awake()
        self._lock = threading.Lock()
        self._lab: Lab | None = None
        # Calls that wait for a verdict hold a thread for minutes; among the others' forty they would keep `status` out.
        self.waiting = anyio.CapacityLimiter(_MAX_WAITING)

    def get(self) -> Lab:
        with self._lock:
            if self._lab is None:
                self._lab = self._open()
            return self._lab

    async def keep_dispatching(self) -> None:
        """Start queued runs and record finished ones even when no tool is called."""
        await anyio.sleep(_OPEN_SECONDS)
        await anyio.to_thread.run_sync(_quietly, self._open_existing)
        while True:
            await anyio.sleep(_DISPATCH_SECONDS)
            if self._lab is not None:
                await anyio.to_thread.run_sync(_quietly, partial(self._move_along, self._lab))

    def _move_along(self, lab: Lab) -> None:
        dispatch(lab)
        self._awake.look(bool(lab.ledger.runs_in_state(RunState.RUNNING)))

    def close(self) -> None:
        self._awake.close()
        if self.attending is not None:
            self.attending.close()
        if self._lab is not None:
            self._lab.close()

    def _open_existing(self) -> None:
        if self._lab is None and self._exists():
            self.get()


def build_server(
    open_lab: Callable[[], Lab],
    *,
    exists: Callable[[], bool] | None = None,
    stopping: threading.Event | None = None,
    attending: Attending | None = None,
) -> MCPServer:
    """Return the MCP server; ``open_lab`` is called once, by the first tool call, or soon where a lab ``exists``.

    Once ``stopping`` is set, the calls that wait for a verdict are answered at once. ``attending`` notes for the hook of the
    one client what it does.
    """
    holder = LabHolder(open_lab, exists or (lambda: False), stopping or threading.Event(), attending)

    @asynccontextmanager
    async def lifespan(_: MCPServer) -> AsyncIterator[LabHolder]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(holder.keep_dispatching)
                yield holder
                tasks.cancel_scope.cancel()
        finally:
            holder.close()

    server = MCPServer(
        "autoresearch",
        title="autoresearch: ML research with a referee",
        version=version("autoresearch-mcp"),
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        tools=[
            strict_tool(
                _handler(tool, holder),
                name=tool.name,
                title=tool.title,
                description=inspect.getdoc(tool.function) or "",
                annotations=ToolAnnotations(
                    title=tool.title,
                    read_only_hint=tool.read_only,
                    destructive_hint=tool.destructive,
                    idempotent_hint=tool.idempotent,
                    open_world_hint=tool.open_world,
                ),
            )
            for tool in TOOLS
        ],
    )
    add_resources(server, holder.get)
    add_prompts(server, holder.get)
    add_completions(server, holder.get)
    server.middleware.append(unknown_prompts_told)
    return server


def serve_stdio(folder: Path, *, budget_seconds: float | None = None, autopilot: bool = False) -> None:
    """Serve the lab around ``folder`` on standard input and output until the client closes it, or a signal ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else it waits for the input, which a thread reads, to be closed as well
    open_lab = partial(Lab.open, folder, budget_seconds=budget_seconds, autopilot=autopilot)
    build_server(open_lab, exists=partial(has_record, folder), attending=Attending()).run()


def has_record(folder: Path) -> bool:
    """Say whether the lab around ``folder`` has been opened before on this machine; writes nothing."""
    try:
        git = GitRepository.discover(find_lab_root(folder))
    except LabError:
        return False
    identity = known_identity(git.common_dir)
    return identity is not None and identity.state.ledger.is_file()


def _handler(tool: Tool, holder: LabHolder) -> Callable[..., Any]:
    """Return a coroutine function with the tool's own parameters, without the lab that the server supplies."""
    hints = get_type_hints(tool.function, include_extras=True)
    takes_progress = "on_progress" in hints

    async def handle(ctx: Context, **arguments: Any) -> CallToolResult:
        extra = {"on_progress": ProgressReporter(ctx, holder.stopping)} if takes_progress else {}
        limiter = holder.waiting if takes_progress else None
        try:
            call = partial(_call, tool, holder, arguments, extra)
            answer, picture = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        except ToolError as error:
            text = TextContent(type="text", text=f"Error executing tool {tool.name}: {error}")
            return CallToolResult(content=[text], is_error=True, _meta={ERROR_KIND: type(error.__cause__).__name__})
        content: list[ContentBlock] = [TextContent(type="text", text=answer.text())]
        if picture is not None:
            content.append(ImageContent(type="image", data=base64.b64encode(picture).decode(), mime_type="image/png"))
        return CallToolResult(content=content, structured_content=answer.model_dump(mode="json"))

    parameters = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(tool.function).parameters.items()
        if name not in _INJECTED
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=Context)
    result_type = Annotated[CallToolResult, hints["return"]]
    signature = inspect.Signature([*parameters, context], return_annotation=result_type)
    handle.__signature__ = signature  # type: ignore[attr-defined]
    handle.__annotations__ = {**{p.name: p.annotation for p in parameters}, "ctx": Context, "return": result_type}
    handle.__name__ = tool.name
    return handle


def _call(tool: Tool, holder: LabHolder, arguments: dict[str, Any], extra: dict[str, Any]) -> tuple[Answer, bytes | None]:
    """Run a tool, and draw what its answer says is to be drawn beside it, as a PNG."""
    with told_to_the_model():
        answer = tool.function(holder.get(), **as_caller(tool, arguments), **extra)
        if holder.attending is not None:
            holder.attending.note(holder.get(), tool.name)
        return answer, None if answer.chart is None else chart_png(answer.chart)


def _quietly(work: Callable[[], object]) -> None:
    """Do what nobody asked for; what fails here fails again, and is told, in the next call."""
    with suppress(LabError, PrepareError, OSError, sqlite3.Error, ValueError):  # ValueError: a file that is no JSON
        work()
