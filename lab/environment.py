"""The Python whose torch trains and scores: the server's own, or the one that ``[trainer] python`` names.

An interpreter is asked what it has (versions from metadata; torch is never imported), in a tenth of a second, once for each
state of its installation. Guarantees: a path that is no Python, or a Python without a package that the harness needs, is
refused with the command that repairs it, before anything is queued. Does not: install anything, or try the packages.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from .errors import NotReadyError
from .python_probe import PACKAGES, look

_OLDEST_PYTHON = (3, 11)
_PROBE_SECONDS = 20.0
_known: dict[str, tuple[tuple[int, int], dict]] = {}  # path -> (when it and its packages changed, what it said)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerPython:
    """One interpreter and what it has."""

    path: str
    python: str  # "3.11"
    torch: str  # "2.13.0+cu130"
    cuda: bool  # whether this torch is built for CUDA


def trainer_python(configured: str | None) -> TrainerPython:
    """Return the interpreter that runs candidates: the ``configured`` one, or the server's own.

    Raises `NotReadyError` when it cannot: it does not start, is too old, or lacks a package.
    """
    path = trainer_path(configured)
    name = path if configured is None else f"[trainer] python = {configured!r}"
    answer = _look_here(path) if configured is None else _ask(name, path)
    version = (answer["python"][0], answer["python"][1])
    if version < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        raise NotReadyError(f"{name} is Python {version[0]}.{version[1]}, and training needs {oldest} or newer.")
    missing = [package for package in PACKAGES if not answer["versions"].get(package)]  # half removed: None
    if missing:
        wanted = " ".join(shlex.quote(_requirement(package)) for package in missing)
        raise NotReadyError(
            f"{name} lacks {', '.join(missing)} (packages in the user's own folder do not count). "
            f"Run: {shlex.quote(path)} -m pip install {wanted}"
        )
    return TrainerPython(
        path=path, python=f"{version[0]}.{version[1]}", torch=answer["versions"]["torch"], cuda=bool(answer["cuda"])
    )


def trainer_path(configured: str | None) -> str:
    """Return the path of the interpreter; a link into a virtual environment stays a link, or it would leave it."""
    return sys.executable if configured is None else str(Path(configured).expanduser())


def require_cuda(python: TrainerPython) -> None:
    """Raise `NotReadyError` when this torch cannot use a GPU."""
    if not python.cuda:
        raise NotReadyError(
            f'profile = "gpu", but the torch {python.torch} of {python.path} is built without CUDA. Install a CUDA build there '
            "(https://pytorch.org/get-started/locally), or name the Python of a CUDA environment as [trainer] python in "
            "autoresearch.toml."
        )


def _look_here(path: str) -> dict:
    """Return what this interpreter has; remembered until what is installed changes, as for any other."""
    known = _known.get(path)
    if known is not None and known[0] == _stamp(path, known[1]):
        return known[1]
    before = _stamp(path, {"packages": sysconfig.get_path("purelib")})
    answer = look()
    _known[path] = (before, answer)
    return answer


def _ask(name: str, path: str) -> dict:
    """Return what another interpreter says about itself; remembered until it, or what is installed in it, changes."""
    if not os.access(path, os.X_OK) or Path(path).is_dir():
        what = "is not an executable file" if Path(path).exists() else "does not exist"
        raise NotReadyError(f"{name} {what}. Name the Python of the environment, such as /opt/env/bin/python.")
    known = _known.get(path)
    if known is not None and known[0] == _stamp(path, known[1]):
        return known[1]
    script = str(Path(__file__).with_name("python_probe.py"))
    try:
        done = subprocess.run(
            [path, "-I", "-B", script], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True, cwd="/"
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        answer = None
    fields = {"python": list, "versions": dict, "cuda": bool, "packages": str}
    if not isinstance(answer, dict) or not all(isinstance(answer.get(key), kind) for key, kind in fields.items()):
        raise NotReadyError(f"{name} does not answer as a Python does. Name the Python of an environment, such as bin/python.")
    _known[path] = (_stamp(path, answer), answer)
    return answer


def _stamp(path: str, answer: dict) -> tuple[int, int]:
    packages = Path(answer["packages"])
    return Path(path).stat().st_mtime_ns, packages.stat().st_mtime_ns if packages.is_dir() else 0


def _requirement(package: str) -> str:
    """Return what to ask pip for: the version that this software is made for."""
    try:
        lines = requires("autoresearch-mcp") or []
    except PackageNotFoundError:
        lines = []
    return next((line for line in lines if re.split(r"[^\w.-]", line, maxsplit=1)[0] == package), package)
