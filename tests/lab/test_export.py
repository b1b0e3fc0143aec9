"""results.tsv: upstream's columns and statuses, one line for each answer, whatever a description holds; JSON lines; CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.export import COLUMNS, csv_text, export_results, foreign_commits, jsonl_text, one_field
from autoresearch_mcp.lab.records import Experiment, Run
from autoresearch_mcp.lab.states import Decision, Outcome, Purpose, RunState, Verdict

MakeExperiment = Callable[..., Experiment]


def run_of(experiment: Experiment, *, number: int = 1, **result: object) -> Run:
    return Run(
        id=f"{experiment.id}.{number}",
        experiment=experiment.id,
        attempt=1,
        seed=1,
        purpose=Purpose.PROPOSED,
        device="cpu",
        state=RunState.FINISHED,
        result=RunResult(outcome=Outcome.SCORED, reason="", **result),  # type: ignore[arg-type]
        created_at=0.0,
        finished_at=1.0,
        started_at=0.5,
    )


def test_keep_discard_and_crash_read_as_upstream_writes_them(experiment_of: MakeExperiment) -> None:
    kept = experiment_of(1, decision=Decision.KEPT, val_bpb=0.9979, description="baseline")
    worse = experiment_of(2, verdict=Verdict.WORSE, val_bpb=1.005, description="switch to GeLU")
    crashed = experiment_of(3, verdict=Verdict.CRASHED, description="twice the width")
    runs = {
        kept.id: [run_of(kept, peak_memory_mb=45_060.2)],
        worse.id: [run_of(worse, peak_memory_mb=512.0, number=1), run_of(worse, peak_memory_mb=2048.0, number=2)],
        crashed.id: [run_of(crashed, peak_memory_mb=9_000.0)],
    }
    assert export_results([kept, worse, crashed], runs).tsv() == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "0000000\t0.997900\t44.0\tkeep\tbaseline\n"
        "0000000\t1.005000\t2.0\tdiscard\tswitch to GeLU\n"
        "0000000\t0.000000\t0.0\tcrash\ttwice the width\n"
    )


def test_the_memory_is_the_gpus_where_one_was_used(experiment_of: MakeExperiment) -> None:
    kept = experiment_of(1, decision=Decision.KEPT, val_bpb=1.0)
    (row,) = export_results([kept], {kept.id: [run_of(kept, peak_memory_mb=3072.0, peak_gpu_memory_mb=10_240.0)]}).rows
    assert row.memory_gb == 10.0


@pytest.mark.parametrize("verdict", [Verdict.CRASHED, Verdict.TIMED_OUT, Verdict.INVALID])
@pytest.mark.parametrize("decision", [Decision.PENDING, Decision.REVERTED])
def test_what_got_no_number_is_a_crash(experiment_of: MakeExperiment, verdict: Verdict, decision: Decision) -> None:
    (row,) = export_results([experiment_of(1, verdict=verdict, decision=decision)], {}).rows
    assert row.line().split("\t")[1:4] == ["0.000000", "0.0", "crash"]


def test_what_upstream_has_no_status_for_is_left_out_and_counted(experiment_of: MakeExperiment) -> None:
    without = [
        experiment_of(1, verdict=None, decision=Decision.PENDING),
        experiment_of(2, verdict=Verdict.WORSE, val_bpb=1.0, decision=Decision.PENDING),
        experiment_of(3, verdict=Verdict.CANCELLED, decision=Decision.REVERTED),
        experiment_of(4, verdict=Verdict.LOST, decision=Decision.PENDING),
        experiment_of(5, verdict=Verdict.PRUNED, decision=Decision.REVERTED),
    ]
    results = export_results(without, {})
    assert results.rows == ()
    assert results.left_out == {"undecided": 2, "cancelled": 1, "lost": 1, "pruned": 1}


@pytest.mark.parametrize(
    "description",
    [
        "a\tb",
        "a\nkeep\t0.1",
        "a\r\nb",
        'say "hi',
        '"',
        "a\x0bb\x1cc\u2028d\x85e",
        "\x00\x1b[2Jz",
        "\u202eback",
        "ünï \U0001f600",
    ],
)
def test_no_description_breaks_a_line_a_field_or_a_reader_of_tables(experiment_of: MakeExperiment, description: str) -> None:
    rows = [experiment_of(n, decision=Decision.KEPT, val_bpb=1.0, description=description) for n in (1, 2)]
    text = export_results(rows, {}).tsv()
    assert len(text.splitlines()) == 3
    read = list(csv.reader(io.StringIO(text), delimiter="\t"))
    assert [len(fields) for fields in read] == [len(COLUMNS)] * 3
    assert read[1][-1] == read[2][-1] == one_field(description)


def test_rows_of_another_record_are_recognised(experiment_of: MakeExperiment) -> None:
    ours = experiment_of(1, commit="abcdef0123" + "0" * 30, decision=Decision.KEPT, val_bpb=1.0)
    text = export_results([ours], {}).tsv()
    assert foreign_commits(text, [ours]) == []
    assert foreign_commits("", [ours]) == []
    assert foreign_commits(text + "1234567\t1.0\t0.0\tkeep\ttheirs\n", [ours]) == ["1234567"]


def test_json_lines_hold_every_experiment_with_all_of_its_runs(experiment_of: MakeExperiment) -> None:
    kept = experiment_of(1, decision=Decision.KEPT, val_bpb=0.9979, description='a "quoted"\nidea \u2028 ünï')
    running = experiment_of(2, verdict=None, decision=Decision.PENDING)
    runs = {kept.id: [run_of(kept, val_bpb=1.0, window_nats=(1.0, 2.0)), run_of(kept, number=2)]}
    lines = jsonl_text([kept, running], runs).split("\n")
    assert lines.pop() == ""
    first, second = map(json.loads, lines)
    assert (first["description"], first["verdict"], first["decision"]) == (kept.description, "improved", "kept")
    assert [run["id"] for run in first["runs"]] == ["e0001.1", "e0001.2"]
    assert (first["runs"][0]["result"]["val_bpb"], first["runs"][0]["state"]) == (1.0, "finished")
    assert "window_nats" not in first["runs"][0]["result"]
    assert (second["id"], second["verdict"], second["runs"]) == ("e0002", None, [])


@pytest.mark.parametrize(
    "text", ["=1+1", "+1 layer", "-5% width", "@SUM(A1)", '=HYPERLINK("http://x";"y")', "\t=1", "\r=1", " =1"]
)
def test_no_text_of_the_csv_is_a_formula_to_a_spreadsheet(experiment_of: MakeExperiment, text: str) -> None:
    row = experiment_of(1, description=text, hypothesis=text, note=text, reason=text, researcher=text, delta=-0.25)
    (read,) = csv.DictReader(io.StringIO(csv_text([row], {row.id: [run_of(row, peak_memory_mb=2048.0, total_seconds=7.0)]})))
    for name in ("description", "hypothesis", "note", "reason", "researcher"):
        assert read[name] == f"'{one_field(text)}"
    assert read["delta"] == "-0.25", "a number is no text"
    assert (read["id"], read["runs"], read["memory_gb"], read["device_seconds"]) == ("e0001", "1", "2.0", "7.0")


def test_the_csv_has_one_line_for_each_experiment(experiment_of: MakeExperiment) -> None:
    rows = [experiment_of(n, description='a\nb, "c"\x00', note=",") for n in (1, 2)]
    assert len(csv_text(rows, {}).splitlines()) == 3


def test_rows_of_another_record_are_recognised_in_every_format(experiment_of: MakeExperiment) -> None:
    ours, theirs = experiment_of(1), experiment_of(2)
    assert foreign_commits(jsonl_text([ours, ours], {}), [ours], "jsonl") == []
    assert foreign_commits(csv_text([ours, ours], {}), [ours], "csv") == []
    assert foreign_commits(jsonl_text([ours, theirs], {}), [ours], "jsonl") == [theirs.commit]
    assert foreign_commits(csv_text([theirs], {}), [ours], "csv") == [theirs.commit]
    assert foreign_commits("my notes\n", [ours], "jsonl") == ["my notes\n"]
    assert foreign_commits("[1, 2]\n", [ours], "jsonl") == ["[1, 2]\n"]
    assert foreign_commits("a,b\n1,2\n", [ours], "csv") == ["a,b\n1,2\n"]
    assert foreign_commits("", [ours], "csv") == []
