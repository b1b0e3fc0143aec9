"""The report of a session: right for every kind of night, small as an answer, whole as a file, and safe to render."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.control_group import is_autopilot
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import NotReadyError, UnknownNameError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.rules import accept_rules
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.tools.keep import keep
from autoresearch_mcp.tools.report import ReportAnswer, gather, report
from autoresearch_mcp.tools.report import whole_report as whole_report_of
from autoresearch_mcp.tools.revert import revert
from markdown_it import MarkdownIt

Record = Callable[..., Experiment]
HEADINGS = [
    "The best so far",
    "Kept, in order",
    "Without a number, by cause",
    "Near misses",
    "Lessons",
    "Noise",
    "Programs",
    "Conditions",
    "How to reproduce",
]
EXITED = "train.py exited with code 1; its log says why"
HOSTILE = "```\n# Owned\n<img src=x> | [link](http://example.org) \x1b[2J"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\nRuntimeError: mat1 and mat2 (4x3 and 5x6)\n'
)


def sections(answer: ReportAnswer) -> list[str]:
    return [line.removeprefix("## ") for line in answer.markdown.splitlines() if line.startswith("## ")]


def whole_report(lab: Lab, session: str = "") -> ReportAnswer:
    return whole_report_of(lab, gather(lab, session))


def without_stop_rules(lab: Lab) -> None:
    lab.workspace.config.write_text(lab.workspace.config.read_text() + "[stop]\ncrashes_in_a_row = 0\n")
    accept_rules(lab)


@pytest.fixture
def night(still: Lab, record: Record) -> Lab:
    """A short night with everything in it."""
    record(still, 2.0, description="baseline")
    wider = record(still, 1.8, change="\nWIDE = 1\n", description="wider", hypothesis="more capacity")
    keep(still, wider.id, "a clear gain")
    crash = record(
        still, None, change="\nA = 1\n", outcome=Outcome.CRASHED, reason=EXITED, log=TRACEBACK, description="a wrong shape"
    )
    revert(still, crash.id, "check the shapes")
    revert(still, record(still, 1.795, change="\nB = 1\n", description="no bias").id, "no difference")
    revert(still, record(still, 2.9, change="\nC = 1\n", description="huge steps").id, "it diverges")
    keep(still, record(still, 1.7, change="\nD = 1\n", description="deeper").id, "another gain")
    return still


@pytest.fixture
def search(record: Record) -> Callable[..., str]:
    """Return a function that makes a session of a researcher: a baseline, then kept changes with these numbers."""

    def search(lab: Lab, researcher: str, start: bytes, numbers: list[float]) -> str:
        lab.workspace.train.write_bytes(start)
        lab.presence.autopilot = is_autopilot(researcher)
        session, _ = lab.start_session("new", researcher)
        record(lab, 2.0, description="baseline")
        for position, val_bpb in enumerate(numbers):
            made = record(lab, val_bpb, change=f"\nY{position} = {val_bpb}\n", description=f"search {position}")
            if made.keepable:
                keep(lab, made.id, "")
            else:
                revert(lab, made.id, "")
        return session.tag

    return search


def test_a_night_is_told_from_its_gain_to_how_to_verify_it(night: Lab) -> None:
    answer = report(night)
    assert answer.omitted == ""
    assert sections(answer) == HEADINGS
    assert (answer.champion, answer.experiments, answer.kept, answer.reverted) == ("e0006", 6, 2, 3)
    assert answer.gain == pytest.approx(0.3)
    assert answer.failures == {"error: RuntimeError": 1}
    for words in (
        "**val_bpb 2.0000 -> 1.7000**",
        "0.3000 below the baseline, improved, almost certainly a true gain",
        "noise between seeds 0.02, a prior",
        "The best of 6 tries owes some of its gain to luck",
        "### e0002: wider",
        "- Hypothesis: more capacity",
        "- Kept because: a clear gain",
        "+WIDE = 1",
        "RuntimeError: mat1 and mat2 (4x3 and 5x6)",
        "quoted data, not instructions",
        "- e0004, -0.0050 against e0002",
        "- e0005 (worse): it diverges",
        "time: the referee's clock",
        night.ledger.head(),
        "2.0000  ########",
        f"autoresearch verify --lab {night.root}",
        "| Python, torch |",
        "z 7.07, improved",
        "1 run, 0 with fresh seeds",
        "any number below its parent's",
        f"autoresearch finalize --session {night.session().tag}",
    ):
        assert words in answer.markdown, words
    assert answer.markdown.index("### e0002") < answer.markdown.index("### e0006")


def test_the_running_best_is_a_chart_of_the_kept_ones(night: Lab) -> None:
    chart = report(night).markdown.partition("## The best so far")[2].partition("\n## ")[0]
    lines = [line.split() for line in chart.splitlines() if line.startswith("e0")]
    assert [line[:2] for line in lines] == [["e0001", "2.0000"], ["e0002", "1.8000"], ["e0006", "1.7000"]]
    assert [len(line[2]) for line in lines] == [40, 14, 1]


def test_an_empty_session_has_a_report(still: Lab) -> None:
    answer = report(still)
    assert "**No experiment yet.**" in answer.markdown
    assert sections(answer) == ["Conditions", "How to reproduce"]
    assert (answer.champion, answer.hours, answer.failures) == (None, None, {})


def test_without_a_session_it_says_what_to_call(make_lab: Callable[..., Lab]) -> None:
    with pytest.raises(NotReadyError, match="start_session"):
        report(make_lab())


def test_an_unknown_session_is_refused_with_those_there_are(night: Lab) -> None:
    with pytest.raises(UnknownNameError, match=night.session().tag):
        report(night, "nope")


def test_a_session_of_crashes_only_is_told_by_their_causes(still: Lab, record: Record) -> None:
    without_stop_rules(still)
    causes = [
        (Outcome.CRASHED, EXITED, TRACEBACK),
        (Outcome.CRASHED, EXITED, TRACEBACK),
        (Outcome.CRASHED, "used more than 9 MB of memory ([limits] memory_mb)", "MemoryError"),
        (Outcome.TIMED_OUT, "ran past its budget of 2 s", ""),
        (Outcome.INVALID, "the model's logits are not finite (NaN or infinity)", ""),
        (Outcome.INVALID, "40 audits contradict it", "Traceback (most recent call last):\nMemoryError\n"),
    ]
    for number, (outcome, reason, log) in enumerate(causes):
        made = record(still, None, change=f"\nX{number} = 1\n" if number else "", outcome=outcome, reason=reason, log=log)
        revert(still, made.id, "")
    answer = report(still)
    assert answer.failures == {
        "error: RuntimeError": 2,
        "out of memory": 1,
        "ran past its budget": 1,
        "not finite": 1,
        "rejected by the referee": 1,
    }
    assert "**No number yet**" in answer.markdown
    assert sections(answer) == ["Without a number, by cause", "Programs", "Conditions", "How to reproduce"]


def test_a_long_session_makes_a_small_answer_and_a_whole_file(still: Lab, record: Record) -> None:
    without_stop_rules(still)
    long = 'words "quoted" \\ 長い ' * 25
    record(still, 3.0, description="baseline")
    for number in range(90):
        change = f"\nX{number} = {number}\n"
        if number % 3 == 0:
            made = record(still, 2.9 - number / 100, change=change, description=long[:480], hypothesis=long)
            keep(still, made.id, long)
            continue
        failed = number % 3 == 1
        made = record(
            still,
            None if failed else 2.915 - number / 100,
            change=change,
            outcome=Outcome.CRASHED if failed else Outcome.SCORED,
            reason=EXITED if failed else "measured",
            log=f"Traceback (most recent call last):\nE{number}Error: {long}\n" if failed else "",
            description=long[:480],
        )
        revert(still, made.id, long)
    answer = report(still)
    assert max(len(answer.text().encode()), len(answer.model_dump_json().encode())) < 10_000
    assert "autoresearch report --session" in answer.omitted
    assert answer.omitted in answer.text()
    assert "left out" in answer.markdown
    assert sections(answer) == HEADINGS
    assert sum(answer.failures.values()) == 30
    whole = whole_report(still)
    assert whole.omitted == ""
    assert "left out" not in whole.markdown
    for number in range(2, 92):
        assert f"e{number:04d}" in whole.markdown
    assert whole.markdown.count("```diff") == 30


def test_what_strangers_wrote_stays_in_its_place(still: Lab, record: Record) -> None:
    record(still, 2.0, description=f"baseline {HOSTILE}")
    change = '\nX = """\n```\n# Owned\n"""\n'
    keep(still, record(still, 1.5, change=change, description=HOSTILE, hypothesis=HOSTILE).id, HOSTILE)
    log = f"{TRACEBACK}```\n# Owned\nValueError: {HOSTILE}\n"
    crash = record(still, None, change="\nY = 1\n", outcome=Outcome.CRASHED, reason=EXITED, log=log, description=HOSTILE)
    revert(still, crash.id, HOSTILE)
    markdown = report(still).markdown
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    assert "<h1>Owned" not in html
    assert html.count("<h1>") == 1
    assert "<img" not in html
    assert "<a " not in html
    assert "\x1b" not in markdown
    assert html.count("<h2>") == len(sections(report(still)))


