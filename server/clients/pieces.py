"""What a client's configuration is made of: members of JSON files, tables of a TOML file, and files that are ours alone.

A piece is plain data. `shipped` renders pieces into new files; `installing` merges them into files that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Purpose(StrEnum):
    """What a piece is for; a person is told by these words what was added."""

    SERVER = "the server"
    ALLOW = "no prompt for its tools and for editing train.py"
    DENY = "no edits of the files that research may not change"
    HOOK = "the hook that keeps the loop going"
    CONTEXT = "AGENTS.md as the instructions"
    FORMAT = "what a new file of this kind begins with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value of a JSON file.

    Attributes:
        file: the JSON file.
        path: the keys that lead to the value, or to the list that it is an item of.
        value: the value, as `json` reads it.
        item: whether it is one item of the list at ``path``, beside others.
        mark: text that tells an older item of ours from other people's items.
        purpose: what it is for. Only the server is essential; for another purpose, what a person has set there stays. What the
            format asks for is added to new files only.
    """

    file: Path
    path: tuple[str, ...]
    value: Any
    purpose: Purpose
    item: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Tables that end a TOML file; ``key`` is the dotted path of the one that holds the server."""

    file: Path
    text: str
    key: tuple[str, str]
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeFile:
    """A file that is ours from its first to its last byte."""

    file: Path
    text: str
    purpose: Purpose


Piece = Entry | Tables | WholeFile
