"""What a client sees of the tools, prompts and resources, byte for byte as it goes over the wire, in both protocol eras.

    pytest tests/server/test_snapshots.py --update-snapshots

writes it down anew after a change that is meant; the commit then shows what changes for every client.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.app import build_server
from autoresearch_mcp.tools.catalog import TOOLS
from mcp import Client
from pydantic import BaseModel

FOLDER = Path(__file__).parent / "snapshots"
UPDATE = "pytest tests/server/test_snapshots.py --update-snapshots"
NAMES = sorted([*(tool.name for tool in TOOLS), "prompts", "resources"])
MOST_TOOLS = 16
LONGEST_DESCRIPTION = 600  # characters
ERAS = ["auto", "legacy"]


def refuse() -> Lab:
    raise AssertionError("listing opens no lab")


def wire(listed: Iterable[BaseModel]) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in listed]


@cache
def surface(era: str) -> dict[str, Any]:
    """Return what a client of an era is told, by the name of the snapshot."""

    async def look() -> dict[str, Any]:
        async with Client(build_server(refuse), mode=era) as client:
            tools = wire((await client.list_tools()).tools)
            return {
                **{tool["name"]: tool for tool in tools},
                "prompts": wire((await client.list_prompts()).prompts),
                "resources": {
                    "resources": wire((await client.list_resources()).resources),
                    "resourceTemplates": wire((await client.list_resource_templates()).resource_templates),
                },
            }

    return anyio.run(look)


@pytest.mark.parametrize("name", NAMES)
def test_a_client_sees_what_the_snapshot_says(name: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / f"{name}.json"
    found = json.dumps(surface("auto")[name], indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--update-snapshots", default=False):
        path.write_text(found)
    known = path.read_text() if path.exists() else ""
    changes = difflib.unified_diff(known.splitlines(), found.splitlines(), str(path), "what a client sees now", lineterm="")
    assert known == found, "\n".join([*changes, f"If this is meant: {UPDATE}"])


def test_there_is_no_snapshot_of_what_is_gone() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES


def test_both_protocol_eras_see_the_same() -> None:
    assert surface("legacy") == surface("auto")


def test_there_are_at_most_sixteen_tools() -> None:
    assert len(TOOLS) <= MOST_TOOLS


@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS])
def test_a_description_says_when_to_use_a_tool_and_what_comes_next(tool: str) -> None:
    description = surface("auto")[tool]["description"]
    assert "Next: " in description
    assert len(description) <= LONGEST_DESCRIPTION


@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS])
def test_the_schemas_say_no_name_twice_and_refuse_what_they_do_not_name(tool: str) -> None:
    shown = surface("auto")[tool]
    assert shown["inputSchema"]["additionalProperties"] is False
    assert "title" not in shown["inputSchema"]
    assert "title" not in shown["outputSchema"]
    for properties in (shown["inputSchema"]["properties"], shown["outputSchema"]["properties"]):
        assert all("title" not in schema for schema in properties.values())
