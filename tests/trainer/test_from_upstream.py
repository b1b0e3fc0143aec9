"""A file in upstream's style: refused with the document's name, and scored once the document's patch is applied to it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.paths import TRAIN_FILE
from autoresearch_mcp.lab.states import Decision

ROOT = Path(__file__).resolve().parents[2]
STYLE = Path(__file__).with_name("upstream_style.py").read_text()
PATCH = ROOT / "docs" / "from-upstream.patch"
DOCUMENT = ROOT / "docs" / "FROM-UPSTREAM.md"


def patched(folder: Path) -> str:
    """Apply the patch to the file in upstream's style, below ``folder``."""
    train = folder / TRAIN_FILE
    train.parent.mkdir(parents=True)
    train.write_text(STYLE)
    subprocess.run(["git", "apply", str(PATCH)], cwd=folder, check=True, capture_output=True)
    return train.read_text()


def test_the_unpatched_file_is_refused_by_a_message_that_names_the_document() -> None:
    with pytest.raises(CandidateError, match=r"imports kernels; .*docs/FROM-UPSTREAM\.md"):
        check_candidate(STYLE.encode(), None)


def test_the_patched_file_is_a_fair_candidate_without_a_seed_of_its_own(tmp_path: Path) -> None:
    facts = check_candidate(patched(tmp_path).encode(), None)
    assert facts.warnings == ()
    assert {"DEPTH", "TOTAL_BATCH_SIZE", "MATRIX_LR"} <= set(facts.constants)


def test_the_document_shows_the_patch_as_it_is() -> None:
    assert f"```diff\n{PATCH.read_text()}```\n" in DOCUMENT.read_text()


@pytest.mark.slow
def test_the_patched_file_trains_and_gets_a_certified_number(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = make_lab(train=patched(tmp_path / "clone"), seconds=6.0)
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    experiment = wait(lab, experiment.id, 300.0)
    result = lab.ledger.runs(experiment.id)[0].result
    log = lab.executor.log(f"{experiment.id}.1").decode()
    assert result is not None, "the run did not end in time"
    assert experiment.val_bpb is not None, f"{experiment.reason}\n{log}"
    assert experiment.val_bpb < 5.0  # a uniform guess over the vocabulary costs more
    assert experiment.decision is Decision.KEPT
    assert result.vocab_size == 2048
    assert (result.steps or 0) > 3
    assert "num_steps:" in log
