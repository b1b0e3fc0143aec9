"""What the process that dies was asked for, and what must be true once the same was asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Decision, Verdict

from .asked import ASKED
from .labs import CHAMPION, OTHER_TRAIN_PY, QUICK_TRAIN_PY, REAL_TRAIN_PY, UNDECIDED, idea

Call = tuple[str, dict[str, Any]]

_UNKNOWN = b"# an edit that was never run\r\n"
LONG_SECONDS = 300.0  # a run takes a moment, and a real one half a minute where others use the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that a process is asked for.

    Attributes:
        stage: what the lab is before (`labs.make_stages`).
        train: what the researcher has written into train.py; None: it stays.
        calls: what the process that dies is asked for.
        again: what is asked for afterwards, twice.
        result: the newest experiment then: its id, verdict and decision; None: there is none.
        train_after: what train.py holds then; None: the same as before.
        backups: how many refs with saved content there are then.
        runner: the point at which the runner dies, too.
    """

    stage: str
    calls: tuple[Call, ...]
    again: tuple[Call, ...]
    train: bytes | None = None
    result: tuple[str, Verdict, Decision] | None = None
    train_after: bytes | None = None
    backups: int = 0
    runner: str = ""

    @property
    def final_train(self) -> bytes:
        return self.train_after or self.train or (REAL_TRAIN_PY if self.stage == "real" else QUICK_TRAIN_PY)


def call(lab: Lab, calls: tuple[Call, ...]) -> None:
    """Ask for one thing after the other, as a client or a person would."""
    for name, arguments in calls:
        ASKED[name](lab, **arguments)


def _run(description: str, wait_seconds: float = 0.0) -> Call:
    return "run_experiment", {"description": description, "wait_seconds": wait_seconds}


_THIRD, _MERGED = "e0003", "e0004"
_DECIDE = {"experiment_id": UNDECIDED}
_IMPROVED = (_THIRD, Verdict.IMPROVED, Decision.PENDING)

SCENARIOS: Mapping[str, Scenario] = {
    "create": Scenario(stage="bare", calls=(), again=()),
    "session": Scenario(stage="opened", calls=(("start_session", {}),), again=(("start_session", {}),)),
    "join": Scenario(
        stage="scored",
        train=idea(1.9),
        calls=(("start_session", {"researcher": "ben"}),),
        # Does nothing where the new folder has the champion's train.py.
        again=(("start_session", {"researcher": "ben"}), ("revert", {"experiment_id": "workspace", "researcher": "ben"})),
        result=(UNDECIDED, Verdict.IMPROVED, Decision.PENDING),
    ),
    "submit": Scenario(
        stage="scored",
        train=idea(1.8),
        calls=(_run("another idea"),),
        again=(_run("another idea", LONG_SECONDS),),
        result=_IMPROVED,
    ),
    "wait": Scenario(
        stage="scored",
        train=idea(1.8, wishes="seconds=0.3"),
        calls=(_run("another idea", LONG_SECONDS),),
        again=(("wait_experiment", {"experiment_id": _THIRD, "wait_seconds": LONG_SECONDS}),),
        result=_IMPROVED,
    ),
    "wait-for-the-dead": Scenario(
        stage="scored",
        train=idea(1.8),
        calls=(_run("another idea", LONG_SECONDS),),
        again=(("wait_experiment", {"experiment_id": _THIRD, "wait_seconds": LONG_SECONDS}),),
        result=_IMPROVED,
        runner="train.training",
    ),
    "baseline": Scenario(
        stage="begun",
        calls=(_run("baseline", LONG_SECONDS),),
        again=(("wait_experiment", {"experiment_id": CHAMPION, "wait_seconds": LONG_SECONDS}),),
        result=(CHAMPION, Verdict.IMPROVED, Decision.KEPT),
    ),
    "cancel": Scenario(
        stage="scored",
        train=idea(1.8, wishes="seconds=4"),
        calls=(_run("another idea"), ("cancel_experiment", {"experiment_id": _THIRD})),
        again=(("cancel_experiment", {"experiment_id": _THIRD}),),
        result=(_THIRD, Verdict.CANCELLED, Decision.PENDING),
    ),
    "keep": Scenario(
        stage="scored",
        train=idea(1.9),
        calls=(("keep", _DECIDE),),
        again=(("keep", _DECIDE),),
        result=(UNDECIDED, Verdict.IMPROVED, Decision.KEPT),
    ),
    "stale": Scenario(
        stage="stale",
        train=OTHER_TRAIN_PY,
        calls=(("keep", {"experiment_id": _THIRD}),),
        again=(
            ("keep", {"experiment_id": _THIRD}),
            ("wait_experiment", {"experiment_id": _MERGED, "wait_seconds": LONG_SECONDS}),
        ),
        result=(_MERGED, Verdict.IMPROVED, Decision.PENDING),
    ),
    "confirm": Scenario(
        stage="scored",
        train=idea(1.9),
        calls=(("confirm_experiment", _DECIDE),),
        again=(
            ("confirm_experiment", _DECIDE),
            ("wait_experiment", {"experiment_id": UNDECIDED, "wait_seconds": LONG_SECONDS}),
        ),
        result=(UNDECIDED, Verdict.IMPROVED, Decision.PENDING),
    ),
    "open-test": Scenario(
        stage="stale",  # an idea is the champion
        train=OTHER_TRAIN_PY,
        calls=(("open_test", {}),),
        again=(("open_test", {}),),
        result=_IMPROVED,
    ),
    "revert": Scenario(
        stage="scored",
        train=idea(1.9) + _UNKNOWN,
        calls=(("revert", _DECIDE),),
        again=(("revert", _DECIDE),),
        result=(UNDECIDED, Verdict.IMPROVED, Decision.REVERTED),
        train_after=QUICK_TRAIN_PY,
        backups=1,
    ),
    # A runner dies while the server lives: the same call goes on.
    "quick": Scenario(
        stage="scored",
        train=idea(1.8),
        calls=(_run("another idea", LONG_SECONDS),),
        again=(_run("another idea", LONG_SECONDS),),
        result=_IMPROVED,
    ),
    "real": Scenario(
        stage="real",
        calls=(_run("baseline", LONG_SECONDS),),
        again=(("wait_experiment", {"experiment_id": CHAMPION, "wait_seconds": LONG_SECONDS}),),
        result=(CHAMPION, Verdict.IMPROVED, Decision.KEPT),
    ),
}
