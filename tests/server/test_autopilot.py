"""The ladder edits train.py one idea at a time and never repeats itself; the client tells refusals from broken connections."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import anyio
import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.autopilot.client import AutopilotError, LabClient, ToolRefusedError, with_server
from autoresearch_mcp.server.autopilot.edits import literal, read_constants, replace_constants
from autoresearch_mcp.server.autopilot.ladder import RUNGS, Ladder
from autoresearch_mcp.server.autopilot.researcher import lesson
from autoresearch_mcp.server.autopilot.strategies import make_strategy
from autoresearch_mcp.server.autopilot.strategy import Proposal, changes_in
from autoresearch_mcp.tools.results import ExperimentAnswer, ExperimentSummary, StatusAnswer

TRAIN = (Path(__file__).parents[2] / "trainer" / "train.py").read_text()
PROFILES = ["cpu", "gpu"]


def climb(source: str, profile: str, steps: int) -> list[Proposal]:
    ladder = Ladder()
    proposals = [ladder.propose(source, profile=profile, tried=set()) for _ in range(steps)]
    return [proposal for proposal in proposals if proposal is not None]


def changed(before: str, after: str, profile: str) -> dict[str, tuple[float, float]]:
    old, new = read_constants(before, profile), read_constants(after, profile)
    assert old.keys() == new.keys()
    return {name: (old[name].value, new[name].value) for name in old if old[name].value != new[name].value}


@pytest.mark.parametrize("profile", PROFILES)
def test_fifty_proposals_on_the_real_file_are_fair_candidates_and_all_different(profile: str) -> None:
    proposals = climb(TRAIN, profile, 50)
    assert len({proposal.source for proposal in proposals}) == 50
    assert len({proposal.description for proposal in proposals}) == 50
    for proposal in proposals:
        check_candidate(proposal.source.encode(), TRAIN.encode())
        assert proposal.hypothesis


@pytest.mark.parametrize("profile", PROFILES)
def test_a_proposal_changes_one_constant_on_one_line_and_says_which(profile: str) -> None:
    for proposal in climb(TRAIN, profile, 50):
        changes = changed(TRAIN, proposal.source, profile)
        lines = [(a, b) for a, b in zip(TRAIN.splitlines(), proposal.source.splitlines(), strict=True) if a != b]
        assert len(lines) == len(changes)
        assert {name for name, _ in changes_in(proposal.description)} <= set(changes)
        if len(changes) > 1:
            assert set(changes) == {"TOTAL_BATCH_TOKENS", "DEVICE_BATCH_ROWS"}
        for before, after in lines:
            assert before.partition("#")[2] == after.partition("#")[2]


@pytest.mark.parametrize("profile", PROFILES)
def test_batches_still_divide_whatever_the_ladder_does_to_them(profile: str) -> None:
    context_length = 256 if profile == "cpu" else 2048
    for proposal in climb(TRAIN, profile, 120):
        constants = read_constants(proposal.source, profile)
        tokens, rows = constants["TOTAL_BATCH_TOKENS"].value, constants["DEVICE_BATCH_ROWS"].value
        assert tokens % (rows * context_length) == 0
        assert constants["WIDTH"].value % constants["HEAD_DIM"].value == 0


def test_only_the_arm_of_the_profile_changes() -> None:
    source = "LR = 0.3 if CPU else 0.6  # rate\n"
    for profile, expected in (("cpu", "LR = 0.5 if CPU else 0.6  # rate\n"), ("gpu", "LR = 0.3 if CPU else 0.5  # rate\n")):
        constant = read_constants(source, profile)["LR"]
        assert replace_constants(source, {constant: 0.5}) == expected


def test_constants_that_are_computed_or_bound_twice_or_indented_are_left_alone() -> None:
    source = "A = 1\nB = A * 2\nC = True\nD = 1.5\nD = 2.5\nE = 'x'\nif A:\n    F = 3\nG = 2**10\nh = 4\n"
    assert {name: constant.value for name, constant in read_constants(source, "cpu").items()} == {"A": 1, "G": 1024}


@pytest.mark.parametrize("value", [0.05, 1e-05, 30.0, 0.0134, 7, 2**21, 1e7])
def test_a_written_number_reads_back_with_its_type_and_value(value: float) -> None:
    read = ast.literal_eval(literal(value))
    assert type(read) is type(value)
    assert read == value


def test_what_was_tried_is_not_proposed_again_nor_undone() -> None:
    first = climb(TRAIN, "cpu", 1)[0]
    second = Ladder().propose(TRAIN, profile="cpu", tried=changes_in(first.description))
    assert second is not None
    assert second.description != first.description
    name, old, new = re.match(r"(\w+) (\S+) -> (\S+)", first.description).groups()  # type: ignore[union-attr]
    undone = {proposal.description for proposal in climb(first.source, "cpu", 80)}
    ladder = Ladder()
    kept = {
        p.description
        for _ in range(80)
        if (p := ladder.propose(first.source, profile="cpu", tried=changes_in(first.description)))
    }
    assert any(description.startswith(f"{name} {new} -> {old}") for description in undone)
    assert not any(description.startswith(f"{name} {new} -> {old}") for description in kept)


def test_the_ladder_builds_on_a_champion_that_moves() -> None:
    ladder, champion = Ladder(), TRAIN
    for _ in range(30):
        proposal = ladder.propose(champion, profile="cpu", tried=set())
        assert proposal is not None
        check_candidate(proposal.source.encode(), champion.encode())
        champion = proposal.source


def test_a_file_without_known_constants_ends_the_ladder() -> None:
    assert Ladder().propose("print('hello')\n", profile="cpu", tried=set()) is None


def test_every_rung_names_a_constant_of_the_real_file() -> None:
    assert {rung.name for rung in RUNGS} <= read_constants(TRAIN, "cpu").keys()


@pytest.mark.parametrize(("name", "seed"), [("ladder", None), ("random", 7), ("tpe", 7)])
def test_strategies_start_afresh(name: str, seed: int | None) -> None:
    first, second = (make_strategy(name, seed=seed, vocab_sizes=(512, 1024)) for _ in range(2))
    assert first.propose(TRAIN, profile="cpu", tried=set()) == second.propose(TRAIN, profile="cpu", tried=set())


@pytest.mark.parametrize(
    ("verdict", "delta", "expected"),
    [
        ("worse", 0.05, "DEPTH 4 -> 5 hurts: +0.0500 bpb against e0001."),
        ("improved", -0.02, "DEPTH 4 -> 5 looks better (-0.0200 bpb against e0001), and the gate does not allow it."),
        ("within_noise", 0.001, "DEPTH 4 -> 5 makes no difference beyond noise: +0.0010 bpb against e0001."),
        ("timed_out", None, "DEPTH 4 -> 5 does not finish within its time."),
        ("crashed", None, "DEPTH 4 -> 5 gives no number: crashed."),
    ],
)
def test_a_lesson_is_one_sentence_with_the_number(verdict: str, delta: float | None, expected: str) -> None:
    experiment = ExperimentSummary(
        id="e0002", session="s", researcher="r", program="0123abcd", description="DEPTH 4 -> 5, with more words",
        parent="e0001", verdict=verdict, decision="pending", val_bpb=None, delta=delta, confidence=None, note="",
    )  # fmt: skip
    assert lesson(experiment) == expected


@pytest.mark.slow
def test_over_stdio_a_tool_answers_and_refuses_with_its_own_words(lab: Lab) -> None:
    async def work(client: LabClient) -> StatusAnswer:
        with pytest.raises(ToolRefusedError, match=r"^No experiment 'e0099'"):
            await client.call("keep", ExperimentAnswer, experiment_id="e0099")
        return await client.call("status", StatusAnswer)

    assert anyio.run(with_server, lab.root, work).lab == str(lab.root)


def test_a_server_that_cannot_start_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def work(client: LabClient) -> None:
        raise AssertionError("there is no server to work with")

    with pytest.raises(AutopilotError, match="The connection to the server broke"):
        anyio.run(partial(with_server, tmp_path / "missing", work))
