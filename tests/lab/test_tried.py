"""What a session tried, summed up by SQLite, against the same sums over its experiments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.near_misses import near_misses
from autoresearch_mcp.lab.states import NO_ANSWER, Decision
from autoresearch_mcp.lab.tried import tried

from ..nights.synthetic import Kind, fill


@pytest.mark.parametrize("count", [1, 500])
def test_the_sums_are_those_of_the_experiments(make_quick_lab: Callable[..., Lab], count: int) -> None:
    lab = make_quick_lab()
    fill(lab, count, sessions=1, kind=Kind(windows=3, undecided=0.1))
    session = lab.session()
    found = tried(lab.ledger, session.tag)
    assert found == tried(lab.ledger, session.tag)
    ideas = [each for each in lab.ledger.experiments("session = ?", session.tag) if not each.is_baseline]
    answered = [each for each in ideas if each.verdict is not None and each.verdict not in NO_ANSWER]
    gains = [each for each in answered if each.decision is Decision.KEPT and (each.delta or 0.0) < 0]
    assert sum(each.experiments for each in found.tried) == len(ideas)
    assert sum(each.finished for each in found.tried) == len(answered)
    assert sum(each.gain for each in found.tried) == pytest.approx(-sum(each.delta or 0.0 for each in gains))
    assert sum(each.without_number for each in found.tried) == sum(each.val_bpb is None for each in answered)
    for each in found.tried:
        members = [other for other in ideas if (other.theme, other.changes) == (each.theme, each.changes)]
        deltas = [(other not in gains, other.delta, other.id) for other in members if other.delta is not None]
        assert (each.best and each.best.id) == (min(deltas)[2] if deltas else None)
    assert [each.id for each in found.near_misses] == [each.id for each in near_misses(ideas)]
    assert found.last_gain == (gains[-1].id if gains else None)
    last = ideas.index(gains[-1]) if gains else -1
    assert found.since_gain == sum(each in answered for each in ideas[last + 1 :])
    assert lab.ledger.verify() == []
