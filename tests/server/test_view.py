"""What a person sees while the autopilot works: on a terminal, and as plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from autoresearch_mcp.server.autopilot.view import watching
from autoresearch_mcp.tools.results import SessionAnswer
from rich.console import Console

SESSION = SessionAnswer(
    tag="nov25",
    is_new=True,
    branch="autoresearch/nov25",
    budget_seconds=20.0,
    clock="core_seconds",
    profile="cpu",
    gate="any",
    sigma=0.02,
    sigma_source="a prior",
    comparability_group="g",
    champion=None,
    champion_val_bpb=None,
    researcher="autopilot",
    train_file="trainer/train.py",
    experiments=0,
    warnings=["program.md differs from the accepted one"],
    next=[],
    ledger_head="0" * 64,
)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_warning_of_the_session_is_shown(terminal: bool) -> None:
    screen = io.StringIO()
    with watching(Console(file=screen, force_terminal=terminal, width=120), experiments=5) as view:
        view.session_started(SESSION)
        assert "warning: program.md differs from the accepted one" in screen.getvalue()
        assert "nov25" in screen.getvalue()
