"""A lab is opened after a process died between the record and git."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Verdict


@pytest.fixture
def measured_lab(make_quick_lab: Callable[..., Lab]) -> Lab:
    lab = make_quick_lab()
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    assert wait(lab, baseline.id, 60.0).verdict is Verdict.IMPROVED
    return lab


def test_opening_moves_a_branch_and_makes_a_ref_that_lag_behind(measured_lab: Lab) -> None:
    lab, session = measured_lab, measured_lab.session()
    champion = lab.champion(session)
    assert champion is not None
    git_dir = lab.git.common_dir
    (git_dir / session.branch).write_text(f"{session.base_commit}\n")
    (git_dir / f"refs/autoresearch/{session.tag}/{champion.id}").unlink()
    Lab.open(lab.root, pinned=False).close()
    assert lab.git.ref(session.branch) == champion.commit
    assert lab.git.ref(f"refs/autoresearch/{session.tag}/{champion.id}") == champion.commit


def test_who_looked_before_a_champion_was_kept_does_not_move_its_branch_back(make_quick_lab: Callable[..., Lab]) -> None:
    lab = make_quick_lab()
    earlier = lab.session()
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    assert wait(lab, baseline.id, 60.0).verdict is Verdict.IMPROVED
    assert lab.align_branch(earlier) is None
    assert lab.git.ref(earlier.branch) == baseline.commit != earlier.base_commit


def test_opening_leaves_alone_what_somebody_else_did(measured_lab: Lab) -> None:
    lab, session = measured_lab, measured_lab.session()
    other = lab.git.commit_with_file(session.base_commit, "other.txt", b"theirs", "theirs", 1)
    ref = lab.git.common_dir / session.branch
    ref.write_text(f"{other}\n")
    Lab.open(lab.root, pinned=False).close()
    assert lab.git.ref(session.branch) == other
    (ref.with_name(f"{ref.name}.lock")).touch()  # a git that died with the machine
    ref.write_text(f"{session.base_commit}\n")
    Lab.open(lab.root, pinned=False).close()
    assert lab.git.ref(session.branch) == session.base_commit
