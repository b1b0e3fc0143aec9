"""Runs and reports with numbers that tests choose."""

from __future__ import annotations

from typing import Any

from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.bench.benchmark import Plan, Report
from autoresearch_mcp.server.bench.contenders import NAMES, Contender
from autoresearch_mcp.server.bench.figures import RunFigures, run_figures
from autoresearch_mcp.server.bench.machine import Machine

CURVE = [
    {"step": 0, "seconds": 0.0, "compile_seconds": 12.0, "step_seconds": 0.5, "muon_seconds": 0.05},
    {"step": 1, "seconds": 1.0, "loss": 5.0, "tokens": 2048},
    {"step": 60, "seconds": 59.0, "loss": 2.0, "tokens": 122_880},
]


def result(**changed: Any) -> RunResult:
    """What the referee says of an ordinary run of 60 seconds."""
    fields: dict[str, Any] = {
        "outcome": Outcome.SCORED,
        "reason": "scored",
        "val_bpb": 2.0,
        "standard_error": 0.01,
        "startup_seconds": 20.0,
        "startup_cpu_seconds": 30.0,
        "elapsed_seconds": 60.0,
        "wall_seconds": 61.0,
        "scoring_seconds": 5.0,
        "steps": 60,
        "train_tokens": 124_928,
        "forward_flops_per_token": 2e6,
    }
    return RunResult(**{**fields, **changed})


def figures(
    contender: str = "ours",
    repetition: int = 1,
    *,
    budget_seconds: float = 60.0,
    again: bool = False,
    curve: list[dict[str, Any]] | None = None,
    loader_seconds_per_token: float | None = None,
    **changed: Any,
) -> RunFigures:
    return run_figures(
        result(**changed),
        CURVE if curve is None else curve,
        contender=contender,
        budget_seconds=budget_seconds,
        repetition=repetition,
        again=again,
        call_seconds=90.0,
        loader_seconds_per_token=loader_seconds_per_token,
    )


def report(
    *runs: RunFigures, profile: Any = "cpu", processor: str = "Some CPU (avx2), 4 cores", gpu: str | None = None
) -> Report:
    budgets = tuple(dict.fromkeys(run.budget_seconds for run in runs)) or (60.0,)
    return Report(
        plan=Plan(profile=profile, budgets_seconds=budgets, repeats=3, corpus="wheels", contenders=NAMES),
        machine=Machine(
            processor=processor,
            cores=4,
            memory_mb=16_384,
            gpu=gpu,
            system="Linux 6.1",
            python="3.11.7",
            torch="2.13.0",
            version="0.1.0",
            commit="0123456789abcdef0123456789abcdef01234567",
            dirty=False,
        ),
        corpus_id="0123456789abcdef",
        began_at=1_800_000_000.0,
        background_share=0.01,
        isolation="bubblewrap",
        contenders=tuple(Contender(name=name, source=name.encode(), sizes={"DEPTH": 3}) for name in NAMES),
        loader_seconds_per_token={"ours": 1e-8},
        runs=runs,
    )
