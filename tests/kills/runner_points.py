"""The points at which a runner is killed: the quick one, which trains nothing, and the real one."""

from __future__ import annotations

from .point import Event, Point

QUICK = [
    Point(
        side="runner",
        label="submit.runner-begins",
        says="before it detaches itself",
        event="call",
        function="main",
        module="lab/referee/__main__.py",
        scenario="quick",
    ),
    Point(
        side="runner",
        label="submit.runner-detached",
        says="in a session of its own",
        event="c_return",
        function="setsid",
        within="main",
        scenario="quick",
    ),
    Point(
        side="runner",
        label="submit.runner-reads",
        says="its spec read",
        event="return",
        function="read_spec",
        module="lab/referee/specfile.py",
        scenario="quick",
        often=False,
    ),
    Point(
        side="runner",
        label="train.device",
        says="the device's lock taken",
        event="return",
        function="try_lock",
        module="lab/locks.py",
        where={"path": ".*/devices/.*"},
        scenario="quick",
    ),
    Point(
        side="runner",
        label="train.training",
        says="in the training phase",
        event="return",
        function="Reports.phase",
        module="lab/referee/reports.py",
        where={"phase": "training"},
        scenario="quick",
    ),
    Point(
        side="runner",
        label="score.scoring",
        says="in the scoring phase",
        event="return",
        function="Reports.phase",
        module="lab/referee/reports.py",
        where={"phase": "scoring"},
        scenario="quick",
        often=False,
    ),
    Point(
        side="runner",
        label="ingest.result-unnamed",
        says="the result written, not yet under its name",
        event="c_return",
        function="fsync",
        within="write_result",
        scenario="quick",
    ),
    Point(
        side="runner",
        label="ingest.result-named",
        says="result.json in place, its folder not flushed",
        event="c_return",
        function="replace",
        within="write_result",
        scenario="quick",
    ),
    Point(
        side="runner",
        label="ingest.result",
        says="result.json written, the process still there",
        event="return",
        function="write_result",
        module="lab/referee/specfile.py",
        scenario="quick",
        often=False,
    ),
]


def _real(label: str, says: str, event: Event, function: str, module: str, *, nth: int = 1, often: bool = False) -> Point:
    file = f"lab/referee/{module}.py"
    return Point(
        side="runner",
        label=label,
        says=says,
        event=event,
        function=function,
        module=file,
        nth=nth,
        scenario="real",
        often=often,
    )


REAL = [
    _real("train.workers", "the scoring processes started, known to nobody", "return", "ScoringWorkers.start", "workers"),
    _real("train.candidate", "train.py started, known to nobody", "return", "start_candidate", "candidate_process", often=True),
    _real("train.confined", "every sandbox made", "return", "Training._confirm_confinement", "training"),
    _real("train.clock", "the clock started", "return", "Training._start_clock", "training"),
    _real("train.reported", "in the middle of training", "return", "Reports.point", "reports", often=True),
    _real("train.ended", "train.py and its model done", "call", "Training._judge_exit", "training"),
    _real("score.windows", "the rows made", "return", "ScoredRows.finish", "scored_rows"),
    _real(
        "score.copied", "the model copied for both scoring processes", "return", "ScoringWorkers.copy_model", "workers", nth=2
    ),
    _real("score.bulk", "the claims in, the audits not begun", "return", "ScoringWorkers.end_bulk", "workers", often=True),
    _real("score.scored", "the number certified, nothing written", "return", "Scoring.score", "scoring"),
    _real("score.swept", "the run's scratch removed", "return", "remove_folder", "scratch"),
    _real("score.written", "result.json written by the real runner", "return", "write_result", "specfile"),
]
