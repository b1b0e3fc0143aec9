"""What a run takes from the configuration of a lab: the part of a `RunSpec` that all runs of one configuration share."""

from __future__ import annotations

from pathlib import Path

from .config import LabConfig
from .executor import RunSpec
from .isolation import Isolation
from .machine import cores, total_memory_mb
from .paths import StatePaths


def spec_of(
    config: LabConfig,
    state: StatePaths,
    isolation: Isolation,
    *,
    run_id: str,
    candidate: bytes,
    harness: Path,
    device: str,
    seed: int,
    slots: int = 1,
) -> RunSpec:
    """Return the spec of a run that any claim may be kept from; ``slots`` runs share this machine."""
    profile = config.profile_facts
    return RunSpec(
        run_id=run_id,
        candidate=candidate,
        harness=str(harness),
        corpus=config.corpus_name,
        profile=config.profile,
        device=device,
        cores=max(1, cores() // slots),
        seed=seed,
        clock=config.clock_kind,
        budget_seconds=config.budget.seconds,
        startup_seconds=config.budget.startup_seconds,
        scoring_seconds=config.budget.scoring_seconds,
        context_length=profile.context_length,
        memory_mb=config.resolved_memory_mb(total_memory_mb() // slots),
        processes=config.limits.processes,
        disk_mb=config.limits.disk_mb,
        log_kb=config.limits.log_kb,
        validation_secret=str(state.validation_secret),
        validation_bytes=profile.validation_bytes,
        window_bytes=profile.window_bytes,
        audits=profile.audits,
        audits_before_keep=profile.audits_before_keep,
        isolation=isolation.level,
    )
