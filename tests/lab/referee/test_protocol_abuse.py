"""Candidates that speak to the referee themselves: whatever they say or do, the run ends with a verdict and is never lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab

pytestmark = pytest.mark.slow

RAW = """
import json, os, socket, struct, time
settings = json.loads(os.environ["AUTORESEARCH_SETTINGS"])
channel = socket.socket(fileno=settings["channel_fd"])

def send(header):
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    channel.sendall(struct.pack("!II", len(data), 0) + data)

"""
CONTRACT = """
if False:
    from prepare import evaluate_bpb, make_dataloader
    make_dataloader(None, 1, 1, "train")
    evaluate_bpb(None, None, 1)
"""

ABUSES = [
    pytest.param("os.kill(os.getpid(), 40)", "crashed", "signal 40", id="a signal without a name"),
    pytest.param(
        "send({'type': 'report', 'step': 1, 'metrics': {'loss': 10**400}})", "crashed", "", id="a number beyond floats"
    ),
    pytest.param("send({'type': 'report', 'step': 10**30, 'metrics': {'x': 1}})", "crashed", "", id="a huge step"),
    pytest.param('send(b\'{"type": "report", "step": 1, "metrics": {"x": NaN}}\')', "crashed", "", id="not a number"),
    pytest.param("send({'type': 'handoff', 'vocab_size': 257.0, 'batch_size': 1})", "invalid", "257.0", id="a size as a float"),
    pytest.param("send({'type': 'handoff', 'vocab_size': True, 'batch_size': 1})", "invalid", "True", id="a size as a boolean"),
    pytest.param("send(b'not json')\ntime.sleep(60)", "invalid", "protocol", id="no JSON"),
    pytest.param("send(b'[' * 60000)\ntime.sleep(60)", "invalid", "protocol", id="deep JSON"),
    pytest.param("channel.sendall(struct.pack('!II', 1 << 30, 0))\ntime.sleep(60)", "invalid", "protocol", id="a huge frame"),
    pytest.param(
        "send({'type': 'handoff', 'vocab_size': 257, 'batch_size': 8})", "invalid", "without opening", id="no training"
    ),
    pytest.param(
        "send({'type': 'open_train', 'vocab_size': 257})\nos._exit(0)",
        "crashed",
        "evaluate_bpb",
        id="gone before the data came",
    ),
    pytest.param(
        "for _ in range(2000):\n    send({'type': 'open_train', 'vocab_size': 257})\ntime.sleep(60)",
        "invalid",
        "too often",
        id="opens the data two thousand times",
    ),
    pytest.param(
        "send({'type': 'open_train', 'vocab_size': 257})\nchannel.recv(1)\ntime.sleep(60)", "timed_out", "budget", id="sleeps"
    ),
    pytest.param(
        "os.chdir(os.environ['HOME'])\nfor _ in range(1200):\n    os.mkdir('d')\n    os.chdir('d')\ntime.sleep(60)",
        "crashed",
        "cannot be measured",
        id="folders nested beyond recursion",
    ),
]


@pytest.mark.parametrize(("code", "verdict", "reason"), ABUSES)
def test_abuse_ends_with_a_verdict_and_the_next_experiment_can_run(
    make_lab: Callable[..., Lab], code: str, verdict: str, reason: str
) -> None:
    lab = make_lab(seconds=1.0, extra="[limits]\ndisk_mb = 100\n")
    lab.workspace.train.write_text(RAW + code + "\n" + CONTRACT)
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="abuse", hypothesis="")
    experiment = wait(lab, experiment.id, 60.0)
    assert (experiment.verdict, experiment.val_bpb) == (verdict, None), experiment.reason
    assert reason in experiment.reason
    (run,) = lab.ledger.runs(experiment.id)
    assert run.attempt == 1
    assert not lab.state.run(run.id).scratch.exists()
    lab.workspace.train.write_text(RAW + "raise SystemExit('the next one')\n" + CONTRACT)
    following, _ = experiments.propose(lab, description="the next", hypothesis="")
    assert wait(lab, following.id, 60.0).verdict == "crashed"
    assert lab.ledger.verify() == []
