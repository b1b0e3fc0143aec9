"""Whether two entries of clients' configurations start the same server, whatever their form and however they name it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

_WORKSPACE = ("${workspaceFolder}", "${CLAUDE_PROJECT_DIR}")  # what clients put the lab's folder for


def same_server(one: Any, other: Any, root: Path) -> bool:
    """Whether both are entries that start the same command for the same lab, seen from ``root``."""
    mine = _started(one, root)
    return mine is not None and mine == _started(other, root)


def expanded(word: str, root: Path) -> str:
    """Return a word of a client's entry as the client understands it in the folder ``root``."""
    for name in _WORKSPACE:
        word = word.replace(name, str(root))
    return word


def _started(entry: Any, root: Path) -> tuple[Path, tuple[str, ...]] | None:
    if not isinstance(entry, dict) or "command" not in entry:
        return None
    command, arguments = entry["command"], entry.get("args", [])
    words = [*command] if isinstance(command, list) else [command, *arguments]
    if not words or not all(isinstance(word, str) for word in words):
        return None
    program, *rest = (expanded(word, root) for word in words)
    lab = root
    if "--lab" in rest[:-1]:
        index = rest.index("--lab")
        lab = root / rest[index + 1]
        del rest[index : index + 2]
    named = root / program if os.sep in program else Path(program)
    found = shutil.which(named)
    return named if found is None else Path(found).resolve(), (str(lab.resolve()), *rest)
