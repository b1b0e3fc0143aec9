"""What `autoresearch export` writes: results.tsv as karpathy/autoresearch has it, JSON lines, and CSV for spreadsheets.

Pure: records in, text out. The ledger is the record; these are views of it, and nothing reads them back. Guarantees: in the
two tables every row is one record of as many fields as the header, whatever a description holds; no cell of the CSV is a
formula to a spreadsheet; a commit is one of this lab's repository. What upstream has no status for (undecided, cancelled,
lost) is left out of results.tsv and counted; the others have every experiment.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from .records import Experiment, Run
from .states import NO_EVIDENCE, Decision

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
COMMIT_DIGITS = 7

Status = Literal["keep", "discard", "crash"]
Format = Literal["tsv", "jsonl", "csv"]

_MB_PER_GB = 1024  # as upstream divides
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a text a formula to a spreadsheet (OWASP, CSV injection)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One line of results.tsv; a crash, like everything that got no number, has zeros."""

    commit: str
    val_bpb: float
    memory_gb: float  # the highest of the experiment's runs: the GPU's where one was used
    status: Status
    description: str

    def line(self) -> str:
        return f"{self.commit}\t{self.val_bpb:.6f}\t{self.memory_gb:.1f}\t{self.status}\t{self.description}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The rows of some experiments, and how many experiments have none, by reason."""

    rows: tuple[ResultRow, ...]
    left_out: Mapping[str, int]

    def tsv(self) -> str:
        """Return the file: a header and the rows, each ended by a line feed."""
        return "".join(f"{line}\n" for line in ("\t".join(COLUMNS), *(row.line() for row in self.rows)))

    def count(self, status: Status) -> int:
        return sum(row.status == status for row in self.rows)


def export_results(experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]]) -> Results:
    """Return the results of ``experiments`` in their order; ``runs`` has those of each by its id."""
    rows: list[ResultRow] = []
    left_out: dict[str, int] = {}
    for experiment in experiments:
        status = _status(experiment)
        if status is None:
            reason = "undecided" if experiment.verdict not in NO_EVIDENCE else str(experiment.verdict)
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        crashed = status == "crash"
        rows.append(
            ResultRow(
                commit=experiment.commit[:COMMIT_DIGITS],
                val_bpb=0.0 if crashed else round(experiment.val_bpb or 0.0, 6),
                memory_gb=0.0 if crashed else _memory_gb(runs.get(experiment.id, ())),
                status=status,
                description=one_field(experiment.description),
            )
        )
    return Results(rows=tuple(rows), left_out=left_out)


def jsonl_text(experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]]) -> str:
    """Return one JSON object a line: every field of the experiment, and under ``runs`` those of each run with its result.

    Only the nats of each validation window are left out: thousands of numbers, which stay in the record.
    """
    lines = ({**asdict(each), "runs": [_run_fields(run) for run in runs.get(each.id, ())]} for each in experiments)
    return "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)


def csv_text(experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]]) -> str:
    """Return a table of every field of the experiments and what their runs came to, with a header.

    A text that a spreadsheet would take for a formula begins with an apostrophe there; numbers are as they are.
    """
    output = io.StringIO()
    names = tuple(field.name for field in fields(Experiment))
    table = csv.writer(output, lineterminator="\n")
    table.writerow((*names, "runs", "memory_gb", "device_seconds"))
    for each in experiments:
        its = runs.get(each.id, ())
        seconds = sum(run.result.total_seconds for run in its if run.result is not None)
        values = (getattr(each, name) for name in names)
        table.writerow((*map(_cell, values), len(its), _memory_gb(its), round(seconds, 1)))
    return output.getvalue()


def foreign_commits(text: str, experiments: Sequence[Experiment], form: Format = "tsv") -> list[str]:
    """Return what names the rows of ``text`` that are no ``experiments``: their commit, or what stands in its place.

    A header is none of them; what is no table of this form is foreign as a whole.
    """
    if form == "tsv":
        ours = {experiment.commit[:COMMIT_DIGITS] for experiment in experiments}
        found = [line.partition("\t")[0] for line in text.splitlines() if line.strip()]
        return [field for field in found if field != COLUMNS[0] and field not in ours]
    ours = {experiment.commit for experiment in experiments}
    try:
        if form == "jsonl":
            commits = [json.loads(line)["commit"] for line in text.splitlines() if line.strip()]
        else:
            commits = [row["commit"] for row in csv.DictReader(io.StringIO(text), strict=True)]
            if text.strip() and not commits:
                commits = [] if text.startswith("id,") else [text[:40]]
    except (ValueError, KeyError, TypeError, csv.Error):
        return [text[:40]]
    return [str(commit) for commit in commits if commit not in ours]


def one_field(text: str) -> str:
    """Return ``text`` on one line, without tabs, control characters, and the quotes that readers of tables pair up."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split()).replace('"', "'")


def _run_fields(run: Run) -> dict[str, Any]:
    found = asdict(run)
    if found["result"] is not None:
        del found["result"]["window_nats"]
    return found


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    flat = one_field(value)
    return f"'{flat}" if flat.startswith(_FORMULA) else flat


def _status(experiment: Experiment) -> Status | None:
    if experiment.verdict is None or experiment.verdict in NO_EVIDENCE:
        return None
    if not experiment.verdict.has_number():
        return "crash"
    return {Decision.KEPT: "keep", Decision.REVERTED: "discard", Decision.PENDING: None}[experiment.decision]


def _memory_gb(runs: Sequence[Run]) -> float:
    peaks = [
        run.result.peak_memory_mb if run.result.peak_gpu_memory_mb is None else run.result.peak_gpu_memory_mb
        for run in runs
        if run.result is not None
    ]
    return round(max((peak for peak in peaks if peak is not None), default=0.0) / _MB_PER_GB, 1)
