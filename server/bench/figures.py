"""What one run of the benchmark came to, in numbers that JSON and tables share.

Most are the referee's. What a candidate says of itself (compile, step and optimizer seconds, before the data is opened; its
loader's, while it trains) comes from its curve, and is None where it says nothing. Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...lab.executor import RunResult
from ...lab.peak_flops import utilisation
from ...lab.states import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """One run; seconds unless said, shares from 0 to 1, None: not measured."""

    contender: str
    budget_seconds: float
    repetition: int  # also the seed
    again: bool  # whether it repeats a contended run
    outcome: str
    reason: str
    contended: str | None  # why it did not have its device to itself
    tainted: str | None  # which pin did not hold
    others_share: float | None
    val_bpb: float | None
    standard_error: float | None
    tokens_per_second: float | None  # of training, on the budget's clock
    steps: int | None
    train_tokens: int | None
    elapsed_seconds: float | None  # on the budget's clock
    training_seconds: float | None  # START to exit, on the wall
    startup_seconds: float | None  # up to START, on the wall
    startup_core_seconds: float | None  # CPU time of the process tree up to START
    compile_seconds: float | None
    scoring_seconds: float | None
    overhead_seconds: float  # call to verdict, less the training on the wall
    optimizer_share: float | None  # of a step, Muon's
    loader_share: float | None  # of a step
    model_flops_utilisation: float | None
    forward_flops_per_token: float | None
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None

    @property
    def scored(self) -> bool:
        return self.outcome == Outcome.SCORED


def run_figures(
    result: RunResult,
    curve: Sequence[Mapping[str, Any]],
    *,
    contender: str,
    budget_seconds: float,
    repetition: int,
    again: bool,
    call_seconds: float,
    loader_seconds_per_token: float | None,
) -> RunFigures:
    """Return the figures of a run.

    Args:
        curve: the points of its curve, in their order.
        call_seconds: from the call to the verdict, on the wall.
        loader_seconds_per_token: of the loader by itself, for a run that does not measure it; None: not measured.
    """
    said = next((point for point in curve if point.get("seconds") == 0.0 and "step_seconds" in point), {})
    step_seconds, elapsed = said.get("step_seconds"), result.elapsed_seconds
    last = curve[-1] if curve else {}
    tokens = _whole(last.get("tokens")) or result.train_tokens  # the loader's count has what was fetched ahead, too
    flops, device = result.forward_flops_per_token, result.device_name
    share = None
    if tokens and elapsed and flops and device:
        share = utilisation(forward_flops_per_token=flops, tokens=tokens, seconds=elapsed, device_name=device)
    loader_share = None
    if "loader_seconds" in last:
        loader_share = _ratio(last["loader_seconds"], last["seconds"])
    elif loader_seconds_per_token is not None and tokens:
        loader_share = _ratio(loader_seconds_per_token * tokens, elapsed)
    return RunFigures(
        contender=contender,
        budget_seconds=budget_seconds,
        repetition=repetition,
        again=again,
        outcome=result.outcome,
        reason=result.reason,
        contended=result.contended,
        tainted=result.tainted,
        others_share=result.others_share,
        val_bpb=result.val_bpb,
        standard_error=result.standard_error,
        tokens_per_second=_ratio(tokens, elapsed),
        steps=result.steps,
        train_tokens=tokens,
        elapsed_seconds=elapsed,
        training_seconds=result.wall_seconds,
        startup_seconds=result.startup_seconds,
        startup_core_seconds=result.startup_cpu_seconds,
        compile_seconds=said.get("compile_seconds"),
        scoring_seconds=result.scoring_seconds,
        overhead_seconds=round(call_seconds - (result.wall_seconds or 0.0), 3),
        optimizer_share=_ratio(said.get("muon_seconds"), step_seconds),
        loader_share=loader_share,
        model_flops_utilisation=share,
        forward_flops_per_token=flops,
        peak_memory_mb=result.peak_memory_mb,
        peak_gpu_memory_mb=result.peak_gpu_memory_mb,
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
