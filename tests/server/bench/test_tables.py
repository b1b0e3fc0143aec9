"""From runs to medians, ratios, spreads, JSON and the document: each number is what its name says, and sections stay apart."""

from __future__ import annotations

import dataclasses
import json

import pytest
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.server.bench.benchmark import Plan, turns, turns_again
from autoresearch_mcp.server.bench.rendering import empty_document, markdown_section, table, updated_document
from autoresearch_mcp.server.bench.summary import Spread, summarise

from .made import CURVE, figures, report

# -- one run ----------------------------------------------------------------------------------------------------------


def test_speed_is_trained_tokens_over_the_clock_of_the_budget() -> None:
    run = figures()
    assert run.train_tokens == 122_880  # what was fetched ahead and never trained on does not count
    assert run.tokens_per_second == pytest.approx(2048.0)
    assert figures(curve=[]).train_tokens == 124_928


def test_overhead_is_all_but_the_training() -> None:
    assert figures().overhead_seconds == pytest.approx(90.0 - 61.0)


def test_what_a_run_says_before_the_data_gives_compilation_and_the_optimizers_share() -> None:
    run = figures()
    assert run.compile_seconds == 12.0
    assert run.optimizer_share == pytest.approx(0.1)
    silent = figures(curve=CURVE[1:])
    assert (silent.compile_seconds, silent.optimizer_share) == (None, None)


def test_the_loaders_share_is_its_own_figure_or_what_was_measured_beside() -> None:
    told = figures(curve=[*CURVE, {"step": 61, "seconds": 60.0, "tokens": 124_928, "loader_seconds": 0.6}])
    assert told.loader_share == pytest.approx(0.01)
    assert figures(loader_seconds_per_token=1e-6).loader_share == pytest.approx(122_880e-6 / 60)
    assert figures().loader_share is None


def test_utilisation_needs_a_device_whose_best_is_known() -> None:
    assert figures(device_name="NVIDIA H200").model_flops_utilisation == pytest.approx(3 * 2e6 * 2048 / 989.4e12)
    assert figures(device_name="Some GPU").model_flops_utilisation is None


def test_a_run_without_a_number_has_figures_all_the_same() -> None:
    crashed = figures(outcome=Outcome.CRASHED, val_bpb=None, elapsed_seconds=None, wall_seconds=None, curve=[])
    assert not crashed.scored
    assert crashed.tokens_per_second is None
    assert crashed.overhead_seconds == 90.0


# -- who runs when ----------------------------------------------------------------------------------------------------


def test_contenders_alternate_and_each_repetition_begins_with_another() -> None:
    plan = Plan(profile="cpu", budgets_seconds=(3.0,), repeats=3, corpus="c", contenders=("ours", "port", "same model"))
    order = [(turn.repetition, turn.contender) for turn in turns(plan)]
    assert order == [
        *((1, name) for name in ("ours", "port", "same model")),
        *((2, name) for name in ("port", "same model", "ours")),
        *((3, name) for name in ("same model", "ours", "port")),
    ]


def test_contended_runs_are_repeated_once_unless_the_machine_is_just_busy() -> None:
    calm, marked = [figures(repetition=r) for r in (1, 2)], figures(repetition=3, contended="others used 40 %")
    (again,) = turns_again([*calm, marked])
    assert (again.repetition, again.again) == (3, True)
    assert turns_again([calm[0], marked, marked]) == []


# -- many runs --------------------------------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_repetition() -> None:
    # The machine became half as fast between the repetitions: the ratio is 3 in both.
    ours = [figures("ours", r, elapsed_seconds=60.0 * r) for r in (1, 2)]
    port = [figures("port", r, elapsed_seconds=180.0 * r, val_bpb=2.5) for r in (1, 2)]
    summary = summarise([*ours, *port])[0]
    assert summary.against_port["tokens_per_second"] == Spread(median=3.0, low=3.0, high=3.0, count=2)
    assert summary.against_port["val_bpb"].median == pytest.approx(-0.5)


def test_noise_is_the_standard_deviation_between_seeds() -> None:
    assert summarise([figures(repetition=r, val_bpb=v) for r, v in ((1, 2.0), (2, 2.1), (3, 2.2))])[0].val_bpb_std == (
        pytest.approx(0.1)
    )
    assert summarise([figures()])[0].val_bpb_std is None


