"""Real runs: whatever train.py does, the referee has an honest number or none. What means harm is in tests/attacks.

Most candidates here never import torch, so a run takes about a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.isolation import PROCESS
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome, Verdict
from autoresearch_mcp.tools.describe import describe

pytestmark = pytest.mark.slow

MakeLab = Callable[..., Lab]

# What the check of a candidate asks for, never executed: these files end before they reach it.
CONTRACT = """
if False:
    from prepare import evaluate_bpb, make_dataloader
    make_dataloader(None, 1, 1, "train")
    evaluate_bpb(None, None, 1)
"""


def run(lab: Lab, source: str, *, seconds: float = 60.0) -> tuple[Experiment, RunResult]:
    """Run ``source`` as the first experiment of a new session."""
    lab.workspace.train.write_text(source)
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="a candidate", hypothesis="")
    experiment = wait(lab, experiment.id, seconds)
    result = lab.ledger.runs(experiment.id)[0].result
    assert result is not None, "the run did not end in time"
    return experiment, result


def test_a_crash_has_a_verdict_the_end_of_its_log_and_no_number(make_lab: MakeLab) -> None:
    lab = make_lab()
    experiment, result = run(lab, 'print("before")\nraise RuntimeError("the reason")\n' + CONTRACT)
    assert (experiment.verdict, result.val_bpb, result.exit_code) == (Verdict.CRASHED, None, 1)
    assert "the reason" in describe(lab, experiment).log_tail[-1]


def test_a_printed_val_bpb_is_no_number(make_lab: MakeLab) -> None:
    experiment, result = run(make_lab(), 'print("val_bpb: 0.1")\n' + CONTRACT)
    assert (experiment.verdict, experiment.val_bpb, result.claimed_bpb) == (Verdict.CRASHED, None, None)
    assert "evaluate_bpb" in experiment.reason


def test_a_start_that_never_ends_is_timed_out(make_lab: MakeLab) -> None:
    lab = make_lab()
    config = lab.workspace.config
    config.write_text(config.read_text().replace("[budget]", "[budget]\nstartup_seconds = 1.0"))
    experiment, _ = run(lab, "import time\ntime.sleep(1000)\n" + CONTRACT)
    assert experiment.verdict is Verdict.TIMED_OUT
    assert "start-up" in experiment.reason


def test_a_running_experiment_can_be_cancelled(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.workspace.train.write_text("import time\ntime.sleep(300)\n" + CONTRACT)
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="a long one", hypothesis="")
    started = time.monotonic()
    experiments.cancel(lab, experiment.id)
    assert wait(lab, experiment.id, 20.0).verdict is Verdict.CANCELLED
    assert time.monotonic() - started < 10.0


def test_a_run_whose_runner_is_killed_is_tried_once_more_then_lost(make_lab: MakeLab) -> None:
    killer = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n"
    opened = make_lab(extra="[sandbox]\nallow_unsandboxed = true\n")
    with closing(Lab.open(opened.root, isolation=PROCESS)) as lab:  # on a stronger level it cannot be reached
        experiment, result = run(lab, killer + CONTRACT)
        assert (experiment.verdict, result.outcome) == (Verdict.LOST, Outcome.LOST)
        assert lab.ledger.runs(experiment.id)[0].attempt == 2
        assert lab.ledger.verify() == []


def test_an_honest_run_is_certified(make_lab: MakeLab, train_py: str) -> None:
    lab = make_lab()
    experiment, result = run(lab, train_py)
    assert experiment.verdict is Verdict.IMPROVED, experiment.reason
    assert result.val_bpb is not None
    assert result.claimed_bpb is not None
    assert result.val_bpb == pytest.approx(result.claimed_bpb, abs=1e-6)
    assert 1.0 < result.val_bpb < 6.0
    assert (result.elapsed_seconds or 99.0) <= 3.0
    assert result.audits > 100  # every row of the windows
    assert (lab.state.run(f"{experiment.id}.1").curve).read_text().count("loss") > 0


def test_a_report_before_the_data_stands_in_the_curve_at_second_zero_and_is_only_shown(
    make_lab: MakeLab, train_py: str
) -> None:
    lab = make_lab(extra="[limits]\nmemory_mb = 3000\n")
    early = "report(0, compile_seconds=12.5, val_bpb=0.1)\nfrom prepare import MEMORY_BYTES\nprint('may use', MEMORY_BYTES)\n"
    experiment, result = run(lab, train_py.replace("loader = make_dataloader", f"{early}loader = make_dataloader"))
    paths = lab.state.run(f"{experiment.id}.1")
    first, second, *_ = (json.loads(line) for line in paths.curve.read_text().splitlines())
    assert first == {"step": 0, "seconds": 0.0, "compile_seconds": 12.5, "val_bpb": 0.1}
    assert second["seconds"] > 0.0
    assert (result.val_bpb or 0.0) > 1.0
    assert f"may use {3000 << 20}" in paths.log.read_text()


@pytest.mark.parametrize(
    ("old", "new", "verdict", "expected"),
    [
        pytest.param("evaluate_bpb(model", "while True: next(loader)\nevaluate_bpb(model", "timed_out", "budget", id="overrun"),
        pytest.param("return logits\n", "return logits[:, :, :100]\n", "invalid", "shape", id="few logits"),
        pytest.param('"train")', '"val")', "crashed", "exited", id="asks for the validation split"),
    ],
)
def test_a_broken_candidate_has_no_number(
    make_lab: MakeLab, train_py: str, old: str, new: str, verdict: str, expected: str
) -> None:
    assert old in train_py
    experiment, result = run(make_lab(seconds=1.5), train_py.replace(old, new))
    assert (experiment.verdict, experiment.val_bpb) == (verdict, None)
    assert expected in experiment.reason
    if verdict == "timed_out":
        assert (result.elapsed_seconds or 0.0) < 4.0
