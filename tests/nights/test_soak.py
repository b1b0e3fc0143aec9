"""A short night with a real server: what it holds does not grow from one experiment to the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab.lab import Lab

from .soak import soak, table

EXPERIMENTS, EVERY = 24, 8
TOLERANCE = 0.1
MAX_WAL_MB = 6.0  # SQLite empties its log at 4


@pytest.mark.slow
def test_the_server_needs_no_more_memory_descriptors_or_threads_as_the_night_goes_on(
    make_quick_lab: Callable[..., Lab],
) -> None:
    lab = make_quick_lab(extra="[stop]\ncrashes_in_a_row = 0\n")
    first, *_, last = soak(lab.root, lab.state.root, experiments=EXPERIMENTS, every=EVERY)
    assert last.memory_mb <= (1 + TOLERANCE) * first.memory_mb, table([first, last])  # less is the system's doing
    assert last.descriptors <= first.descriptors + 2
    assert last.threads <= first.threads + 2
    assert last.children == 0
    assert last.wal_mb <= MAX_WAL_MB
    assert last.largest_answer_bytes < 10_000
    assert lab.ledger.verify() == []
    assert lab.ledger.count_experiments("verdict IS NOT NULL AND decision != 'pending'") == EXPERIMENTS