def test_a_repeated_run_counts_where_it_was_alone_and_the_first_one_otherwise() -> None:
    contended, calm = figures(contended="busy", val_bpb=2.3), figures(again=True, val_bpb=2.0)
    summary = summarise([contended, calm])[0]
    assert (summary.spreads["val_bpb"].median, summary.contended, summary.repetitions) == (2.0, 0, 1)
    lost = figures(again=True, outcome=Outcome.LOST, val_bpb=None)
    summary = summarise([contended, lost])[0]
    assert (summary.spreads["val_bpb"].median, summary.contended, summary.failed) == (2.3, 1, 0)


def test_the_tables_mark_contended_and_failed_runs() -> None:
    runs = [figures(contended="busy"), figures(repetition=2, outcome=Outcome.CRASHED, val_bpb=None), figures("port")]
    rows = table(summarise(runs))
    assert rows[0] == ["", "ours", "port"]
    assert rows[-1] == ["runs", "2, 1 contended, 1 without a number", "1"]
    assert ["val_bpb", "2.0000", "2.0000"] in rows
    assert not any("GPU" in row[0] for row in rows)  # what nobody has gets no row


def test_a_cell_is_the_median_with_the_extremes() -> None:
    rows = table(summarise([figures(repetition=r, val_bpb=v) for r, v in ((1, 2.0), (2, 2.5), (3, 2.1))]))
    assert ["val_bpb", "2.1000 (2.0000 – 2.5000)"] in rows


def test_the_json_has_machine_options_runs_and_summary_and_no_name_of_the_host() -> None:
    made = report(figures(), figures("port"))
    read = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert read["machine"]["commit"].startswith("0123")
    assert read["options"]["contenders"] == ["ours", "port", "same model"]
    assert [run["contender"] for run in read["runs"]] == ["ours", "port"]
    assert read["summary"][0]["spreads"]["val_bpb"]["median"] == 2.0
    assert set(read["contenders"]["port"]) == {"sha256", "sizes"}
    assert "node" not in read["machine"]


# -- the document -----------------------------------------------------------------------------------------------------


def test_a_new_document_says_what_is_not_measured_and_nothing_else() -> None:
    document = empty_document()
    assert "Not measured: no GPU was at hand." in document
    assert "| model FLOPs utilisation |  |  |  |" in document


def test_a_section_replaces_the_blank_one_and_itself_and_keeps_the_others() -> None:
    document = updated_document(None, report(figures(val_bpb=2.0)))
    assert "run `make bench`" not in document
    assert "no GPU was at hand" in document
    document = updated_document(document, report(figures(budget_seconds=300.0, val_bpb=1.25)))
    document = updated_document(document, report(figures(val_bpb=1.5), processor="Another CPU"))
    document = updated_document(document, report(figures(val_bpb=1.75)))
    found = [line for line in document.splitlines() if line.startswith("| val_bpb |")]
    assert found == ["| val_bpb | 1.7500 |", "| val_bpb | 1.2500 |", "| val_bpb | 1.5000 |", "| val_bpb |  |  |  |"]
    assert updated_document(document, report(figures(val_bpb=1.75))) == document


def test_what_people_wrote_around_the_sections_stays() -> None:
    document = empty_document().replace("# Benchmarks", "# Our benchmarks") + "\nA last word.\n"
    updated = updated_document(document, report(figures(), profile="gpu", gpu="NVIDIA H200, 141 GB"))
    assert updated.startswith("# Our benchmarks")
    assert updated.endswith("\nA last word.\n")
    assert "no GPU was at hand" not in updated


def test_a_section_names_machine_versions_commit_and_date() -> None:
    section = markdown_section(report(figures()), 60.0)
    assert "Some CPU (avx2), 4 cores, 16 GB of memory, Linux 6.1; Python 3.11.7, torch 2.13.0" in section
    assert "version 0.1.0, commit 0123456789; 2027-01-1" in section
    changed = report(figures())
    machine = dataclasses.replace(changed.machine, dirty=True)
    assert "commit 0123456789 with changes" in markdown_section(dataclasses.replace(changed, machine=machine), 60.0)
