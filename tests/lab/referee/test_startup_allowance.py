"""Start-up is free up to the baseline's and a quarter more; the rest comes off the budget, for real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.machine import cores
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Verdict

pytestmark = pytest.mark.slow

BUDGET_SECONDS = 3.0
# Work on all cores before the data is opened, in seconds of the budget's clock.
BURN = """
import time
torch.set_num_threads({cores})
square, began = torch.ones(512, 512), time.process_time()
while time.process_time() - began < {core_seconds}:
    square @ square
loader = make_dataloader("""


def run(lab: Lab, source: str, description: str) -> tuple[Experiment, RunResult]:
    lab.workspace.train.write_text(source)
    experiment, _ = experiments.propose(lab, description=description, hypothesis="")
    experiment = wait(lab, experiment.id, 120.0)
    result = lab.ledger.runs(experiment.id)[-1].result
    assert result is not None, "the run did not end in time"
    return experiment, result


def test_start_up_beyond_its_allowance_is_deducted_and_audits_follow_the_parent(
    make_lab: Callable[..., Lab], train_py: str
) -> None:
    lab = make_lab(seconds=BUDGET_SECONDS, extra="[early_stop]\ndiverged = false\nfutility = false\n")
    lab.start_session("new", "tester")
    source = train_py.replace("step = 0\n", 'print("left", seconds_left())\nstep = 0\n')
    kept, baseline = run(lab, train_py, "baseline")
    assert baseline.startup_deducted_seconds == 0.0
    assert baseline.startup_cpu_seconds is not None

    def burning(seconds: float) -> str:
        assert "loader = make_dataloader(" in source
        return source.replace("loader = make_dataloader(", BURN.format(cores=cores(), core_seconds=seconds * cores()))

    # A start-up is up to half slower or faster than the baseline's when other tests share the machine.
    allowance = 1.25 * baseline.startup_cpu_seconds / cores()
    slow, result = run(lab, burning(1.0 + 0.4 * allowance), "thinks for a while before it opens the data")
    assert result.startup_deducted_seconds is not None
    assert 0.0 < result.startup_deducted_seconds < BUDGET_SECONDS
    assert result.startup_deducted_seconds == pytest.approx((result.startup_cpu_seconds or 0.0) / cores() - allowance, abs=0.01)
    left = float(lab.executor.log(f"{slow.id}.1").decode().partition("left ")[2].split()[0])
    assert left <= BUDGET_SECONDS - result.startup_deducted_seconds + 0.001  # rounded
    assert (result.elapsed_seconds or 0.0) >= result.startup_deducted_seconds
    assert slow.verdict not in (None, Verdict.TIMED_OUT)
    assert "Note: start-up used" in slow.reason
    assert "were deducted" in slow.reason

    late, result = run(lab, burning(allowance + BUDGET_SECONDS), "thinks for longer than its whole budget")
    assert (late.verdict, result.steps, result.val_bpb) == (Verdict.TIMED_OUT, None, None)
    assert f"allows {allowance:.1f} s" in late.reason
    assert f"budget of {BUDGET_SECONDS:g} s" in late.reason

    # Audits look where a child claims to beat its parent, and only as far as it could be kept.
    worse, second = run(lab, train_py.replace("0.05  # of AdamW", "1e-6  # of AdamW"), "learns nothing")
    assert str(lab.state.run(f"{kept.id}.1").claims) in lab.state.run(f"{worse.id}.1").spec.read_text()
    assert baseline.audits > 100  # every row: it may be kept
    assert 30 <= second.audits <= 40  # its claim is so much worse that it cannot be
    for result in (baseline, second):
        assert (result.bulk_cpu_seconds or 0.0) > 0.0
        assert (result.audit_cpu_seconds or 0.0) > 0.0
        assert result.val_bpb == pytest.approx(result.claimed_bpb, abs=1e-6)