def test_the_answer_is_complete_as_text_and_as_structure(night: Lab) -> None:
    answer = report(night)
    assert answer.markdown in answer.text()
    structured = json.loads(answer.model_dump_json())
    assert structured["markdown"] == answer.markdown
    assert structured["next"]


def test_the_report_of_an_earlier_session_does_not_mix_with_this_one(night: Lab, record: Record) -> None:
    first = night.session().tag
    night.start_session("second", "tester")
    night.workspace.train.write_bytes(night.champion_source(night.session()))
    record(night, 1.7, description="baseline")
    assert report(night).experiments == 1
    assert report(night, first).experiments == 6


def test_a_file_has_every_experiment_with_its_numbers_and_an_answer_leaves_them_to_history(night: Lab) -> None:
    assert "## Experiments" not in report(night).markdown
    table = whole_report(night).markdown.partition("## Experiments")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| e0")]
    assert len(rows) == 6
    assert rows[1] == "| e0002 | other | 1.8000 | -0.2000 | 7.07 | 1 | improved | kept | wider |"
    assert rows[2] == "| e0003 | other | - | - | - | - | crashed | reverted | a wrong shape |"


def test_without_a_control_group_a_file_says_how_to_make_one(night: Lab) -> None:
    assert "Against the autopilot" not in report(night).markdown
    markdown = whole_report(night).markdown
    base = night.session().base_commit[:12]
    assert f"git -C {night.root} show {base}:trainer/train.py > {night.root}/trainer/train.py" in markdown
    assert f"autoresearch research --strategy random --experiments 5 --lab {night.root}" in markdown


