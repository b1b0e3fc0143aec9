"""results.tsv, as karpathy/autoresearch writes it: five columns for each experiment that has an answer.

Pure: records in, text out. Guarantees: every row is one line of five fields, whatever a description holds, and its commit is
one of this lab's repository. What upstream has no status for (undecided, cancelled, lost) is left out and counted. The ledger
is the record; this is a view of it, and nothing reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .records import Experiment, Run
from .states import NO_ANSWER, Decision

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
COMMIT_DIGITS = 7

Status = Literal["keep", "discard", "crash"]

_MB_PER_GB = 1024  # as upstream divides


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
            reason = "undecided" if experiment.verdict not in NO_ANSWER else str(experiment.verdict)
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


def foreign_commits(tsv: str, experiments: Sequence[Experiment]) -> list[str]:
    """Return the first fields of the rows of ``tsv`` that are no commits of ``experiments``; a header is none either."""
    ours = {experiment.commit[:COMMIT_DIGITS] for experiment in experiments}
    fields = [line.partition("\t")[0] for line in tsv.splitlines() if line.strip()]
    return [field for field in fields if field != COLUMNS[0] and field not in ours]


def one_field(text: str) -> str:
    """Return ``text`` on one line, without tabs, control characters, and the quotes that readers of tables pair up."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split()).replace('"', "'")


def _status(experiment: Experiment) -> Status | None:
    if experiment.verdict is None or experiment.verdict in NO_ANSWER:
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
