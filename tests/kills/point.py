"""One labelled point: where a process of ours is killed, and how `hook/sitecustomize.py` recognises it from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Event = Literal["call", "return", "c_call", "c_return"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point.

    Attributes:
        label: unique; the phase comes first.
        says: what was done when the process dies, as the rest of a sentence that begins "killed".
        event, function, module: what `sys.setprofile` reports there: the event, the qualified name (of a function written in C
            just its name), the end of the file's name (empty: any; unknown for a function written in C).
        where: regular expressions that the function's arguments match.
        within: a function that has to be among the callers; empty: any.
        nth: the how many-th time.
        scenario: what the process was asked for (`scenarios.py`); of a runner: which runner.
        often: True for those that `make test` goes through; `make kill-matrix` goes through all.
    """

    label: str
    says: str
    event: Event
    function: str
    side: Literal["server", "runner"] = "server"
    module: str = ""
    where: dict[str, str] = field(default_factory=dict)
    within: str = ""
    nth: int = 1
    scenario: str
    often: bool = True

    @property
    def phase(self) -> str:
        return self.label.partition(".")[0]
