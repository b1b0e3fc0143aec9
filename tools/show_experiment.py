"""show_experiment: one experiment in full, a part at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, get_args

from pydantic import Field

from ..lab.candidate import changed_constants, check_candidate, unified_diff
from ..lab.confirmation import run_that_counts
from ..lab.curves import lines_of, reports_of
from ..lab.dispatch import dispatch, run_shown
from ..lab.executor import RunResult
from ..lab.lab import Lab
from ..lab.paths import TRAIN_FILE
from ..lab.programs import DIGITS
from ..lab.records import Experiment, Run
from .charts import CurvesChart, curves_of, table_of
from .describe import clean, describe, shorten
from .programs import program_text
from .results import Part, PartAnswer, number

PART_BYTES = 7_500
_JSON_BYTES = 8_500  # of a part as a string of JSON, where quotes and ends of lines are two bytes
_CURVE_POINTS = 60
_LOG_BYTES = 1 << 22
_CURVE_START_BYTES = 65_536  # where train.py says what it says once
_PARAMETERS = ("parameters", "num_params", "params", "n_params")
_MOST_CONSTANTS = 20
_VALUE_BYTES = 60
_DESCRIPTION_BYTES = 200


def show_experiment(
    lab: Lab,
    experiment_id: Annotated[str, Field(description="Such as 'e0017'.")],
    part: Annotated[
        Part,
        Field(
            description="summary: every number; diff: against the parent; log: what train.py printed; curve: its reports; "
            "chart: the curve beside the parent's and the champion's, with a PNG; program: the program.md that it ran under."
        ),
    ] = "summary",
    against: Annotated[str, Field(description="Another experiment: shows the diff from it to this one.")] = "",
) -> PartAnswer:
    """Show one experiment, a part at a time: numbers, diff, end of the log, training curve, or its program.md.

    Use it when an experiment crashed or surprised you, or to build on an old one. Next: keep, revert, or another idea.
    """
    dispatch(lab)
    experiment = lab.ledger.experiment(experiment_id)
    part = "diff" if against else part
    chart = curves_of(lab, experiment) if part == "chart" else None
    if against:
        content, omitted = _against(lab, lab.ledger.experiment(against), experiment)
    else:
        content, omitted = _chart(chart) if part == "chart" else _PARTS[part](lab, experiment)
    others = [other for other in get_args(Part) if other != part]
    answer = PartAnswer(
        id=experiment.id,
        part=part,
        content=content,
        omitted=omitted,
        next=[f"show_experiment('{experiment.id}', part='{other}')" for other in others],
        ledger_head=lab.ledger.head(),
    )
    return answer.with_chart(chart)


def _chart(chart: CurvesChart | None) -> tuple[str, str]:
    """Say in numbers what the picture shows."""
    return ("(train.py reported no number, so there is nothing to draw)" if chart is None else table_of(chart)), ""


def _summary(lab: Lab, experiment: Experiment) -> tuple[str, str]:
    lines = [describe(lab, experiment).body(), *_facts(lab, experiment)]
    lines.append(f"commit {experiment.commit}, lines {experiment.lines}")
    said: Mapping[str, str] = {}
    for run in lab.ledger.runs(experiment.id):
        lines.append(f"run {run.id}: {run.state}, attempt {run.attempt}, seed {run.seed}, device {run.device}")
        if run.result is not None:
            facts = {
                name: value
                for name in [
                    "outcome",
                    "val_bpb",
                    "standard_error",
                    "claimed_bpb",
                    "audits",
                    "scored_bytes",
                    "scored_tokens",
                    "vocab_size",
                    "startup_seconds",
                    "startup_cpu_seconds",
                    "startup_deducted_seconds",
                    "elapsed_seconds",
                    "wall_seconds",
                    "cpu_seconds",
                    "scoring_seconds",
                    "bulk_cpu_seconds",
                    "audit_cpu_seconds",
                    "total_seconds",
                    "steps",
                    "train_tokens",
                    "forward_flops_per_token",
                    "model_flops_utilisation",
                    "others_share",
                    "contended",
                    "tainted",
                    "peak_memory_mb",
                    "device_name",
                    "driver_version",
                    "peak_gpu_memory_mb",
                    "allocated_gpu_memory_mb",
                    "exit_code",
                    "log_bytes",
                ]
                if (value := getattr(run.result, name)) is not None
            }
            lines.append(json.dumps(facts))
            lines += _claim(run.result)
            if run.result.guarantees and run.result.guarantees != said:
                said = run.result.guarantees
                lines += [f"guarantee: {name} ({how})" for name, how in run.result.guarantees.items()]
    return _cut("\n".join(lines), keep_end=False)


def _facts(lab: Lab, experiment: Experiment) -> list[str]:
    """Say what can be read from the candidate and its runs: theme, change, and what it counted."""
    lines = [f"theme {experiment.theme}"]
    if not experiment.is_baseline:
        counts = f"{experiment.added} lines added, {experiment.removed} removed"
        lines = [f"theme {experiment.theme}: {_constants(experiment.changes)}{counts}"]
    found = run_that_counts(experiment, lab.ledger.runs(experiment.id))
    if found is None:
        return lines
    run, result = found
    counted = (
        ("parameters (as reported)", _reported_parameters(lab, run), ",.0f"),
        ("tokens seen", result.train_tokens, ",d"),
        ("steps", result.steps, ",d"),
        ("peak memory MB", result.peak_memory_mb, ".0f"),
        ("peak GPU memory MB", result.peak_gpu_memory_mb, ".0f"),
    )
    said = [f"{name} {value:{spec}}" for name, value, spec in counted if value is not None]
    return [*lines, ", ".join(said)] if said else lines


def _constants(changes: Mapping[str, tuple[str | None, str | None]]) -> str:
    """Return changed constants, each followed by a comma."""
    shown = [f"{name} {_value(old)} -> {_value(new)}, " for name, (old, new) in list(changes.items())[:_MOST_CONSTANTS]]
    return "".join(shown) + (f"{len(changes) - len(shown)} more constants, " if len(changes) > len(shown) else "")


def _value(text: str | None) -> str:
    return "none" if text is None else shorten(text, _VALUE_BYTES)


def _reported_parameters(lab: Lab, run: Run) -> float | None:
    """Return how many parameters train.py reported, under one of the usual names; None: it did not."""
    for report in reports_of(lab.state.run(run.attempt_id).curve, most_bytes=_CURVE_START_BYTES):
        with suppress(ValueError, TypeError):
            if (name := next((name for name in _PARAMETERS if name in report), None)) is not None:
                return float(report[name])
    return None


def _claim(result: RunResult) -> list[str]:
    """Say what the model claimed where that is not what was certified."""
    claimed, certified = result.claimed_bpb, result.val_bpb
    if claimed is None or (certified is not None and f"{claimed:.4f}" == f"{certified:.4f}"):
        return []
    if certified is None:
        return [f"claimed {claimed:.4f}, which the referee did not certify"]
    return [
        f"claimed {claimed:.4f}, certified {certified:.4f}: {result.audits} audits corrected it by {certified - claimed:+.4f}"
    ]


def _diff(lab: Lab, experiment: Experiment) -> tuple[str, str]:
    if experiment.parent is None:
        return "(the baseline has no parent)", ""
    parent, source = (
        lab.ledger.stored(each.candidate_sha256) for each in (lab.ledger.experiment(experiment.parent), experiment)
    )
    return _cut(unified_diff(parent, source), keep_end=False, hint=f"git show {experiment.commit[:12]} has the whole diff")


def _against(lab: Lab, other: Experiment, experiment: Experiment) -> tuple[str, str]:
    """Say what changed from one experiment to another: both numbers, the constants, and the diff."""
    before, after = (lab.ledger.stored(each.candidate_sha256) for each in (other, experiment))
    diff = unified_diff(before, after)
    added, removed = (sum(line.startswith(mark) for line in diff.splitlines()[2:]) for mark in "+-")
    constants = changed_constants(*(check_candidate(source, None) for source in (before, after)))
    lines = [
        f"from {_named(other)}",
        f"to {_named(experiment)}",
        *([] if _group(lab, other) == _group(lab, experiment) else ["(measured under other conditions: not comparable)"]),
        f"{_constants(constants)}{added} lines added, {removed} removed" if diff else "(the same bytes)",
    ]
    command = f"git diff {other.commit[:12]} {experiment.commit[:12]} -- {TRAIN_FILE}"
    return _cut("\n".join([*lines, "", diff]).rstrip("\n"), keep_end=False, hint=f"the whole diff: {command}")


def _named(experiment: Experiment) -> str:
    words = f"{experiment.verdict or 'running'}, {experiment.decision}, val_bpb {number(experiment.val_bpb, '.4f')}"
    return f"{experiment.id} ({words}): {shorten(experiment.description, _DESCRIPTION_BYTES)}"


def _group(lab: Lab, experiment: Experiment) -> str:
    return lab.ledger.session_now(experiment.session).group


def _log(lab: Lab, experiment: Experiment) -> tuple[str, str]:
    run = run_shown(lab, experiment)
    text = clean(lab.executor.log(run.attempt_id, limit=_LOG_BYTES))
    quoted = "\n".join(f"> {line}" for line in text.splitlines())
    return _cut(quoted, keep_end=True, hint=f"the whole log: {lab.state.run(run.attempt_id).log}")


def _curve(lab: Lab, experiment: Experiment) -> tuple[str, str]:
    path = lab.state.run(run_shown(lab, experiment).attempt_id).curve
    points = [line.decode(errors="replace") for line in lines_of(path)]
    longest = max(map(_json_bytes, points), default=1)
    stride = max(1, -(-len(points) // max(2, min(_CURVE_POINTS, PART_BYTES // longest - 1))))
    shown = points[::stride]
    if points and shown[-1] != points[-1]:
        shown.append(points[-1])
    omitted = f"{len(shown)} of {len(points)} points; all of them: {path}" if stride > 1 else ""
    return "\n".join(shown), omitted


def _program(lab: Lab, experiment: Experiment) -> tuple[str, str]:
    sha256 = experiment.program_sha256
    head = f"program.md {sha256[:DIGITS]} (SHA-256 {sha256}), as the human had accepted it:\n"
    hint = f"the whole text: autoresearch show {experiment.id} --part program"
    return _cut(head + program_text(lab, sha256), keep_end=False, hint=hint)


_PARTS: Mapping[str, Callable[[Lab, Experiment], tuple[str, str]]] = {
    "summary": _summary,
    "diff": _diff,
    "log": _log,
    "curve": _curve,
    "program": _program,
}


def _cut(text: str, *, keep_end: bool, hint: str = "") -> tuple[str, str]:
    data, room = text.encode(), PART_BYTES
    while True:
        kept = (data[-room:] if keep_end else data[:room]).decode(errors="ignore")
        if (size := _json_bytes(kept)) <= _JSON_BYTES:
            break
        room = room * _JSON_BYTES // size
    if kept == text:
        return text, ""
    side = "before" if keep_end else "after"
    return kept, f"{len(data) - len(kept.encode())} bytes left out {side} this; {hint}".rstrip("; ")


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())
