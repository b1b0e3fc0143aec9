"""The interpreter of a run: a virtual environment of links to what training needs, and to nothing else that is installed.

It is made for each run, so nothing that a run could leave in it reaches the next one. No .pth file, no sitecustomize and no
package beside torch, numpy, tiktoken, cloudpickle, setuptools and what these require is in it; programs that the candidate
starts with the same interpreter see the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ... import python_probe
from .view import View

_PROBE_SECONDS = 20.0
# Beside foreign packages: text that no training needs, and the wheels of other packages.
NOT_FOR_TRAINING = frozenset(
    ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "ensurepip", "lib2to3", "pydoc_data")
)
_NOT_FOR_SCORING = frozenset(("include", "share", "test", "testing", "bin"))


class InterpreterError(Exception):
    """The interpreter does not say what it consists of; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A made environment: its ``program``, and what a process needs to see to run it.

    ``scoring`` is the least that a process needs which has imported torch and compiles nothing.
    """

    program: Path
    view: View
    scoring: View


def make_interpreter(python: str | None, folder: Path) -> Interpreter:
    """Make the environment below ``folder``; ``python`` is the configured interpreter, None the one that runs this.

    `package_folder` is where more packages may be put beside them.
    """
    layout = _layout(python)
    major, minor, micro = layout["version"]
    executable = Path(layout["executable"])
    packages = folder / "lib" / f"python{major}.{minor}" / "site-packages"
    program = folder / "bin" / "python"
    packages.mkdir(parents=True)
    program.parent.mkdir()
    program.symlink_to(executable)
    home = f"home = {executable.parent}\ninclude-system-site-packages = false\nversion = {major}.{minor}.{micro}\n"
    (folder / "pyvenv.cfg").write_text(home)
    for name, path in layout["entries"].items():
        (packages / name).symlink_to(path)
    standard = Path(layout["standard"])
    modules = [str(module) for module in standard.iterdir() if module.name not in NOT_FOR_TRAINING]
    hidden = tuple(str(standard / name) for name in sorted(NOT_FOR_TRAINING) if (standard / name).is_dir())
    extensions = [layout["extensions"]] if layout["extensions"] else []
    own = (str(folder), str(executable), *modules, *extensions)
    entries: list[str] = list(layout["entries"].values())
    listable = (str(standard),)
    return Interpreter(
        program=program,
        view=View(readable=(*own, *layout["files"], *entries), listable=listable, hidden=hidden),
        scoring=View(readable=(*own, *_for_scoring(entries)), listable=(*listable, *entries)),
    )


def _for_scoring(entries: list[str]) -> Iterator[str]:
    """Yield the parts of the packages without headers and tests: most of the files, and no scoring process needs them."""
    for entry in map(Path, entries):
        if entry.name == "torch":
            yield from (str(part) for part in entry.iterdir() if part.name not in _NOT_FOR_SCORING)
        else:
            yield str(entry)


def package_folder(interpreter: Interpreter) -> Path:
    """Return the folder from which the interpreter imports packages."""
    return next((interpreter.program.parent.parent / "lib").glob("python*")) / "site-packages"


def layout_of(python: str | None) -> dict[str, Any]:
    """Return `python_probe.layout` of an interpreter; None: the one that runs this. Raises `InterpreterError`."""
    if python is None:
        return python_probe.layout()
    command = [python, "-I", "-B", python_probe.__file__, "layout"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True, cwd="/")
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InterpreterError(f"{python} does not say what it consists of: {error}") from None


_layout = cache(layout_of)  # a run, and a trial, ask once
