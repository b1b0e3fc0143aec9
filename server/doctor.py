"""What this machine can do for a lab: one check per line, each with the one command that would improve it.

A check looks and measures; it changes nothing. The server is really started, as a client would start it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ..lab.errors import LabError
from ..prepare.errors import PrepareError

_MIN_PYTHON = (3, 11)
_MIN_GIT = (2, 25)
_MIN_MEMORY_MB = 2048
_LITTLE_DISK_GB, _MIN_DISK_GB = 5.0, 1.0
_SLOW_HANDSHAKE_SECONDS = 3.0  # some clients list no tools when these take longer
_PROBE_SECONDS = 10


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but less well
    FAIL = "fail"  # research is not possible


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one thing; ``advice`` is a command or a sentence, empty where nothing is to be done."""

    name: str
    level: Level
    found: str
    advice: str = ""


def examine(folder: Path) -> Iterator[Check]:
    """Yield every check of this machine and of the lab around ``folder``, the quick ones first."""
    yield _python()
    yield _torch()
    yield _processor()
    yield _compiler()
    yield _git()
    yield _pip()
    corpus, lab = _lab(folder)
    yield lab
    yield _corpus(corpus)
    yield _disk()
    yield _isolation()
    yield _server(folder)


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _MIN_PYTHON:
        return Check(name="python", level=Level.FAIL, found=found, advice="install Python 3.11 or newer")
    return Check(name="python", level=Level.OK, found=found)


def _torch() -> Check:
    wanted = next((line for line in requires("autoresearch-mcp") or [] if line.startswith("torch")), "torch")
    try:
        found = version("torch")
    except PackageNotFoundError:
        return Check(
            name="torch", level=Level.FAIL, found="not installed", advice=f"{sys.executable} -m pip install '{wanted}'"
        )
    if "==" in wanted and found.partition("+")[0] != wanted.rpartition("==")[2]:
        advice = f"{sys.executable} -m pip install '{wanted}'"
        return Check(name="torch", level=Level.WARN, found=f"{found}, made for {wanted}", advice=advice)
    return Check(name="torch", level=Level.OK, found=found)


def _processor() -> Check:
    from ..lab.machine import cores, device_class, total_memory_mb

    memory_mb = total_memory_mb()
    found = f"{device_class('cpu')}, {memory_mb / 1024:.1f} GB of memory"
    if cores() < 2 or memory_mb < _MIN_MEMORY_MB:
        return Check(name="processor", level=Level.WARN, found=found, advice="use a machine with 2 cores and 2 GB or more")
    return Check(name="processor", level=Level.OK, found=found)


def _compiler() -> Check:
    names = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        advice = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++"
        return Check(name="C++ compiler", level=Level.WARN, found="none: budgets of 60 s or more train eagerly", advice=advice)
    return Check(name="C++ compiler", level=Level.OK, found=path)


def _git() -> Check:
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check(name="git", level=Level.FAIL, found="not found", advice="apt-get install git")
    text = done.stdout.split()[2] if len(done.stdout.split()) > 2 else "0"
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < _MIN_GIT:
        return Check(name="git", level=Level.WARN, found=text, advice=f"install git {'.'.join(map(str, _MIN_GIT))} or newer")
    return Check(name="git", level=Level.OK, found=text)


def _pip() -> Check:
    if importlib.util.find_spec("pip") is None:
        return Check(
            name="pip", level=Level.WARN, found="none: the corpus cannot be fetched", advice=f"{sys.executable} -m ensurepip"
        )
    return Check(name="pip", level=Level.OK, found=version("pip"))


def _lab(folder: Path) -> tuple[str, Check]:
    """Return the name of the corpus that the lab learns from, and the check of the lab."""
    from ..lab.config import CONFIG_NAME, LabConfig, load_config
    from ..lab.errors import NotReadyError
    from ..lab.lab import find_lab_root

    default = LabConfig().corpus_name
    try:
        root = find_lab_root(folder)
        config = load_config(root / CONFIG_NAME)
    except NotReadyError:
        advice = "autoresearch init, or pass --lab DIR"
        return default, Check(name="lab", level=Level.WARN, found=f"none at or above {folder}", advice=advice)
    except LabError as error:
        return default, Check(name="lab", level=Level.FAIL, found=str(error), advice="repair the file")
    found = f"{root}, profile {config.profile}, {config.budget.seconds:g} s per experiment ({config.clock_kind} clock)"
    return config.corpus_name, Check(name="lab", level=Level.OK, found=found)


def _corpus(name: str) -> Check:
    from ..prepare.corpus import open_corpus

    try:
        corpus = open_corpus(name)
    except PrepareError as error:
        return Check(name="corpus", level=Level.FAIL, found=str(error), advice=f"autoresearch prepare --corpus {name}")
    return Check(name="corpus", level=Level.OK, found=f"{name} ({corpus.corpus_id}) in {corpus.path}")


def _disk() -> Check:
    from ..lab.paths import state_root
    from ..prepare.corpus import cache_root

    free = {}
    for place in (state_root(), cache_root()):
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        free[place] = shutil.disk_usage(existing).free / 2**30
    place, least = min(free.items(), key=lambda item: item[1])
    found = f"{least:.1f} GB free for {place}"
    advice = "free some space, or set AUTORESEARCH_STATE and AUTORESEARCH_CACHE to folders on a larger disk"
    level = Level.FAIL if least < _MIN_DISK_GB else Level.WARN if least < _LITTLE_DISK_GB else Level.OK
    return Check(name="disk", level=level, found=found, advice="" if level is Level.OK else advice)


def _isolation() -> Check:
    from ..lab.referee.sandbox import GUARANTEES

    found = f"in force: {', '.join(GUARANTEES)}; not: a file system or network boundary"
    advice = "run the server in a container, or as another user, to keep candidates from this user's files"
    return Check(name="isolation", level=Level.WARN, found=found, advice=advice)


def _server(folder: Path) -> Check:
    import anyio

    from .autopilot.client import AutopilotError, LabClient, with_server

    async def list_tools(client: LabClient) -> tuple[int, float]:
        return len(await client.tool_names()), time.monotonic() - started

    started = time.monotonic()
    try:
        tools, seconds = anyio.run(with_server, folder, list_tools)
    except AutopilotError as error:
        return Check(name="server", level=Level.FAIL, found=str(error), advice=f"autoresearch serve --lab {folder}")
    found = f"{tools} tools {seconds:.1f} s after the start"
    if seconds > _SLOW_HANDSHAKE_SECONDS:
        return Check(
            name="server", level=Level.WARN, found=found, advice="autoresearch doctor (again: a first start is slower)"
        )
    return Check(name="server", level=Level.OK, found=found)
