"""The MCP surface, through the real client in memory and over stdio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.app import build_server
from autoresearch_mcp.server.instructions import INSTRUCTIONS
from autoresearch_mcp.tools.catalog import TOOLS
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import CallToolResult, TextContent

MakeLab = Callable[..., Lab]


def with_client(lab: Lab, use: Callable[[Client], Any], *, mode: str = "auto") -> Any:
    """Run ``use`` with a client that is connected to a server of ``lab``'s folder."""

    async def connect() -> Any:
        async with Client(build_server(partial(Lab.open, lab.root)), mode=mode) as client:
            return await use(client)

    return anyio.run(connect)


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def call(lab: Lab, name: str, **arguments: Any) -> CallToolResult:
    return with_client(lab, lambda client: client.call_tool(name, arguments))


def test_every_tool_has_a_title_a_description_schemas_and_all_annotations(make_lab: MakeLab) -> None:
    listed = with_client(make_lab(), lambda client: client.list_tools()).tools
    assert [tool.name for tool in listed] == [tool.name for tool in TOOLS]
    for tool in listed:
        assert tool.title
        assert len(tool.description or "") > 40
        assert tool.output_schema is not None
        hints = tool.annotations
        assert hints is not None
        assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert "lab" not in tool.input_schema.get("properties", {})
        assert "ctx" not in tool.input_schema.get("properties", {})
        for name, schema in tool.input_schema.get("properties", {}).items():
            assert schema.get("description"), f"{tool.name}.{name} has no description"


def test_no_tool_needs_an_approval_in_a_client_that_goes_by_annotations() -> None:
    assert all(tool.read_only or (not tool.destructive and not tool.open_world) for tool in TOOLS)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_instructions_tell_the_loop_in_both_protocol_eras(make_lab: MakeLab, mode: str) -> None:
    async def instructions(client: Client) -> str | None:
        return client.instructions

    assert with_client(make_lab(), instructions, mode=mode) == INSTRUCTIONS
    assert len(INSTRUCTIONS) < 1500
    for name in ("read_program", "start_session", "run_experiment", "wait_experiment", "keep", "revert", "history"):
        assert name in INSTRUCTIONS


def test_structured_and_text_output_are_each_complete(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.start_session("today", "tester")
    for name in ("read_program", "status", "history", "start_session", "report"):
        result = call(lab, name)
        assert not result.is_error
        structured = result.structured_content
        assert structured is not None
        text = text_of(result)
        assert len(text.encode()) < 10_000
        assert len(json.dumps(structured).encode()) < 10_000
        for step in structured["next"]:
            assert step in text
        assert structured["ledger_head"][:12] in text


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("run_experiment", {"description": "an idea"}, "start_session"),
        ("keep", {"experiment_id": "e0099"}, "run_experiment"),
        ("show_experiment", {"experiment_id": "nonsense"}, "history"),
        ("start_session", {"tag": "Not A Tag!"}, "tag"),
    ],
)
def test_an_error_reaches_the_model_and_names_the_next_call(
    make_lab: MakeLab, name: str, arguments: dict[str, Any], expected: str
) -> None:
    result = call(make_lab(), name, **arguments)
    assert result.is_error
    assert expected in text_of(result)


def test_a_folder_that_is_no_lab_still_lists_the_tools_and_names_init(tmp_path: Path) -> None:
    async def use(client: Client) -> tuple[int, str]:
        listed = await client.list_tools()
        return len(listed.tools), text_of(await client.call_tool("status", {}))

    async def connect() -> tuple[int, str]:
        async with Client(build_server(partial(Lab.open, tmp_path))) as client:
            return await use(client)

    count, message = anyio.run(connect)
    assert count == len(TOOLS)
    assert "autoresearch init" in message


def test_wrong_arguments_are_told_to_the_model(make_lab: MakeLab) -> None:
    result = call(make_lab(), "history", page=0)
    assert result.is_error
    assert "page" in text_of(result)


def test_tools_are_listed_within_three_seconds_of_a_cold_start(make_lab: MakeLab) -> None:
    lab = make_lab()

    async def start() -> float:
        started = time.monotonic()
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "autoresearch_mcp.server.cli", "serve", "--lab", str(lab.root)],
            env=dict(os.environ),
        )
        async with Client(parameters) as client:
            await client.list_tools()
            return time.monotonic() - started

    assert any(anyio.run(start) < 3.0 for _ in range(10))  # the first that is: CI machines are shared


def test_serving_imports_neither_torch_nor_numpy_nor_charts() -> None:
    code = (
        "import sys, autoresearch_mcp.server.app, autoresearch_mcp.server.cli\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'rich', 'git', 'tiktoken'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_agent_runs_the_loop_over_stdio(make_lab: MakeLab, train_py: str) -> None:
    lab = make_lab(seconds=1.5)

    async def loop(client: Client) -> list[dict[str, Any]]:
        async def tool(name: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, text_of(result)
            assert result.structured_content is not None
            return result.structured_content

        async def experiment(description: str) -> dict[str, Any]:
            answer = await tool("run_experiment", description=description, wait_seconds=0.0)
            while answer["state"] != "finished":
                answer = await tool(
                    "wait_experiment",
                    experiment_id=answer["experiment"]["id"],
                    after=answer["elapsed_seconds"] or 0.0,
                    wait_seconds=5.0,
                )
            return answer

        await tool("read_program")
        await tool("start_session", tag="loop", researcher="a test")
        baseline = await experiment("baseline")
        assert baseline["experiment"]["decision"] == "kept"
        lab.workspace.train.write_text(train_py.replace("LEARNING_RATE = 0.05", "LEARNING_RATE = 0.0"))
        frozen = await experiment("do not learn")
        assert frozen["experiment"]["verdict"] == "worse"
        refused = await client.call_tool("keep", {"experiment_id": frozen["experiment"]["id"]})
        assert refused.is_error
        await tool("revert", experiment_id=frozen["experiment"]["id"], lesson="learning needs a rate")
        assert lab.workspace.train.read_text() == train_py
        return (await tool("history", sort="oldest"))["experiments"]

    async def connect() -> list[dict[str, Any]]:
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "autoresearch_mcp.server.cli", "serve", "--lab", str(lab.root)],
            env=dict(os.environ),
        )
        async with Client(parameters) as client:
            return await loop(client)

    rows = anyio.run(connect)
    assert [(row["verdict"], row["decision"]) for row in rows] == [("improved", "kept"), ("worse", "reverted")]
    assert lab.ledger.verify() == []


@pytest.mark.slow
def test_a_run_outlives_the_server_and_is_recorded_by_the_next_one(make_lab: MakeLab) -> None:
    lab = make_lab(seconds=2.0)

    async def start(client: Client) -> str:
        await client.call_tool("start_session", {"tag": "orphan"})
        result = await client.call_tool("run_experiment", {"description": "baseline", "wait_seconds": 0.0})
        assert result.structured_content is not None
        return result.structured_content["experiment"]["id"]

    experiment_id = with_client(lab, start)  # the server is gone now
    answer = call(lab, "wait_experiment", experiment_id=experiment_id, wait_seconds=40.0).structured_content
    assert answer is not None
    assert answer["experiment"]["verdict"] == "improved", answer["reason"]
