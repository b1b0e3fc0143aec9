"""The main job, as a user starts it: a lab, the built-in researcher over stdio, a chart and one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
from autoresearch_mcp.lab.rules import pause
from autoresearch_mcp.lab.states import Decision

MakeLab = Callable[..., Lab]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoresearch_mcp.server.cli", "research", "--lab", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=300, check=False)


def research(folder: Path, *options: str, ideas: int) -> dict[str, Any]:
    """Run `autoresearch research` and return its last line."""
    done = run(folder, "--experiments", str(ideas), "--budget-seconds", "1.5", "--json", *options)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.slow
def test_a_repair_after_a_crashed_baseline_is_what_the_next_research_measures(make_lab: MakeLab, train_py: str) -> None:
    lab = make_lab(train=train_py.replace("import torch", 'raise RuntimeError("not yet")\nimport torch', 1), seconds=1.5)
    failed = run(lab.root, "--experiments", "0")
    assert failed.returncode == 1
    assert "not yet" in failed.stderr
    lab.workspace.train.write_text(train_py)
    assert research(lab.root, ideas=0)["baseline_val_bpb"] is not None
    assert lab.workspace.train.read_text() == train_py


def test_two_autopilots_do_not_share_a_train_py(make_lab: MakeLab) -> None:
    lab = make_lab()
    with locked_if_free(lab.state.root / "autopilot.lock") as ours:
        assert ours
        second = run(lab.root, "--experiments", "0")
    assert second.returncode == 1
    assert "Another autopilot" in second.stderr
    assert lab.ledger.sessions() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--strategy", "genius"), "the built-in ones are: ladder, random"),
        (("--seed", "1"), "--seed is for random"),
    ],
)
def test_a_wrong_strategy_or_seed_is_told_before_anything_is_made(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    refused = run(tmp_path / "lab", *options)
    assert refused.returncode == 2
    assert expected in " ".join(refused.stderr.split())
    assert not (tmp_path / "lab").exists()


def test_a_paused_lab_begins_no_session(make_lab: MakeLab) -> None:
    lab = make_lab()
    pause(lab, "the fan is loud")
    refused = run(lab.root, "--experiments", "0")
    assert refused.returncode == 1
    assert "the fan is loud" in refused.stderr
    assert "autoresearch resume" in refused.stderr
    assert lab.ledger.sessions() == []


@pytest.mark.slow
def test_research_runs_a_session_and_a_second_one_goes_on_from_its_champion(make_lab: MakeLab, train_py: str) -> None:
    train = train_py.replace("LEARNING_RATE", "EMBEDDING_LR")
    lab = make_lab(train=train)
    first = research(lab.root, ideas=1)
    assert (first["strategy"], first["seed"], first["ended_early"]) == ("ladder", None, None)
    assert first["experiments"] == 2
    assert first["kept"] + first["reverted"] == 2
    assert Path(first["chart"]).read_bytes().startswith(b"\x89PNG")
    assert first["best_val_bpb"] <= first["baseline_val_bpb"]
    assert first["ledger_head"] == lab.ledger.head()
    session = lab.ledger.sessions()[0]
    champion = lab.champion_source(session)
    assert lab.workspace.train.read_bytes() == champion

    # A research that was killed leaves its idea in train.py, undecided; the next one settles it first.
    lab.workspace.train.write_bytes(champion + b"\nLEFT_BEHIND = 1\n")
    lab.presence.autopilot = True
    left, _ = experiments.propose(lab, description="left behind", hypothesis="")
    second = research(lab.root, "--strategy", "random", "--seed", "4", ideas=0)
    assert (second["strategy"], second["seed"]) == ("random", 4)
    assert lab.ledger.sessions()[0].researcher == "autopilot (random, seed 4)"
    assert lab.ledger.experiment(left.id).decision is not Decision.PENDING
    assert second["session"] != first["session"]
    assert second["experiments"] == 1
    assert lab.ledger.session(second["session"]) is not None
    assert b"LEFT_BEHIND" not in lab.workspace.train.read_bytes()
    assert lab.ledger.verify() == []
    status = subprocess.run(["git", "status", "--porcelain"], cwd=lab.root, capture_output=True, text=True, check=True)
    assert [line for line in status.stdout.splitlines() if "progress.png" in line] == []
