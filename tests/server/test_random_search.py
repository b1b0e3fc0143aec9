"""The control group: random changes that keep a file runnable, repeatable from a seed, on this train.py and on anybody's."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.config import PROFILES
from autoresearch_mcp.server.autopilot.edits import Number, read_constants
from autoresearch_mcp.server.autopilot.ladder import RUNGS
from autoresearch_mcp.server.autopilot.random_search import RandomSearch
from autoresearch_mcp.server.autopilot.ranges import RANGES, Kind, broken_rules
from autoresearch_mcp.server.autopilot.space import LEFT_ALONE
from autoresearch_mcp.server.autopilot.strategy import Proposal, changes_in

TRAIN = (Path(__file__).parents[2] / "trainer" / "train.py").read_text()
UPSTREAM_STYLE = (Path(__file__).parents[1] / "trainer" / "upstream_style.py").read_text()
PROFILE_NAMES = ["cpu", "gpu"]
PROPOSALS = 150


def drawn(source: str, profile: str, steps: int, *, seed: int = 1) -> list[Proposal]:
    search = RandomSearch(seed)
    proposals = [search.propose(source, profile=profile, tried=set()) for _ in range(steps)]
    return [proposal for proposal in proposals if proposal is not None]


def values(source: str, profile: str) -> dict[str, Number]:
    return {name: constant.value for name, constant in read_constants(source, profile).items()}


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_proposals_are_fair_candidates_that_say_what_they_change(profile: str) -> None:
    proposals = drawn(TRAIN, profile, PROPOSALS)
    assert len(proposals) == PROPOSALS
    before = values(TRAIN, profile)
    for proposal in proposals:
        check_candidate(proposal.source.encode(), TRAIN.encode())
        after = values(proposal.source, profile)
        changed = {name for name in before if before[name] != after[name]}
        said = {name for name, _ in changes_in(proposal.description)}
        assert 1 <= len(said) <= 3
        assert changed - said <= ({"DEVICE_BATCH_ROWS"} if "with DEVICE_BATCH_ROWS in step" in proposal.description else set())
        assert said <= changed
        assert proposal.hypothesis


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_values_stay_in_their_ranges_and_fit_together(profile: str) -> None:
    context_length = PROFILES[profile].context_length
    before = values(TRAIN, profile)
    for proposal in drawn(TRAIN, profile, PROPOSALS):
        after = values(proposal.source, profile)
        assert not broken_rules(after, context_length)
        for name, value in after.items():
            if value != before[name]:
                assert value in RANGES[name], name
    assert after["TOTAL_BATCH_TOKENS"] % context_length == 0


def test_one_two_and_three_changes_all_happen_and_one_most_often() -> None:
    counts = [len(changes_in(proposal.description)) for proposal in drawn(TRAIN, "cpu", PROPOSALS)]
    assert counts.count(1) > counts.count(3) > 0
    assert counts.count(2) > 0


def test_one_seed_gives_one_sequence_and_another_seed_another() -> None:
    assert drawn(TRAIN, "cpu", 20, seed=5) == drawn(TRAIN, "cpu", 20, seed=5)
    assert drawn(TRAIN, "cpu", 20, seed=5) != drawn(TRAIN, "cpu", 20, seed=6)


def test_no_change_is_repeated_or_undone_whoever_tried_it() -> None:
    seen = changes_in("DEPTH 3 -> 2 and MLP_RATIO 4 -> 5")
    search = RandomSearch(3)
    source = "DEPTH = 3\nMLP_RATIO = 4\n"
    proposed = set(seen)
    while (proposal := search.propose(source, profile="cpu", tried=seen)) is not None:
        changes = changes_in(proposal.description)
        assert not changes & proposed
        proposed |= changes
    assert ("DEPTH", frozenset(("3", "4"))) in proposed
    assert len(proposed) == 8  # every value within reach, once: DEPTH 1 to 5 and MLP_RATIO 2 to 6


def test_the_search_builds_on_a_champion_that_moves() -> None:
    search, champion = RandomSearch(2), TRAIN
    for _ in range(40):
        proposal = search.propose(champion, profile="cpu", tried=set())
        assert proposal is not None
        check_candidate(proposal.source.encode(), champion.encode())
        champion = proposal.source
    assert not broken_rules(values(champion, "cpu"), 256)


def test_rows_follow_a_batch_that_they_would_no_longer_divide() -> None:
    source = "TOTAL_BATCH_TOKENS = 2048\nDEVICE_BATCH_ROWS = 8\n"
    proposals = drawn(source, "cpu", 40)
    smaller = [p for p in proposals if values(p.source, "cpu")["TOTAL_BATCH_TOKENS"] == 1024]
    assert smaller
    for proposal in smaller:
        assert values(proposal.source, "cpu")["DEVICE_BATCH_ROWS"] in (1, 2, 4)
    assert all(not broken_rules(values(p.source, "cpu"), 256) for p in proposals)


def test_vocabularies_are_those_of_the_corpus() -> None:
    search = RandomSearch(1, vocab_sizes=(257, 512, 1024))
    proposals = [search.propose("VOCAB_SIZE = 512\n", profile="cpu", tried=set()) for _ in range(5)]
    assert [p.description for p in proposals if p] == ["VOCAB_SIZE 512 -> 1024"]


def test_a_constant_that_nobody_knows_is_multiplied_by_a_half_to_two() -> None:
    source = "MYSTERY = 0.04\nKEEP = 0.9\nROUNDS = 7\nSLOTS = 64\nNOTHING = 0\n"
    before = values(source, "cpu")
    for proposal in drawn(source, "cpu", 60):
        after = values(proposal.source, "cpu")
        assert after["NOTHING"] == 0
        assert after["SLOTS"] in (32, 64, 128)
        assert after["KEEP"] < 1
        for name in ("MYSTERY", "KEEP", "ROUNDS"):
            assert type(after[name]) is type(before[name])
            assert 0.49 * before[name] <= after[name] <= 2.01 * before[name]


def test_seeds_and_what_only_evaluation_or_compilation_sees_are_left_alone() -> None:
    source = "SEED = 3\nRANDOM_SEED = 4\nEVAL_BATCH_ROWS = 8\nCOMPILE_FROM_SECONDS = 60\n"
    assert RandomSearch(1).propose(source, profile="cpu", tried=set()) is None
    assert len(drawn("VALUE_EMBED_EVERY = 1\n", "cpu", 2)) == 2


def test_a_file_in_upstreams_style_keeps_its_batches_divisible() -> None:
    before = broken_rules(values(UPSTREAM_STYLE, "cpu"), 256)
    assert not before
    proposals = drawn(UPSTREAM_STYLE, "cpu", 80)
    assert {"TOTAL_BATCH_SIZE", "DEPTH", "MATRIX_LR"} <= {name for p in proposals for name, _ in changes_in(p.description)}
    assert all(not broken_rules(values(p.source, "cpu"), 256) for p in proposals)


def test_a_rule_that_the_file_breaks_already_does_not_end_the_search() -> None:
    source = "TOTAL_BATCH_TOKENS = 1000\nDEVICE_BATCH_ROWS = 8\nMATRIX_LR = 0.02\n"
    assert drawn(source, "cpu", 3)


def test_a_file_without_constants_ends_the_search() -> None:
    assert RandomSearch(1).propose("print('hello')\n", profile="cpu", tried=set()) is None


def test_both_strategies_look_in_the_same_ranges() -> None:
    assert {rung.name for rung in RUNGS} <= set(RANGES)
    unknown = set(values(TRAIN, "cpu")) - set(RANGES)
    assert unknown == {name for name in unknown if LEFT_ALONE.search(name)}, "what a strategy may change has a range"
    assert all(known.low < known.high for known in RANGES.values())
    assert RANGES["VOCAB_SIZE"].kind is Kind.PREPARED_SIZE
