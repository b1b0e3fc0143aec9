"""`autoresearch export`: the file of a lab, another file, or standard output; and never over somebody else's record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.cli.application import app
from typer.testing import CliRunner, Result


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def measured(lab: Lab) -> Lab:
    """A lab with a baseline of 2.5 bits per byte and an idea that crashed, recorded without training."""
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    for outcome, val_bpb, change in ((Outcome.SCORED, 2.5, ""), (Outcome.CRASHED, None, "\nX = 1\n")):
        lab.workspace.train.write_text(lab.workspace.train.read_text() + change)
        experiment, _ = experiments.propose(lab, description="an idea" if change else "baseline", hypothesis="")
        (run,) = lab.ledger.runs(experiment.id)
        result = RunResult(
            outcome=outcome, reason="", val_bpb=val_bpb, standard_error=None if val_bpb is None else 0.0, peak_memory_mb=1536.0
        )
        with lab.ledger.transaction():
            lab.ledger.append("run_finished", {"id": run.id, "result": result_to_json(result)})
            judge_experiment(lab, experiment)
    os.close(hold)
    return lab


def test_it_writes_results_tsv_into_the_lab_with_commits_that_git_knows(measured: Lab) -> None:
    result = call("export", "--lab", measured.root)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(measured.root / "results.tsv")
    _, baseline, crash = (measured.root / "results.tsv").read_text().splitlines()
    commit = baseline.split("\t")[0]
    assert measured.ledger.experiment("e0001").commit.startswith(commit)
    assert baseline == f"{commit}\t2.500000\t1.5\tkeep\tbaseline"
    assert crash.split("\t")[1:] == ["0.000000", "0.0", "crash", "an idea"]
    again = call("export", "--lab", measured.root)
    assert again.exit_code == 0


def test_it_prints_the_file_or_the_facts(measured: Lab, tmp_path: Path) -> None:
    printed = call("export", "--output", "-", "--lab", measured.root)
    assert printed.stdout.startswith("commit\tval_bpb\tmemory_gb\tstatus\tdescription\n")
    assert not (measured.root / "results.tsv").exists()
    facts = json.loads(call("export", "--json", "--output", tmp_path / "a.tsv", "--lab", measured.root).stdout)
    assert (facts["keep"], facts["discard"], facts["crash"], facts["left_out"]) == (1, 0, 1, {})
    assert facts["file"] == str(tmp_path / "a.tsv")
    assert [row["status"] for row in facts["rows"]] == ["keep", "crash"]
    assert (tmp_path / "a.tsv").read_text() == printed.stdout


def test_a_session_without_answers_is_a_header_and_an_unknown_one_an_error(measured: Lab) -> None:
    measured.start_session("second", "tester")
    assert call("export", "--session", "second", "--output", "-", "--lab", measured.root).stdout.count("\n") == 1
    assert call("export", "--session", "all", "--output", "-", "--lab", measured.root).stdout.count("\n") == 3
    unknown = call("export", "--session", "nope", "--lab", measured.root)
    assert unknown.exit_code == 1
    assert "No session 'nope'" in unknown.stderr


def test_a_file_with_somebody_elses_rows_is_not_replaced(measured: Lab, tmp_path: Path) -> None:
    theirs = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n1234567\t0.997900\t44.0\tkeep\tbaseline\n"
    for path, options in ((measured.root / "results.tsv", []), (tmp_path / "b.tsv", ["--output", tmp_path / "b.tsv"])):
        path.write_text(theirs)
        result = call("export", "--lab", measured.root, *options)
        assert result.exit_code == 2
        assert "1234567" in result.stderr
        assert path.read_text() == theirs


def test_a_link_in_the_lab_is_not_followed(measured: Lab, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.txt"
    target.write_text("")
    (measured.root / "results.tsv").symlink_to(target)
    assert call("export", "--lab", measured.root).exit_code == 1
    assert target.read_text() == ""


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_other_formats_have_every_experiment_and_replace_only_their_own_file(
    measured: Lab, form: str, tmp_path: Path
) -> None:
    assert call("export", "--format", form, "--lab", measured.root).exit_code == 0
    path = measured.root / f"results.{form}"
    text = path.read_text()
    assert text.count("\n") == (2 if form == "jsonl" else 3)
    assert measured.ledger.experiment("e0001").commit in text
    assert call("export", "--format", form, "--lab", measured.root).exit_code == 0
    facts = json.loads(call("export", "--format", form, "--json", "--output", tmp_path / "x", "--lab", measured.root).stdout)
    assert facts == {"file": str(tmp_path / "x"), "experiments": 2}
    path.write_text("somebody's notes\n")
    result = call("export", "--format", form, "--lab", measured.root)
    assert result.exit_code == 2
    assert path.read_text() == "somebody's notes\n"


def test_another_file_is_replaced_whole_a_link_to_it_is_followed_and_a_device_stays_one(measured: Lab, tmp_path: Path) -> None:
    target, link = tmp_path / "kept.tsv", tmp_path / "link.tsv"
    link.symlink_to(target)
    assert call("export", "--output", link, "--lab", measured.root).exit_code == 0
    assert link.is_symlink()
    inode = target.stat().st_ino
    assert call("export", "--output", link, "--lab", measured.root).exit_code == 0
    assert target.stat().st_ino != inode, "a reader sees the old file or the new one"
    assert call("export", "--output", "/dev/null", "--lab", measured.root).exit_code == 0
    assert Path("/dev/null").is_char_device()
    assert call("export", "--output", tmp_path / "no" / "folder.tsv", "--lab", measured.root).exit_code == 2
    assert sorted(path.name for path in tmp_path.glob("*.tsv*")) == ["kept.tsv", "link.tsv"]
