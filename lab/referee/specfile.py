"""Run specs and results as JSON files in the run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict

from ..executor import RunResult, RunSpec
from ..jsonfiles import read_json, write_json
from ..paths import RunPaths
from ..pruning import EarlyStop
from ..states import Outcome

_EARLY_STOP_FIELDS = frozenset(field.name for field in dataclasses.fields(EarlyStop))
_RESULT_FIELDS = frozenset(field.name for field in dataclasses.fields(RunResult))


def write_spec(paths: RunPaths, spec: RunSpec) -> None:
    """Write the spec; the candidate's bytes lie beside it as code/train.py."""
    fields = asdict(spec)
    candidate = fields.pop("candidate")
    paths.code.mkdir(parents=True, exist_ok=True)
    (paths.code / "train.py").write_bytes(candidate)
    write_json(paths.spec, fields, durable=True)


def read_spec(paths: RunPaths) -> RunSpec:
    """Read a spec. Fields that this, perhaps older, pinned harness does not know are left out."""
    known = {field.name for field in dataclasses.fields(RunSpec)}
    fields = {name: value for name, value in read_json(paths.spec).items() if name in known}
    fields["reference_window_nats"] = tuple(fields.get("reference_window_nats", ()))
    if (stop := fields.get("early_stop")) is not None:
        stop = {name: value for name, value in stop.items() if name in _EARLY_STOP_FIELDS}
        fields["early_stop"] = EarlyStop(**{**stop, "parent_losses": tuple(stop["parent_losses"])})
    return RunSpec(candidate=(paths.code / "train.py").read_bytes(), **fields)


def write_result(paths: RunPaths, result: RunResult) -> None:
    write_json(paths.result, asdict(result), durable=True)


def read_result(paths: RunPaths) -> RunResult | None:
    fields = read_json(paths.result)
    return None if fields is None else result_from_json(fields)


def result_from_json(fields: dict) -> RunResult:
    """Rebuild a result from its JSON object. Fields of a newer version are left out, those of an older one are not measured.

    A score without its number, which no referee writes, is invalid.
    """
    kept = {name: fields[name] for name in _RESULT_FIELDS & fields.keys()}
    result = RunResult(**{**kept, "outcome": Outcome(fields["outcome"]), "window_nats": tuple(fields.get("window_nats", ()))})
    if result.outcome is Outcome.SCORED and result.val_bpb is None:
        return dataclasses.replace(result, outcome=Outcome.INVALID, reason="the result says scored, and has no val_bpb")
    return result
