"""The autopilot under the gate `confirmed`, and where the lab refuses ideas: what it runs, keeps, and tells who watches."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence, Set
from functools import partial

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Decision, Purpose
from autoresearch_mcp.server.app import build_server
from autoresearch_mcp.server.autopilot.client import AutopilotError, LabClient
from autoresearch_mcp.server.autopilot.edits import read_constants
from autoresearch_mcp.server.autopilot.ladder import Ladder
from autoresearch_mcp.server.autopilot.researcher import Autopilot, Observer, Report
from autoresearch_mcp.server.autopilot.strategies import make_strategy
from autoresearch_mcp.server.autopilot.strategy import Change, Observation, Proposal, Strategy
from autoresearch_mcp.server.autopilot.view import watching
from mcp import Client
from rich.console import Console

MakeLab = Callable[..., Lab]
CONSTANTS = "MATRIX_LR = 0.04\nEMBEDDING_LR = 0.3\nWEIGHT_DECAY = 0.2\n"


class Measured:
    """Any strategy, in a lab whose quick runner measures what train.py says: a function of its constants."""

    def __init__(self, strategy: Strategy, measure: Callable[[dict[str, float]], str]) -> None:
        self.learns = strategy.learns
        self.observed: list[int] = []
        self._strategy, self._measure = strategy, measure

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        self.observed.append(len(observed))
        proposal = self._strategy.propose(source, profile=profile, tried=tried, observed=observed)
        if proposal is None:
            return None
        constants = {name: float(each.value) for name, each in read_constants(proposal.source, profile).items()}
        said = re.sub(r"^# quick:.*$", f"# quick: {self._measure(constants)}", proposal.source, flags=re.MULTILINE)
        return Proposal(description=proposal.description, hypothesis=proposal.hypothesis, source=said)


def research(lab: Lab, strategy: Strategy, observer: Observer, ideas: int) -> Report:
    async def main() -> Report:
        async with Client(build_server(partial(Lab.open, lab.root, autopilot=True))) as client:
            return await Autopilot(LabClient(client), lab.root, strategy, observer).research(ideas)

    return anyio.run(main)


def lines_of(lab: Lab, strategy: Strategy, ideas: int) -> tuple[Report, list[str]]:
    """Research, and return the report and what is printed meanwhile where there is no terminal."""
    screen = io.StringIO()
    with watching(Console(file=screen, force_terminal=False, width=200), experiments=ideas) as view:
        report = research(lab, strategy, view, ideas)
    return report, screen.getvalue().splitlines()


def quick(train: str) -> str:
    """Return a train.py with these constants for the quick runner."""
    imports = "from prepare import evaluate_bpb, make_dataloader"
    return f'# quick: val_bpb=2.0\n{imports}\n\n{train}\nmake_dataloader(None, 1, 1, "train")\nevaluate_bpb(None, None, 1)\n'


class Listed:
    """A strategy that proposes one value of MATRIX_LR after the other."""

    learns = False

    def __init__(self, *values: float) -> None:
        self._values = list(values)

    def propose(
        self, source: str, *, profile: str, tried: Set[Change], observed: Sequence[Observation] = ()
    ) -> Proposal | None:
        if not self._values:
            return None
        value = self._values.pop(0)
        return Proposal(
            description=f"try {value}", hypothesis="", source=source.replace("MATRIX_LR = 0.04", f"MATRIX_LR = {value}")
        )


@pytest.mark.slow
def test_a_promising_idea_runs_three_times_and_who_watches_is_told_which_run_it_is(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(train=quick(CONSTANTS), gate="confirmed")
    better = {0.0268: "val_bpb=1.0 seconds=1.2"}
    strategy = Measured(Ladder(), lambda constants: better.get(constants["MATRIX_LR"], "val_bpb=2.5"))
    report, lines = lines_of(lab, strategy, 2)
    _, kept, reverted = report.experiments
    assert [run.purpose for run in lab.ledger.runs(kept.id)] == [Purpose.PROPOSED, Purpose.CONFIRM, Purpose.CONFIRM]
    assert (kept.decision, reverted.decision) == (Decision.KEPT, Decision.REVERTED)
    assert len(lab.ledger.runs(reverted.id)) == 1
    about = [line.partition(" ")[2] for line in lines if kept.id in line]
    for run in (2, 3):
        assert any(f"run {run} of 3" in line for line in about), about


@pytest.mark.slow
def test_a_baseline_whose_number_cannot_be_kept_ends_the_research_with_the_reason(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(train=quick(CONSTANTS).replace("val_bpb=2.0", "val_bpb=2.0 error=0.5"))
    with pytest.raises(ExceptionGroup) as raised:
        lines_of(lab, Listed(0.02), 1)
    assert raised.group_contains(AutopilotError, match=r"baseline e0001 cannot be kept.* standard error 0\.5")
    assert lab.ledger.experiment("e0001").decision is Decision.REVERTED


@pytest.mark.slow
def test_what_the_lab_refuses_as_tried_before_is_passed_over(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(train=quick(CONSTANTS))
    report, lines = lines_of(lab, Listed(0.02, 0.0201, 0.0199, 0.1), 2)
    assert [each.description for each in report.experiments] == ["baseline", "try 0.02", "try 0.1"]
    assert report.ended_early is None
    refused = [line for line in lines if "refused: " in line]
    assert len(refused) == 2
    assert all("was tried as" in line for line in refused)


@pytest.mark.slow
def test_a_strategy_that_only_repeats_itself_ends_the_research_with_its_report(
    make_quick_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoresearch_mcp.server.autopilot.researcher._REFUSED_IDEAS_IN_A_ROW", 22)
    lab = make_quick_lab(train=quick(CONSTANTS))
    report, _ = lines_of(lab, Listed(0.02, *(0.02 + step * 1e-6 for step in range(1, 30))), 3)
    assert [each.description for each in report.experiments] == ["baseline", "try 0.02"]
    assert (report.ended_early or "").startswith("22 ideas in a row were refused; the last: This idea was tried as")
    assert lab.workspace.train.read_text() == quick(CONSTANTS)


@pytest.mark.slow
def test_the_ladder_goes_on_with_smaller_steps_after_its_first_cycle(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(train=quick(CONSTANTS))
    report, _ = lines_of(lab, Measured(Ladder(), lambda constants: "val_bpb=2.5"), 14)
    assert report.ended_early is None
    descriptions = [each.description for each in report.experiments[1:]]
    assert len(set(descriptions)) == 14
    assert descriptions[0] == "MATRIX_LR 0.04 -> 0.0268"
    assert "MATRIX_LR 0.04 -> 0.0327" in descriptions[6:]  # half the step


@pytest.mark.slow
def test_tpe_started_again_knows_the_record_and_goes_on_from_its_champion(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(train=quick(CONSTANTS))
    measure = lambda constants: f"val_bpb={1.5 + abs(constants['MATRIX_LR'] - 0.06) * 10 + constants['WEIGHT_DECAY']:.6f}"  # noqa: E731
    first = Measured(make_strategy("tpe", seed=3, vocab_sizes=(512,)), measure)
    report, _ = lines_of(lab, first, 6)
    assert first.observed == [1, 2, 3, 4, 5, 6]
    assert report.ended_early is None
    numbers = [each.val_bpb for each in report.experiments if each.val_bpb is not None]
    assert min(numbers) < numbers[0]
    again = Measured(make_strategy("tpe", seed=3, vocab_sizes=(512,)), measure)
    more, _ = lines_of(lab, again, 2)
    assert again.observed == [8, 9]  # seven of the first session, and the baseline of this one
    assert more.experiments[0].val_bpb == min(numbers)
    assert len({each.description for each in (*report.experiments, *more.experiments)}) == 9
    assert lab.ledger.verify() == []
