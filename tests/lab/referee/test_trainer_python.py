"""A real run by another interpreter, and its scoring with few audits, as the GPU profile does it."""

from __future__ import annotations

import dataclasses
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.specfile import read_spec
from autoresearch_mcp.lab.states import Outcome

pytestmark = pytest.mark.slow


def test_the_candidate_and_its_scoring_run_with_the_configured_python(
    make_lab: Callable[..., Lab], train_py: str, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    source = train_py.replace(
        "loader =", 'import os, sys\nprint("python", sys.executable, os.environ["PATH"])\nrehearse(model)\nloader ='
    )
    lab = make_lab(train=source, seconds=1.5, extra=f'[trainer]\npython = "{python}"\n')
    lab.start_session(None, "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    experiment = wait(lab, experiment.id, 60.0)
    result = lab.ledger.runs(experiment.id)[0].result
    assert result is not None
    assert result.val_bpb is not None, experiment.reason
    log = lab.executor.log(f"{experiment.id}.1").decode()
    paths = lab.state.run(f"{experiment.id}.1")
    assert f"python {paths.python / 'bin' / 'python'} /usr/local/cuda/bin:" in log  # made of links for this run alone
    assert read_spec(paths).python == str(python)
    assert result.train_tokens == result.train_tokens // 1024 * 1024 > 0  # 4 rows of 256 tokens in each batch
    assert result.forward_flops_per_token == pytest.approx(2 * 16 * 257)  # the head; an embedding is a look-up

    few = dataclasses.replace(read_spec(paths), run_id="few-audits", audits=20, audits_before_keep=0)
    assert lab.executor.submit(few) == "cpu"
    assert lab.executor.submit(dataclasses.replace(few, device="cuda:GPU-other")) == "cpu"  # it is known already
    deadline = time.monotonic() + 60.0
    while (audited := lab.executor.result("few-audits")) is None and time.monotonic() < deadline:
        lab.executor.events(since=len(lab.executor.events()), wait_seconds=1.0)
    assert audited is not None
    assert audited.outcome is Outcome.SCORED, audited.reason
    assert 15 <= audited.audits <= 20 < result.audits
    assert audited.val_bpb == pytest.approx(audited.claimed_bpb, abs=1e-6)
