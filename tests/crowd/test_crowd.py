"""Eight researchers on one server: nothing is lost, nothing is kept twice, the champions improve, everybody is served."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from autoresearch_mcp.lab.lab import Lab

from ..quick.adopt import adopt_quick_runner
from ..serving import serving
from .crowd import Findings, run, train_py

CLIENTS = 8


@pytest.mark.slow
@pytest.mark.parametrize(("quick", "count"), [pytest.param(True, 32, id="quick"), pytest.param(False, 8, id="trained")])
def test_eight_clients_of_one_server_lose_no_update(make_lab: Callable[..., Lab], quick: bool, count: int) -> None:
    """`make crowd` runs 200 that are trained; so many would take half an hour here."""
    lab = make_lab(train=train_py(CLIENTS), seconds=1.0, extra="[stop]\ncrashes_in_a_row = 0\n")
    if quick:
        adopt_quick_runner(lab)
    with serving(lab.root) as server:
        anyio.run(run, server.url, CLIENTS, count)
    findings = Findings.of(lab)
    assert findings.problems == []
    assert findings.own_ideas == count
    assert findings.champions > 1
    if quick:
        assert findings.merged_kept > 0
        assert max(findings.shares.values()) - min(findings.shares.values()) <= 2
