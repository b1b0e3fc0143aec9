"""The control that learns: TPE proposes what the record speaks for, repeatably, inside the ranges, and only with Optuna."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.config import PROFILES
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.server.autopilot.edits import Number, read_constants
from autoresearch_mcp.server.autopilot.ranges import RANGES, broken_rules
from autoresearch_mcp.server.autopilot.space import axis_of
from autoresearch_mcp.server.autopilot.strategies import make_strategy, require_installed
from autoresearch_mcp.server.autopilot.strategy import Observation, Proposal, Strategy, changes_in
from autoresearch_mcp.server.autopilot.tpe import Tpe

TRAIN = (Path(__file__).parents[2] / "trainer" / "train.py").read_text()
UPSTREAM_STYLE = (Path(__file__).parents[1] / "trainer" / "upstream_style.py").read_text()
FILES = {"ours": TRAIN, "upstream's": UPSTREAM_STYLE}
SIZES = (512, 1024, 2048, 4096, 8192)
# Every kind of axis, on one line each: what a synthetic optimum is looked for in.
SMALL = """\
DEPTH = 4
VOCAB_SIZE = 2048
SOFTCAP = 15.0
EMBEDDING_LR = 0.3
MATRIX_LR = 0.04
ADAM_BETA2 = 0.99
WARMDOWN_FRACTION = 0.5
HEAD_DIM = 64
"""

Measure = Callable[[Mapping[str, Number]], float | None]


def values(source: str, profile: str = "cpu") -> dict[str, Number]:
    return {name: constant.value for name, constant in read_constants(source, profile).items()}


def bowl(seed: int) -> Measure:
    """Return a function with one optimum, within reach of SMALL's values; some constants count more than others."""
    draws = random.Random(seed)
    start, terms = values(SMALL), []
    for name in sorted(start):
        axis = axis_of(name, start, SIZES)
        assert axis is not None
        at, half = axis.coordinate(start[name]), (axis.high - axis.low) / 2
        assert at is not None
        terms.append((name, axis, at + half * draws.uniform(-0.9, 0.9), half, 0.1 * math.exp(draws.gauss(0, 1))))

    def measure(constants: Mapping[str, Number]) -> float:
        total = 1.0
        for name, axis, best, half, weight in terms:
            at = axis.coordinate(constants[name])
            assert at is not None
            total += weight * ((at - best) / half) ** 2
        return total

    return measure


def search(
    strategy: Strategy, source: str, measure: Measure, ideas: int, *, profile: str = "cpu"
) -> tuple[list[Proposal], list[Observation]]:
    """Let a strategy research a function of the constants, keeping what is better; returns its ideas and the record."""
    proposals, champion, best = list[Proposal](), source, measure(values(source, profile))
    record = [Observation(values=values(source, profile), val_bpb=best)]
    assert best is not None
    for _ in range(ideas):
        proposal = strategy.propose(champion, profile=profile, tried=set(), observed=record)
        assert proposal is not None
        proposals.append(proposal)
        number = measure(values(proposal.source, profile))
        record.append(Observation(values=values(proposal.source, profile), val_bpb=number))
        if number is not None and number < best:
            champion, best = proposal.source, number
    return proposals, record


def best_of(record: Sequence[Observation]) -> float:
    return min(each.val_bpb for each in record if each.val_bpb is not None)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("name", FILES)
def test_proposals_are_fair_candidates_inside_the_ranges_that_say_what_they_change(name: str, profile: str) -> None:
    source, context_length = FILES[name], PROFILES[profile].context_length
    proposals, record = search(Tpe(1), source, lambda constants: sum(map(hash, constants.values())) % 997, 15, profile=profile)
    champion, best = source, record[0].val_bpb
    assert best is not None
    for proposal, observation in zip(proposals, record[1:], strict=True):
        if name == "ours":  # upstream's imports what a candidate here may not
            check_candidate(proposal.source.encode(), champion.encode())
        before, after = values(champion, profile), values(proposal.source, profile)
        changed = {name for name in before if before[name] != after[name]}
        said = {name for name, _ in changes_in(proposal.description)}
        assert 1 <= len(said) <= 3
        assert said <= changed
        assert changed - said <= {"DEVICE_BATCH_ROWS", "DEVICE_BATCH_SIZE"}
        assert all(after[name] in RANGES[name] for name in said if name in RANGES)
        assert broken_rules(after, context_length) <= broken_rules(before, context_length)
        assert "TPE with seed 1" in proposal.hypothesis
        if observation.val_bpb is not None and observation.val_bpb < best:
            champion, best = proposal.source, observation.val_bpb


def test_the_same_seed_and_record_give_the_same_proposals_and_another_seed_others() -> None:
    first, record = search(Tpe(5, vocab_sizes=SIZES), SMALL, bowl(0), 12)
    assert search(Tpe(5, vocab_sizes=SIZES), SMALL, bowl(0), 12) == (first, record)
    assert search(Tpe(6, vocab_sizes=SIZES), SMALL, bowl(0), 12)[0] != first


def test_one_that_is_started_again_goes_on_where_the_record_ends() -> None:
    proposals, record = search(Tpe(5, vocab_sizes=SIZES), SMALL, bowl(0), 12)
    best = min(range(12), key=lambda index: record[index].val_bpb or math.inf)
    champion = SMALL if best == 0 else proposals[best - 1].source
    tried = {change for proposal in proposals[:11] for change in changes_in(proposal.description)}
    again = Tpe(5, vocab_sizes=SIZES).propose(champion, profile="cpu", tried=tried, observed=record[:12])
    assert again == proposals[11]
    assert again != Tpe(5, vocab_sizes=SIZES).propose(champion, profile="cpu", tried=tried, observed=record[:1])


