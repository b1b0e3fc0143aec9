"""Arguments that a tool does not have, and values that it does not take, are refused before anything is done."""

from __future__ import annotations

from typing import Any

from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.strict_tool import without_titles
from mcp import Client
from mcp.types import CallToolResult

from .connected import connected, in_both_eras, text_of


def call(lab: Lab, era: str, name: str, arguments: dict[str, Any]) -> CallToolResult:
    return connected(lab.root, lambda client: client.call_tool(name, arguments), era=era)


@in_both_eras
def test_an_unknown_argument_is_named_with_those_there_are_and_nothing_is_done(lab: Lab, era: str) -> None:
    result = call(lab, era, "run_experiment", {"description": "baseline", "hypotesis": "it helps", "wait_seconds": 0})
    assert result.is_error
    told = text_of(result)
    assert "run_experiment has no argument 'hypotesis'" in told
    assert "Did you mean 'hypothesis'?" in told
    assert "description, hypothesis, researcher, again, wait_seconds" in told
    assert lab.ledger.count_experiments() == 0


@in_both_eras
def test_what_the_server_supplies_itself_cannot_be_given(lab: Lab, era: str) -> None:
    async def use(client: Client) -> None:
        for name in ("ctx", "lab", "on_progress", "self", "arguments", ""):
            result = await client.call_tool("wait_experiment", {"experiment_id": "e0001", name: "x"})
            assert result.is_error
            assert f"no argument {name!r}" in text_of(result)

    connected(lab.root, use, era=era)


@in_both_eras
def test_a_tool_without_arguments_says_so(lab: Lab, era: str) -> None:
    result = call(lab, era, "status", {f"{number}{'x' * 5_000}": number for number in range(40)})
    told = text_of(result)
    assert "It has no arguments." in told
    assert "35 more" in told
    assert len(told) < 1_000


@in_both_eras
def test_a_wrong_value_and_a_missing_argument_are_told_in_one_line_each(lab: Lab, era: str) -> None:
    told = text_of(call(lab, era, "history", {"page": 0, "sort": "x" * 5_000}))
    assert "page: input should be greater than or equal to 1, not 0" in told
    assert "sort: input should be 'match', 'newest', 'oldest', 'best', 'gain' or 'near_miss'" in told
    assert "pydantic" not in told
    assert len(told) < 500
    assert "experiment_id is missing" in text_of(call(lab, era, "keep", {}))


def test_a_property_called_title_stays_when_titles_go() -> None:
    schema = {"title": "T", "properties": {"title": {"title": "Title", "type": "string"}}, "$defs": {"title": {"title": "D"}}}
    assert without_titles(schema) == {"properties": {"title": {"type": "string"}}, "$defs": {"title": {}}}
