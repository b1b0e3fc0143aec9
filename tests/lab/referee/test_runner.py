"""Real runs of real and hostile candidates: whatever train.py does, the referee has an honest number or none.

Most candidates here never import torch, so a run takes about a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.executor import RunResult
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


def test_memory_beyond_the_limit_ends_the_run(make_lab: MakeLab) -> None:
    hog = "hoard = [bytearray(64 << 20) for _ in range(100)]\n"
    experiment, result = run(make_lab(extra="[limits]\nmemory_mb = 400\n"), hog + CONTRACT)
    assert experiment.verdict is Verdict.CRASHED
    assert (result.peak_memory_mb or 0) < 800


def test_memory_spread_over_processes_ends_the_run(make_lab: MakeLab) -> None:
    hog = (
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n"
        "        hoard = bytearray(b'x') * (200 << 20)\n        time.sleep(60)\ntime.sleep(60)\n"
    )
    experiment, _ = run(make_lab(extra="[limits]\nmemory_mb = 500\n"), hog + CONTRACT)
    assert experiment.verdict is Verdict.CRASHED
    assert "memory_mb" in experiment.reason


def test_too_many_processes_end_the_run(make_lab: MakeLab) -> None:
    bomb = "import os, time\nfor _ in range(60):\n    if os.fork() == 0:\n        time.sleep(60)\ntime.sleep(60)\n"
    experiment, _ = run(make_lab(extra="[limits]\nprocesses = 20\n"), bomb + CONTRACT)
    assert experiment.verdict is Verdict.CRASHED
    assert "processes" in experiment.reason


def test_too_much_on_disk_ends_the_run(make_lab: MakeLab) -> None:
    hog = (
        "import os, time\nfor n in range(10):\n"
        "    open(os.environ['HOME'] + f'/{n}', 'wb').write(b'x' * (8 << 20))\ntime.sleep(60)\n"
    )
    experiment, _ = run(make_lab(extra="[limits]\ndisk_mb = 32\n"), hog + CONTRACT)
    assert experiment.verdict is Verdict.CRASHED
    assert "disk_mb" in experiment.reason


def test_a_flood_of_output_keeps_its_beginning_and_its_end(make_lab: MakeLab) -> None:
    flood = "print('first line')\nfor _ in range(400_000):\n    print('x' * 60)\nraise SystemExit('last line')\n"
    lab = make_lab(extra="[limits]\nlog_kb = 64\n")
    experiment, result = run(lab, flood + CONTRACT)
    log = lab.executor.log(f"{experiment.id}.1", limit=1 << 22)
    assert log.startswith(b"first line")
    assert log.rstrip().endswith(b"last line")
    assert len(log) < 128 << 10
    assert result.log_bytes > 20_000_000


def test_control_characters_in_a_log_reach_nobody(make_lab: MakeLab) -> None:
    lab = make_lab()
    experiment, _ = run(lab, "raise SystemExit('\\x1b[2J\\x1b]0;title\\x07quiet \\x9b31mred')\n" + CONTRACT)
    assert describe(lab, experiment).log_tail[-1].isprintable()


def test_nothing_of_a_run_survives_it(make_lab: MakeLab) -> None:
    daemon = (
        "import os, signal, time\nfor number in range(1, 32):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(300)\n    os._exit(0)\n"
        "time.sleep(0.5)\n"
    )
    lab = make_lab()
    run(lab, daemon + CONTRACT)
    here = str(lab.state.runs)
    assert not [process.pid for process in psutil.process_iter() if _folder_of(process).startswith(here)]


def _folder_of(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


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
    lab = make_lab()
    experiment, result = run(lab, killer + CONTRACT)
    assert (experiment.verdict, result.outcome) == (Verdict.LOST, Outcome.LOST)
    assert lab.ledger.runs(experiment.id)[0].attempt == 2
    assert lab.ledger.verify() == []


def test_the_candidate_sees_an_environment_made_from_nothing(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a secret")
    lab = make_lab()
    experiment, _ = run(lab, "import os\nraise SystemExit(' '.join(sorted(os.environ)))\n" + CONTRACT)
    names = describe(lab, experiment).log_tail[-1].split()
    assert "ANTHROPIC_API_KEY" not in names
    assert {"OMP_WAIT_POLICY", "HOME"} <= set(names)


def test_an_honest_run_is_certified_then_the_next_one_works(make_lab: MakeLab, train_py: str) -> None:
    lab = make_lab()
    experiment, result = run(lab, train_py)
    assert experiment.verdict is Verdict.IMPROVED, experiment.reason
    assert result.val_bpb is not None
    assert result.claimed_bpb is not None
    assert result.val_bpb == pytest.approx(result.claimed_bpb, abs=1e-6)
    assert 1.0 < result.val_bpb < 6.0
    assert (result.elapsed_seconds or 99.0) <= 3.0
    assert result.audits > 100  # every row of the windows
    lab.workspace.train.write_text(train_py.replace("WIDTH = 16", "WIDTH = 24") + "# fake\n")
    second, _ = experiments.propose(lab, description="wider", hypothesis="")
    assert wait(lab, second.id, 60.0).val_bpb is not None
    assert (lab.state.run(f"{second.id}.1").curve).read_text().count("loss") > 0


@pytest.mark.parametrize(
    ("old", "new", "verdict", "expected"),
    [
        pytest.param("evaluate_bpb(model", "while True: next(loader)\nevaluate_bpb(model", "timed_out", "budget", id="overrun"),
        pytest.param("return logits\n", "return logits * float('nan')\n", "invalid", "not finite", id="nan"),
        pytest.param("return logits\n", "return logits[:, :, :100]\n", "invalid", "shape", id="few logits"),
        pytest.param(
            "return logits\n",
            "return logits + 9 * torch.nn.functional.one_hot(idx.roll(-1, 1), logits.size(-1))\n",
            "invalid",
            "contradict",
            id="looks ahead",
        ),
        pytest.param('"train")', '"val")', "crashed", "exited", id="asks for the validation split"),
    ],
)
def test_a_dishonest_or_broken_candidate_has_no_number(
    make_lab: MakeLab, train_py: str, old: str, new: str, verdict: str, expected: str
) -> None:
    assert old in train_py
    experiment, result = run(make_lab(seconds=1.5), train_py.replace(old, new))
    assert (experiment.verdict, experiment.val_bpb) == (verdict, None)
    assert expected in experiment.reason
    if verdict == "timed_out":
        assert (result.elapsed_seconds or 0.0) < 4.0