def test_asked_again_without_a_new_result_it_proposes_something_else() -> None:
    _, record = search(Tpe(5, vocab_sizes=SIZES), SMALL, bowl(0), 8)
    strategy = Tpe(5, vocab_sizes=SIZES)
    asked = [strategy.propose(SMALL, profile="cpu", tried=set(), observed=record) for _ in range(10)]
    seen = set[tuple[str, frozenset[str]]]()
    for proposal in asked:
        assert proposal is not None
        assert not changes_in(proposal.description) & seen
        seen |= changes_in(proposal.description)


@pytest.mark.parametrize("number", [9.0, None], ids=["bad numbers", "crashes"])
def test_it_stays_away_from_where_runs_were_bad_or_got_no_number(number: float | None) -> None:
    start = {"MATRIX_LR": 0.04}
    source = "MATRIX_LR = 0.04\n"
    record = [Observation(values=start, val_bpb=2.0)]
    record += [Observation(values={"MATRIX_LR": 0.04 * factor}, val_bpb=number) for factor in (1.5, 2.0, 2.5, 3.0, 3.5)]
    record += [Observation(values={"MATRIX_LR": 0.04 / factor}, val_bpb=2.0 - factor / 100) for factor in (1.1, 1.2, 1.3)]
    up = 0
    for seed in range(20):
        proposal = Tpe(seed).propose(source, profile="cpu", tried=set(), observed=record)
        assert proposal is not None
        up += values(proposal.source)["MATRIX_LR"] > start["MATRIX_LR"]
    assert up <= 2


def test_what_is_unknown_or_out_of_reach_in_an_experiment_is_left_out_and_the_rest_is_used() -> None:
    record = [Observation(values=values(SMALL), val_bpb=2.0)]
    record += [Observation(values={"MATRIX_LR": 1e-4 * step, "EXTRA": 3}, val_bpb=1.0) for step in range(1, 8)]
    record += [Observation(values={"HEAD_DIM": 96, "ADAM_BETA2": 1.0, "SOFTCAP": 0.0}, val_bpb=1.0)]
    strategy = Tpe(2, vocab_sizes=SIZES)
    for _ in range(10):
        proposal = strategy.propose(SMALL, profile="cpu", tried=set(), observed=record)
        assert proposal is not None
        assert all(value in RANGES[name] for name, value in values(proposal.source).items())


def test_a_value_that_is_in_reach_and_cannot_be_drawn_is_left_out() -> None:
    source = SMALL + "ORTHOGONAL_STEPS = 5\n"
    assert 7 not in RANGES["ORTHOGONAL_STEPS"]
    axis = axis_of("ORTHOGONAL_STEPS", values(source), SIZES)
    assert axis is not None
    assert axis.high == 7
    record = [Observation(values={**values(source), "ORTHOGONAL_STEPS": 7}, val_bpb=1.0)] * 5
    strategy = Tpe(1, vocab_sizes=SIZES)
    proposals = [strategy.propose(source, profile="cpu", tried=set(), observed=record) for _ in range(30)]
    assert any("ORTHOGONAL_STEPS" in proposal.description for proposal in proposals if proposal is not None)


def test_vocabularies_are_those_of_the_corpus_and_used_up_constants_end_the_search() -> None:
    strategy = Tpe(1, vocab_sizes=(257, 512, 1024))
    proposals = [strategy.propose("VOCAB_SIZE = 512\n", profile="cpu", tried=set()) for _ in range(3)]
    assert [proposal and proposal.description for proposal in proposals] == ["VOCAB_SIZE 512 -> 1024", None, None]


def test_a_file_without_constants_ends_the_search() -> None:
    for source in ("print('hello')\n", "SEED = 3\nEVAL_BATCH_ROWS = 8\n"):
        assert Tpe(1).propose(source, profile="cpu", tried=set(), observed=[]) is None


def test_optuna_writes_nothing_beside_the_view(capfd: pytest.CaptureFixture[str]) -> None:
    search(Tpe(1, vocab_sizes=SIZES), SMALL, bowl(1), 7)
    assert capfd.readouterr() == ("", "")


def test_without_optuna_the_strategy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(NotReadyError, match=r"-m pip install 'optuna>=5,<6'"):
        make_strategy("tpe", seed=1, vocab_sizes=SIZES)
    for name in ("ladder", "random"):
        require_installed(name)


def test_without_optuna_research_makes_no_lab(tmp_path: Path) -> None:
    arguments = ["autoresearch", "research", "--strategy", "tpe", "--lab", str(tmp_path / "lab")]
    code = (
        f"import sys; sys.modules['optuna'] = None; sys.argv = {arguments!r}; "
        "from autoresearch_mcp.server.cli import main; main()"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1
    assert "pip install 'optuna>=5,<6'" in refused.stderr
    assert not (tmp_path / "lab").exists()


@pytest.mark.slow
def test_on_a_function_of_eight_constants_it_gets_further_than_random_search_in_as_many_ideas() -> None:
    """Measured: after 25 ideas 0.79 of the gap to the optimum is closed in the median of these seeds, by random search 0.65."""
    closed: dict[str, list[float]] = {"random": [], "tpe": []}
    for seed in range(20):
        measure = bowl(seed)
        for name, shares in closed.items():
            _, record = search(make_strategy(name, seed=seed, vocab_sizes=SIZES), SMALL, measure, 25)
            start = record[0].val_bpb
            assert start is not None
            shares.append((start - best_of(record)) / (start - 1.0))
    assert statistics.median(closed["tpe"]) > statistics.median(closed["random"]) + 0.05
