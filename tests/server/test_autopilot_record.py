"""What a strategy that learns is told of a real record: the constants of each experiment, and its number, if it has one."""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import partial

import anyio
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.server.app import build_server
from autoresearch_mcp.server.autopilot.client import LabClient
from autoresearch_mcp.server.autopilot.edits import Number
from autoresearch_mcp.server.autopilot.record import Record, step_of
from autoresearch_mcp.server.autopilot.strategy import Change, Observation
from autoresearch_mcp.tools.results import SessionAnswer
from mcp import Client

MakeLab = Callable[..., Lab]
BASELINE = {"WIDTH": 16, "DEPTH": 2}


def read(lab: Lab) -> tuple[Set[Change], list[Observation]]:
    """Begin a session as another researcher, and read the record as it does."""

    async def main() -> tuple[Set[Change], list[Observation]]:
        async with Client(build_server(partial(Lab.open, lab.root, autopilot=True))) as connected:
            client = LabClient(connected)
            session = await client.call("start_session", SessionAnswer, tag="new", researcher="reader")
            record = Record(client, session, lab.workspace.train.read_text())
            return await record.tried(), await record.observed()

    return anyio.run(main)


def baseline(lab: Lab) -> None:
    """Run the workspace's train.py as it is."""
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    wait(lab, experiment.id, 60)


def ran(
    lab: Lab, val_bpb: float, *changes: tuple[str, str], words: str = "another idea", outcome: str = "scored"
) -> Experiment:
    """Run the workspace's train.py with some texts replaced, and wait for what it measures."""
    source = re.sub(
        r"^# quick:.*$", f"# quick: val_bpb={val_bpb} outcome={outcome}", lab.workspace.train.read_text(), flags=re.M
    )
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    lab.workspace.train.write_text(source)
    experiment, _ = experiments.propose(lab, description=words, hypothesis="")
    return wait(lab, experiment.id, 60)


def test_each_experiment_is_told_with_its_constants_also_those_that_its_words_do_not_name(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    baseline(lab)
    wide = ran(lab, 1.5, ("WIDTH = 16", "WIDTH = 32"), words="WIDTH 16 -> 32")
    experiments.keep(lab, wide.id, "better")
    both = ran(lab, 1.9, ("WIDTH = 32", "WIDTH = 64"), ("DEPTH = 2", "DEPTH = 3"), words="a bigger model")
    experiments.revert(lab, both.id, "worse")
    crash = ran(lab, 0.0, ("DEPTH = 2", "DEPTH = 9"), words="much deeper", outcome="crashed")
    experiments.revert(lab, crash.id, "crashes")
    lost = ran(lab, 0.0, ("DEPTH = 2", "DEPTH = 4"), outcome="cancelled")
    experiments.revert(lab, lost.id, "says nothing")
    tried, observed = read(lab)
    assert tried == {("WIDTH", frozenset(("16", "32")))}
    assert observed == [
        Observation(values=BASELINE, val_bpb=2.0),
        Observation(values={"WIDTH": 32, "DEPTH": 2}, val_bpb=1.5),
        Observation(values={"WIDTH": 64, "DEPTH": 3}, val_bpb=1.9),
        Observation(values={"WIDTH": 32, "DEPTH": 9}, val_bpb=None),
    ]


def test_an_earlier_session_is_told_as_far_as_its_experiments_show_and_one_of_other_conditions_not(
    make_quick_lab: MakeLab,
) -> None:
    lab = make_quick_lab()
    baseline(lab)
    deep = ran(lab, 1.5, ("DEPTH = 2", "DEPTH = 3"))
    experiments.keep(lab, deep.id, "better")
    other = Lab.open(lab.root, budget_seconds=9.0)
    try:
        other.start_session("new", "tester")
        baseline(other)
    finally:
        other.close()
    _, observed = read(lab)
    assert observed == [
        Observation(values={"DEPTH": 2}, val_bpb=2.0),  # nobody changed WIDTH, so its value then is not known
        Observation(values={"DEPTH": 3}, val_bpb=1.5),
    ]


def test_a_constant_that_comes_or_goes_is_known_only_where_it_is(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    baseline(lab)
    swapped = ran(lab, 1.5, ("DEPTH = 2", "MATRIX_LR = 0.5"))
    experiments.keep(lab, swapped.id, "better")
    again = ran(lab, 1.8, ("MATRIX_LR = 0.5", "MATRIX_LR = 0.25"))
    experiments.revert(lab, again.id, "worse")
    seen: list[dict[str, Number]] = [dict(each.values) for each in read(lab)[1]]
    assert seen == [{"DEPTH": 2}, {"MATRIX_LR": 0.5}, {"MATRIX_LR": 0.25}]


def test_what_a_diff_is_too_long_to_show_ends_what_is_known_of_its_line(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    baseline(lab)
    padding = "\n".join(f"x{index} = {index}  # {'padding ' * 10}" for index in range(150))
    long = ran(lab, 1.5, ("WIDTH = 16", f"WIDTH = 32\n{padding}"))
    experiments.keep(lab, long.id, "better")
    after = ran(lab, 1.4, ("DEPTH = 2", "DEPTH = 3"))
    experiments.revert(lab, after.id, "no reason")
    assert [each.val_bpb for each in read(lab)[1]] == [2.0]


def test_only_the_arm_of_the_profile_is_read_from_a_diff() -> None:
    lines = ["--- a/train.py", "+++ b/train.py", "@@ -1,2 +1,2 @@", " A = 1"]
    diff = "\n".join([*lines, "-B = 2 if CPU else 4  # size", "+B = 3 if CPU else 4  # size", "-C = 1", "+C = B * 2"])
    for profile, before, after in (("cpu", 2, 3), ("gpu", 4, 4)):
        step = step_of(diff, profile)
        assert (step.before, step.after) == ({"B": before, "C": 1}, {"B": after})
