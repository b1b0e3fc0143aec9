"""What outlasts a request: polls that differ, progress that goes on in every phase, and a training that only `cancel` ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import current_progress, wait
from autoresearch_mcp.lab.executor import Progress
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Verdict
from autoresearch_mcp.server.progress import message_of
from autoresearch_mcp.tools.waiting import MAX_WAIT_VARIABLE
from mcp import Client

from ..polling import until
from .connected import connected, in_both_eras, text_of
from .printed_calls import calls_in

MakeLab = Callable[..., Lab]
POLLS = 8
MOST_POLLS = 2_000


@pytest.fixture
def busy(make_quick_lab: MakeLab) -> Iterator[Lab]:
    """A lab of one device, which e0002 holds for a minute, and e0003 is queued behind it."""
    lab = make_quick_lab(seconds=100.0, extra="[wait]\nmax_seconds = 0.05\n")
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    wait(lab, baseline.id, 20.0)
    for seconds in (60, 0.2):
        lab.workspace.train.write_text(lab.workspace.train.read_text() + f"# quick: seconds={seconds}\n")
        experiments.propose(lab, description=f"{seconds} seconds", hypothesis="")
    until(lambda: current_progress(lab, "e0002").phase == "training")
    yield lab
    lab.executor.close(kill=True)


async def follow(client: Client, experiment_id: str, polls: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Make the wait_experiment calls that the answers print, at most ``polls``; return their arguments and the states."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    made, states = [], []
    arguments: dict[str, Any] = {"experiment_id": experiment_id}
    for _ in range(polls):
        made.append(arguments)
        result = await client.call_tool("wait_experiment", arguments)
        assert result.structured_content is not None, text_of(result)
        states.append(result.structured_content["state"])
        call = next(calls_in(result.structured_content["next"][0], tools), None)
        if call is None or call.tool != "wait_experiment":
            break
        arguments = call.arguments
    return made, states


def all_differ(made: list[dict[str, Any]]) -> bool:
    return len({str(sorted(arguments.items())) for arguments in made}) == len(made)


@in_both_eras
def test_no_two_polls_that_an_answer_asks_for_are_alike_while_an_experiment_is_queued_or_trains(busy: Lab, era: str) -> None:
    async def use(client: Client) -> None:
        queued, states = await follow(client, "e0003", POLLS)
        assert set(states) == {"queued"}
        assert len(queued) == POLLS
        assert all_differ(queued)
        training, states = await follow(client, "e0002", POLLS)
        assert "training" in states
        assert all_differ(training)
        listed = [(await client.call_tool(name, {})).structured_content for name in ("status", "history", "read_program")]
        assert all(answer is not None and "wait_experiment('e0002', after=0.0)" not in answer["next"] for answer in listed)
        await client.call_tool("cancel_experiment", {"experiment_id": "e0002"})
        rest, states = await follow(client, "e0003", MOST_POLLS)
        assert states[-1] == "finished"
        assert all_differ([*queued[1:], *rest[1:]])

    connected(busy.root, use, era=era)


@in_both_eras
def test_progress_goes_up_in_every_phase_and_tells_the_seconds_left(make_quick_lab: MakeLab, era: str) -> None:
    lab = make_quick_lab(seconds=30.0)
    lab.workspace.train.write_text(lab.workspace.train.read_text() + "# quick: seconds=1.3\n")
    lab.start_session("new", "tester")
    told: list[tuple[float, float | None, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message or ""))

    async def use(client: Client) -> None:
        arguments = {"description": "baseline", "wait_seconds": 30.0}
        result = await client.call_tool("run_experiment", arguments, progress_callback=on_progress)
        assert result.structured_content is not None
        assert result.structured_content["state"] == "finished"

    connected(lab.root, use, era=era)
    numbers = [progress for progress, _, _ in told]
    assert len(told) >= 2
    assert all(later > earlier for earlier, later in pairwise(numbers))
    assert all(total is None or total >= progress for progress, total, _ in told)
    assert any(re.search(r"^training, ", message) for _, _, message in told)


@pytest.mark.slow
def test_progress_of_a_real_training_has_the_seconds_left_and_the_loss(make_lab: MakeLab) -> None:
    lab = make_lab(seconds=2.0)
    lab.start_session(None, "tester")
    told: list[tuple[float, float | None, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message or ""))

    async def use(client: Client) -> None:
        arguments = {"description": "baseline", "wait_seconds": 40.0}
        await client.call_tool("run_experiment", arguments, progress_callback=on_progress)

    connected(lab.root, use)
    assert all(later[0] > earlier[0] for earlier, later in pairwise(told))
    assert any(total is not None and re.search(r"^training, \d s left, loss \d", message) for _, total, message in told)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress(phase="queued", age_seconds=12.3), "queued, 12 s since it was proposed"),
        (Progress(phase="training", seconds_left=112.4, metrics={"loss": 3.21456}), "training, 112 s left, loss 3.215"),
        (Progress(phase="scoring", age_seconds=310, metrics={"loss": 3.0}), "scoring, 310 s since it was proposed, loss 3"),
        (Progress(phase="queued", note="a confirmation"), "queued, 0 s since it was proposed (a confirmation)"),
    ],
)
def test_the_line_of_progress_has_the_phase_the_time_and_the_loss(progress: Progress, expected: str) -> None:
    assert message_of(progress) == expected


@in_both_eras
def test_a_cancelled_request_ends_no_training_and_cancel_experiment_does(
    busy: Lab, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives up on a request that waits, which the SDK tells the server; the run goes on."""
    monkeypatch.setenv(MAX_WAIT_VARIABLE, "60")

    async def use(client: Client) -> None:
        with anyio.move_on_after(0.6) as leaving:
            await client.call_tool("wait_experiment", {"experiment_id": "e0002", "wait_seconds": 60.0})
        assert leaving.cancelled_caught
        result = await client.call_tool("wait_experiment", {"experiment_id": "e0002", "wait_seconds": 0.0})
        assert result.structured_content is not None
        assert result.structured_content["state"] in ("starting", "training")
        await client.call_tool("cancel_experiment", {"experiment_id": "e0002"})

    connected(busy.root, use, era=era)
    assert busy.ledger.experiment("e0002").verdict is Verdict.CANCELLED
