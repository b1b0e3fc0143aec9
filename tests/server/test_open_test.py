"""`report --open-test`: the human opens the test split, waits, and reads in one sentence whether the session overfits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.cli import open_test
from autoresearch_mcp.server.cli.application import app
from typer.testing import CliRunner, Result

SENTENCE = "The session overfits the validation set: e0002 gains +0.2000 over e0001 on it and +0.0766 on the test split"


def report(lab: Lab, *options: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, options), "--lab", str(lab.root)], env={"COLUMNS": "200"})


@pytest.fixture
def night(make_quick_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A session whose baseline has been measured, and whose train.py now holds an idea that gains mostly on validation."""
    monkeypatch.setattr(open_test, "_POLL_SECONDS", 0.05)
    lab = make_quick_lab()
    wait(lab, experiments.propose(lab, description="baseline", hypothesis="")[0].id, 60)
    train = lab.workspace.train
    train.write_text(train.read_text().replace("val_bpb=2.0", "val_bpb=1.8 test_plus=0.1234"))
    return lab


def test_it_is_refused_in_one_line_before_anything_was_kept(night: Lab) -> None:
    refused = report(night, "--open-test")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "has kept nothing besides its baseline" in refused.stderr


def test_it_tells_of_each_run_and_the_report_has_the_comparison_from_then_on(night: Lab, tmp_path: Path) -> None:
    idea = wait(night, experiments.propose(night, description="an idea", hypothesis="")[0].id, 60)
    experiments.keep(night, idea.id, "a gain")
    assert "test split" not in report(night).stdout.replace("--open-test", "")
    opened = report(night, "--open-test")
    assert opened.exit_code == 0, opened.output
    assert "8 runs: e0001.2, e0001.3, e0001.test1, e0001.test2, e0002.2, e0002.3, e0002.test1, e0002.test2." in opened.stderr
    assert "scored, test_bpb 1.9234" in opened.stderr
    assert SENTENCE in opened.stderr
    head = night.ledger.head()
    for options in ((), ("--open-test",)):
        again = report(night, *options)
        assert again.exit_code == 0
        assert "runs:" not in again.stderr
        assert SENTENCE in again.stdout.replace("\\", "")
    page = tmp_path / "report.html"
    assert report(night, "--output", page).exit_code == 0
    assert "The session overfits the validation set" in page.read_text()
    assert night.ledger.head() == head
    assert night.ledger.verify() == []
