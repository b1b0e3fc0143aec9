"""The MCP application: the tools of `tools.catalog` over a lab, and the one place where domain errors become MCP errors.

A tool runs in a worker thread and may be abandoned by its client at any moment; training never depends on a request. The
lab is opened by the first call, so a client sees the tools at once, and a folder that is no lab yet gets an answer that
says which command makes one. A lab that exists is opened without a call, a moment after the start: any window of a client
then keeps the queue moving, also one that nobody uses, when the server of another was killed.
"""

from __future__ import annotations

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
import anyio.from_thread
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from ..lab.disk import disk_errors_told
from ..lab.dispatch import dispatch
from ..lab.errors import LabError, NotReadyError
from ..lab.executor import Progress
from ..lab.git import GitRepository
from ..lab.identity import recorded_identity, state_of
from ..lab.lab import Lab, find_lab_root
from ..prepare.errors import PrepareError
from ..tools.catalog import TOOLS, Tool
from ..tools.results import Answer
from .callers import as_caller
from .instructions import INSTRUCTIONS
from .prompts import add_prompts

_DISPATCH_SECONDS = 1.0
_OPEN_SECONDS = 2.0  # after the start, when clients have listed the tools
_MAX_WAITING = 512  # calls that wait for a verdict at the same time, from all clients
_INJECTED = ("lab", "on_progress")
ERROR_KIND = "autoresearch/error"  # key in `_meta` of an error: the name of its class, for programs; the text is for models


class LabHolder:
    """Opens the lab when it is first needed, and keeps its queue moving while the server lives.

    Where ``exists`` says that there is a lab, it is opened soon, needed or not, which makes nothing and complains of nothing.
    """

    def __init__(self, open_lab: Callable[[], Lab], exists: Callable[[], bool], stopping: threading.Event) -> None:
        self._open = open_lab
        self._exists = exists
        self.stopping = stopping
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
                await anyio.to_thread.run_sync(_quietly, partial(dispatch, self._lab))

    def close(self) -> None:
        if self._lab is not None:
            self._lab.close()

    def _open_existing(self) -> None:
        if self._lab is None and self._exists():
            self.get()


def build_server(
    open_lab: Callable[[], Lab], *, exists: Callable[[], bool] | None = None, stopping: threading.Event | None = None
) -> MCPServer:
    """Return the MCP server; ``open_lab`` is called once, by the first tool call, or soon where a lab ``exists``.

    Once ``stopping`` is set, the calls that wait for a verdict are answered at once.
    """
    holder = LabHolder(open_lab, exists or (lambda: False), threading.Event() if stopping is None else stopping)

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
    )
    for tool in TOOLS:
        server.add_tool(
            _handler(tool, holder),
            name=tool.name,
            title=tool.title,
            description=inspect.getdoc(tool.function),
            annotations=ToolAnnotations(
                title=tool.title,
                read_only_hint=tool.read_only,
                destructive_hint=tool.destructive,
                idempotent_hint=tool.idempotent,
                open_world_hint=tool.open_world,
            ),
        )
    add_prompts(server, holder.get)
    return server


def serve_stdio(folder: Path, *, budget_seconds: float | None = None) -> None:
    """Serve the lab around ``folder`` on standard input and output until the client closes it, or a signal ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else it waits for the input, which a thread reads, to be closed as well
    open_lab = partial(Lab.open, folder, budget_seconds=budget_seconds)
    build_server(open_lab, exists=partial(has_record, folder)).run()


def has_record(folder: Path) -> bool:
    """Say whether the lab around ``folder`` has been opened before on this machine; writes nothing."""
    try:
        git = GitRepository.discover(find_lab_root(folder))
    except LabError:
        return False
    lab_id = recorded_identity(git.common_dir)
    return lab_id is not None and state_of(lab_id).ledger.is_file()


def _handler(tool: Tool, holder: LabHolder) -> Callable[..., Any]:
    """Return a coroutine function with the tool's own parameters, without the lab that the server supplies."""
    hints = get_type_hints(tool.function, include_extras=True)
    takes_progress = "on_progress" in hints

    async def handle(ctx: Context, **arguments: Any) -> CallToolResult:
        extra = {"on_progress": partial(_report_progress, ctx, holder.stopping)} if takes_progress else {}
        limiter = holder.waiting if takes_progress else None
        try:
            call = partial(_call, tool, holder, as_caller(ctx, tool, arguments), extra)
            answer = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        except ToolError as error:
            text = TextContent(type="text", text=f"Error executing tool {tool.name}: {error}")
            return CallToolResult(content=[text], is_error=True, _meta={ERROR_KIND: type(error.__cause__).__name__})
        return CallToolResult(
            content=[TextContent(type="text", text=answer.text())],
            structured_content=answer.model_dump(mode="json"),
        )

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


def _call(tool: Tool, holder: LabHolder, arguments: dict[str, Any], extra: dict[str, Any]) -> Answer:
    """Run a tool; the only place that turns the lab's errors into what the model reads."""
    try:
        with disk_errors_told():
            return tool.function(holder.get(), **arguments, **extra)
    except (LabError, PrepareError) as error:
        raise ToolError(str(error)) from error


def _report_progress(ctx: Context, stopping: threading.Event, progress: Progress) -> None:
    """Tell the client; ends the waiting of a call whose client is gone or whose server ends, and nothing but the waiting."""
    anyio.from_thread.check_cancelled()
    if stopping.is_set():
        raise NotReadyError("This server is ending; the experiment goes on. Call wait_experiment again once it is back.")
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    loss = "".join(f", {name} {value:.4g}" for name, value in (progress.metrics or {}).items() if name == "loss")
    note = f" ({progress.note})" if progress.note else ""
    total = None if progress.seconds_left is None else progress.elapsed_seconds + progress.seconds_left
    anyio.from_thread.run(ctx.report_progress, progress.elapsed_seconds, total, f"{progress.phase}{left}{loss}{note}")


def _quietly(work: Callable[[], object]) -> None:
    """Do what nobody asked for; what fails here fails again, and is told, in the next call."""
    with suppress(LabError, PrepareError, OSError, sqlite3.Error, ValueError):  # ValueError: a file that is no JSON
        work()
