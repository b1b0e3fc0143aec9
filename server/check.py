"""One thing that `doctor` looked at, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but less well
    FAIL = "fail"  # research is not possible


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """More about a check: rows of a name and what there is to say about it."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing; ``advice`` is a command or a sentence, empty where nothing is to be done."""

    name: str
    level: Level
    found: str
    advice: str = ""
    tables: tuple[Table, ...] = ()
