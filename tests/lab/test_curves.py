"""Reading a run's curve: bounded, and nothing but whole reports."""

from __future__ import annotations

from pathlib import Path

from autoresearch_mcp.lab.curves import lines_of, reports_of

LINES = b'{"step": 0, "seconds": 0.0, "loss": 5.5}\n{"step": 1, "seconds": 1.5, "loss": NaN}\n'


def test_reports_come_in_order_with_numbers_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_bytes(LINES)
    first, second = reports_of(path)
    assert first == {"step": 0, "seconds": 0.0, "loss": 5.5}
    assert second["loss"] != second["loss"]


def test_what_is_still_being_written_or_is_no_report_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n7\n{"step"\n' + b"[" * 100_000 + b"\n" + LINES + b'{"step": 2}')
    assert [report["step"] for report in reports_of(path)] == [0, 1]
    assert lines_of(path)[-2:] == LINES.splitlines()


def test_a_long_curve_is_read_up_to_a_bound_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    assert reports_of(path) == []
    path.write_bytes(LINES)
    assert [report["step"] for report in reports_of(path, most_bytes=len(LINES) - 1)] == [0]
    path.unlink()
    path.mkdir()
    assert lines_of(path) == []
