"""A client that forgets everything after each call still researches: each answer alone says enough to go on.

It knows what it thinks of a train.py (`IDEAS`), and nothing else: before every step it reads where things stand anew, from one
source only, and does the first thing that is listed there, as it is printed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Decision, Verdict
from autoresearch_mcp.server.app import build_server
from mcp import Client
from mcp.types import TextContent, Tool

from ..quick.adopt import adopt_quick_runner
from .printed_calls import Call, calls_in

MakeLab = Callable[..., Lab]
Source = Literal["text", "structure", "resume"]

MOST_STEPS = 1_000  # most are waits, and there are more of them on a busy machine
RULES = "[wait]\nmax_seconds = 0.12\n[stop]\nexperiments = 8\n"

# By the name that tells them apart: what is replaced, and with what; the quick runner measures what the comments say.
IDEAS = {
    "WIDTH": ("WIDTH = 16\n", "WIDTH = 32\n# quick: minus=0.05\n"),
    "DEPTH": ("DEPTH = 2\n", "DEPTH = 3\n# quick: minus=-0.07\n"),
    "HEADS": ("\nmake_dataloader(", "HEADS = 4\n# quick: outcome=crashed\n\nmake_dataloader("),
    "RATE": ("\nmake_dataloader(", "RATE = 0.1\n# quick: minus=0.04 seconds=1.5\n\nmake_dataloader("),
    "DROPOUT": ("\nmake_dataloader(", "DROPOUT = 0.2\n# quick: outcome=timed_out\n\nmake_dataloader("),
    "BATCH": ("\nmake_dataloader(", "BATCH = 8\n# quick: minus=-0.001\n\nmake_dataloader("),
    "DECAY": ("\nmake_dataloader(", "DECAY = 0.1\n# quick: minus=0.03\n\nmake_dataloader("),
}


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the test, not the client, remembers of a session."""

    calls: Counter[str] = field(default_factory=Counter)
    entries: set[str] = field(default_factory=set)
    order: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the client knows at one moment."""

    words: str
    next: list[str]


class Forgetful:
    """See the module."""

    def __init__(self, client: Client, tools: dict[str, Tool], source: Source, seen: Seen) -> None:
        self._client, self._tools, self._source, self._seen = client, tools, source, seen

    async def step(self) -> bool:
        """Look where things stand and do the first thing that is listed; False: the end."""
        view = await self._look()
        assert view.next, view.words
        first = view.next[0]
        call = next(iter(calls_in(first, self._tools)), None)
        if first.startswith("edit "):
            await self._try_an_idea(view)
        elif call is not None and call.leads:
            await self._make(call, view)
        else:
            raise AssertionError(f"nothing to do: {view.next}")
        return not any(entry.startswith("stop here") for entry in view.next)

    async def _look(self) -> View:
        if self._source == "resume":
            (message,) = (await self._client.get_prompt("resume")).messages
            assert isinstance(message.content, TextContent)
            block = message.content.text.rpartition("\n\nNext:\n")[2].partition("\nledger ")[0]
            return self._view(message.content.text, block)
        result = await self._client.call_tool("read_program", {})
        (content,) = result.content
        assert isinstance(content, TextContent)
        if self._source == "text":
            return self._view(content.text, content.text.rpartition("\n\nNext:\n")[2])
        assert result.structured_content is not None
        return self._view(json.dumps(result.structured_content), result.structured_content["next"])

    def _view(self, words: str, listed: str | list[str]) -> View:
        entries = [line[2:] for line in listed.splitlines() if line.startswith("- ")] if isinstance(listed, str) else listed
        self._seen.entries |= set(entries)
        return View(words=words, next=entries)

    async def _try_an_idea(self, view: View) -> None:
        """One thought: it reads the file, and changes it; whether it did so is forgotten."""
        told = re.sub(r"never changed: [^\n\"]*", "", view.words)
        name = next(name for name in IDEAS if not re.search(rf"\b{name}\b", told))
        old, new = IDEAS[name]
        read = await self._call("read_train", {})
        assert read["content"].count(old) == 1
        await self._call("edit_train", {"old": old, "new": new, "expected_sha256": read["sha256"]})

    async def _make(self, call: Call, view: View) -> None:
        """Make a call as it is printed, with words of its own where that leaves room for them."""
        found = re.search(r"\((.*)\)", call.rest)
        filled = {"description": found[1] if found else "", "hypothesis": "why not", "reason": "a gain"}
        verdicts = re.findall(r"\b(worse|crashed|timed_out|within_noise)\b", view.words)
        filled["lesson"] = f"no gain: {verdicts[0] if verdicts else 'unclear'}"
        arguments = {name: filled[name] if value == "..." else value for name, value in call.arguments.items()}
        assert all(re.fullmatch(r"e\d{4}", value) is None or value in view.words for value in map(str, arguments.values()))
        await self._call(call.tool, arguments)

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        said = f"{tool} {arguments}"
        self._seen.calls[said] += 1
        self._seen.order.append(tool)
        assert self._seen.calls[said] == 1 or tool == "read_train", f"again: {said}"
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, (said, result.content)
        assert result.structured_content is not None
        self._seen.entries |= set(result.structured_content["next"])
        return result.structured_content


def research(lab: Lab, source: Source, seen: Seen, *, until: Callable[[Seen], bool] = lambda seen: False) -> bool:
    """Let one forgetful client after another work on one connection; True: it came to the end of the session."""

    async def work() -> bool:
        async with Client(build_server(partial(Lab.open, lab.root, pinned=False))) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            while len(seen.order) < MOST_STEPS:
                if not await Forgetful(client, tools, source, seen).step():
                    await look_around(client, tools, seen)
                    return True
                if until(seen):
                    return False
        raise AssertionError(f"stuck: {seen.order[-20:]}")

    return anyio.run(work)


async def look_around(client: Client, tools: dict[str, Tool], seen: Seen) -> None:
    """Ask for what a forgetful researcher does not need, and check every call that any answer has printed."""
    asked = [("show_experiment", {"experiment_id": "e0004", "part": part}) for part in ("summary", "diff", "log", "curve")]
    asked += [(name, {}) for name in ("history", "status", "report", "read_train", "read_program", "start_session")]
    for tool, arguments in [*asked, ("wait_experiment", {"experiment_id": "e0002"}), ("keep", {"experiment_id": "e0002"})]:
        result = await client.call_tool(tool, arguments)
        assert not result.is_error
        seen.entries |= set((result.structured_content or {})["next"])
    printed = {call.tool for entry in seen.entries for call in calls_in(entry, tools)}
    told = {
        "start_session",
        "run_experiment",
        "wait_experiment",
        "cancel_experiment",
        "keep",
        "revert",
        "show_experiment",
        "report",
    }
    assert printed >= told


@pytest.fixture
def quick_lab(make_lab: MakeLab) -> Lab:
    """A lab of the quick runner in which nobody has begun."""
    from ..conftest import QUICK_TRAIN_PY

    lab = make_lab(train=QUICK_TRAIN_PY, seconds=5.0, extra=RULES)
    adopt_quick_runner(lab)
    return lab


def in_flight(seen: Seen) -> bool:
    return any("RATE" in said for said in seen.calls if said.startswith("run_experiment"))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["text", "structure", "resume"])
def test_a_client_that_forgets_everything_after_each_call_researches_to_the_end(quick_lab: Lab, source: Source) -> None:
    seen = Seen()
    assert not research(quick_lab, source, seen, until=in_flight)  # it goes, and its server with it, while one is in flight
    running = quick_lab.ledger.experiments("verdict IS NULL")
    assert [experiment.decision for experiment in running] == [Decision.PENDING]
    assert research(quick_lab, source, seen)
    tried = quick_lab.ledger.experiments()
    assert [
        experiment.verdict for experiment in tried if experiment.verdict not in (Verdict.IMPROVED, Verdict.WITHIN_NOISE)
    ] == [
        Verdict.WORSE,
        Verdict.CRASHED,
        Verdict.TIMED_OUT,
    ]
    assert len({experiment.candidate_sha256 for experiment in tried}) == len(tried) == 1 + len(IDEAS)
    champion = quick_lab.champion(quick_lab.session())
    assert champion is not None
    assert champion.val_bpb == pytest.approx(2.0 - 0.05 - 0.04 - 0.03)
    assert _kept(tried) == ["baseline", "WIDTH", "RATE", "DECAY"]
    assert all(experiment.note.startswith("no gain") for experiment in tried if experiment.decision is Decision.REVERTED)
    assert seen.order.count("wait_experiment") > 1
    assert seen.order[-1] == "report"
    assert quick_lab.ledger.verify() == []


def _kept(tried: Iterable[Any]) -> list[str]:
    kept = sorted((each for each in tried if each.decision is Decision.KEPT), key=lambda each: each.decided_at)
    return [re.split(r"\W", experiment.description)[0] for experiment in kept]
