"""The CPU quota of a container, as the files of both versions of control groups say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.lab.referee.quota import QuotaReading, read_quota


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_version_2_says_the_quota_and_the_time_that_was_waited(tmp_path: Path) -> None:
    (tmp_path / "groups").write_text("0::/pod/box\n")
    stat = "usage_usec 9\nnr_periods 5\nnr_throttled 2\nthrottled_usec 1500000\n"
    write(tmp_path / "fs" / "pod" / "box", cpu__max="250000 100000\n", cpu__stat=stat)
    assert read_quota(groups=tmp_path / "groups", mount=tmp_path / "fs") == QuotaReading(cores=2.5, throttled_seconds=1.5)


def test_version_1_is_found_at_the_top_where_a_container_sees_no_more(tmp_path: Path) -> None:
    (tmp_path / "groups").write_text("4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n")
    stat = "nr_periods 5\nnr_throttled 2\nthrottled_time 3000000000\n"
    write(tmp_path / "fs" / "cpu,cpuacct", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000", cpu__stat=stat)
    assert read_quota(groups=tmp_path / "groups", mount=tmp_path / "fs") == QuotaReading(cores=1.5, throttled_seconds=3.0)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"cpu__max": "max 100000\n", "cpu__stat": "throttled_usec 0\n"}, id="no quota"),
        pytest.param({"cpu__max": "100000 100000\n"}, id="no statistics"),
        pytest.param({"cpu__max": "100000 100000\n", "cpu__stat": "nonsense\n"}, id="statistics of another kind"),
        pytest.param(
            {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000", "cpu__stat": "throttled_time 0\n"}, id="minus one"
        ),
        pytest.param({}, id="no files at all"),
    ],
)
def test_without_a_readable_quota_there_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "groups").write_text("0::/\nnot a line of this file\n")
    write(tmp_path / "fs", **files)
    assert read_quota(groups=tmp_path / "groups", mount=tmp_path / "fs") is None
    assert read_quota(groups=tmp_path / "missing", mount=tmp_path / "fs") is None
