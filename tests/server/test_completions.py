"""Completion of arguments, and requests for prompts that there are not, in both eras."""

from __future__ import annotations

from typing import Literal

import anyio
import pytest
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.app import build_server
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, PromptReference, ResourceTemplateReference

START = PromptReference(name="start")
DIFF = ResourceTemplateReference(uri="autoresearch://experiments/{id}/diff")

Era = Literal["legacy", "2026-07-28"]
ERAS: tuple[Era, ...] = ("legacy", "2026-07-28")


async def offered(client: Client, ref: PromptReference | ResourceTemplateReference, name: str, value: str) -> list[str]:
    return (await client.complete(ref, {"name": name, "value": value})).completion.values


@pytest.mark.parametrize("era", ERAS)
def test_names_of_the_lab_are_offered_the_newest_first(lab: Lab, era: Era) -> None:
    lab.start_session("twelfth", "ben")
    first = lab.session().tag

    async def use() -> None:
        async with Client(build_server(lambda: lab), mode=era) as client:
            tags = await offered(client, START, "tag", "")
            assert tags[0] == first
            assert len(tags) == 2
            assert await offered(client, START, "tag", "twe") == ["twelfth"]
            assert "ben" in await offered(client, START, "researcher", "b")
            assert await offered(client, DIFF, "id", "") == []
            assert await offered(client, START, "no such argument", "") == []

    anyio.run(use)


def test_where_there_is_no_lab_nothing_is_offered() -> None:
    def no_lab() -> Lab:
        raise NotReadyError("No lab here.")

    async def use() -> None:
        async with Client(build_server(no_lab)) as client:
            assert await offered(client, START, "tag", "") == []

    anyio.run(use)


@pytest.mark.parametrize("era", ERAS)
def test_a_prompt_that_there_is_not_is_an_invalid_parameter_and_no_bug(lab: Lab, era: Era) -> None:
    async def use() -> None:
        async with Client(build_server(lambda: lab), mode=era) as client:
            with pytest.raises(MCPError, match="Unknown prompt: nothing") as refused:
                await client.get_prompt("nothing")
            assert refused.value.error.code == INVALID_PARAMS

    anyio.run(use)
