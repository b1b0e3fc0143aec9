"""The official conformance suite against our server, over HTTP, in both eras; each failure that is expected says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import clients

# Which release of the suite, which of its requirements, and how many checks pass at least.
_SUITES = {
    "0.1.16": (clients.CONFORMANCE, (), 12),
    "2025-11-25": (clients.CONFORMANCE_NEXT, ("--requirements", "2025-11-25"), 46),
    "2026-07-28": (clients.CONFORMANCE_NEXT, ("--requirements", "2026-07-28"), 116),
}
_ENTRY = re.compile(r"  - ([a-z0-9:.-]+)  # \w.{8,}")


def expected(suite: str) -> Path:
    return clients.FOLDER / f"expected-{suite}.yml"


@pytest.mark.slow
@pytest.mark.parametrize("suite", _SUITES)
def test_nothing_fails_but_what_is_explained_and_nothing_explained_passes(suite: str, url: str, tmp_path: Path) -> None:
    script, options, least = _SUITES[suite]
    arguments = ("server", "--url", url, "-o", str(tmp_path), "--expected-failures", str(expected(suite)), *options)
    done = clients.run(script, *arguments)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    total = re.search(r"Total: (\d+) passed", done.stdout)
    assert total is not None
    assert int(total[1]) >= least


@pytest.mark.slow
@pytest.mark.parametrize("script", [clients.CONFORMANCE, clients.CONFORMANCE_NEXT], ids=["0.1.16", "0.2.0"])
def test_a_failure_that_nobody_expected_and_an_entry_that_passes_both_fail_the_run(
    script: Path, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "expected.yml"
    for scenario, entry, said in (("prompts-get-simple", "", "nexpected failure"), ("tools-list", "  - tools-list\n", "tale")):
        file.write_text(f"server:\n{entry}" if entry else "server: []\n")
        options = ("--scenario", scenario, "--expected-failures", str(file), "-o", str(tmp_path / scenario))
        done = clients.run(script, "server", "--url", url, *options)
        assert done.returncode == 1, done.stdout
        assert said in done.stdout


@pytest.mark.parametrize("suite", _SUITES)
def test_every_expected_failure_names_the_fixture_that_it_wants(suite: str) -> None:
    entries = [line for line in expected(suite).read_text().splitlines() if line.lstrip().startswith("-")]
    assert entries
    assert not [line for line in entries if not _ENTRY.match(line)]
    assert len(set(entries)) == len(entries)