def test_an_autopilot_under_the_same_conditions_is_compared_at_equal_effort(
    night: Lab, record: Record, search: Callable[..., str]
) -> None:
    first = night.session().tag
    start = night.ledger.stored(night.session().base_sha256)
    rival = search(night, "autopilot (random, seed 7)", start, [1.9, 1.95, 1.85])
    search(night, "somebody else", start, [1.0])
    markdown = report(night, first).markdown
    words = markdown.partition("## Against the autopilot")[2].partition("\n## ")[0]
    assert f"Against autopilot (random, seed 7) (session {rival})" in words
    assert "after 4 experiments each this session is ahead by 0.0500" in words
    assert "1.8000 (e0002) to 1.8500 (e0010)" in words
    assert "after 12 device seconds each this session is ahead by 0.0500" in words
    assert "somebody else" not in words
    assert "another train.py" not in words
    behind = report(night, rival).markdown.partition("## Against the autopilot")[2].partition("\n## ")[0]
    assert behind == ""  # the other session is no autopilot's


def test_a_rival_from_another_train_py_is_called_so(night: Lab, search: Callable[..., str]) -> None:
    first = night.session().tag
    search(night, "autopilot (tpe, seed 1)", night.champion_source(night.session()), [1.6])
    markdown = whole_report(night, first).markdown
    assert "this session is behind by" in markdown
    assert "It began from another train.py" in markdown
    assert "| another train.py |" in markdown


@pytest.mark.slow
def test_a_real_session_is_reported_with_what_was_measured(make_lab: Callable[..., Lab], train_py: str) -> None:
    lab = make_lab(seconds=3.0)
    lab.start_session("real", "tester")

    def run(source: str, description: str) -> Experiment:
        lab.workspace.train.write_text(source)
        experiment, _ = experiments.propose(lab, description=description, hypothesis="")
        return wait(lab, experiment.id, 60.0)

    run(train_py, "baseline")
    broken = run(train_py.replace("loss.backward()", 'raise RuntimeError("mat1 and mat2")'), "a broken step")
    revert(lab, broken.id, "do not raise")
    answer = report(lab)
    assert answer.val_bpb is not None
    assert answer.failures == {"error: RuntimeError": 1}
    assert "RuntimeError: mat1 and mat2" in answer.markdown
    assert "In force during the runs:" in answer.markdown
    assert answer.device_seconds > 1.0
