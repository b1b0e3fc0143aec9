"""Kills the process that it is loaded into, with SIGKILL, at a labelled point. It knows nothing of the code that it kills.

On PYTHONPATH, Python imports it at start; it does something only where the environment says so, in a process of the server
(AUTORESEARCH_KILL_SERVER names a point of the table) or of a runner (AUTORESEARCH_KILL_RUNNER). Calls and returns are watched
by `sys.setprofile`, so no line of the code under test knows of this. The label "*" kills nothing and notes every point that is
passed.
"""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path

_IS_RUNNER = any(word.endswith("lab/referee/__main__.py") for word in sys.orig_argv)
_IS_SERVER = any(word == "serve" for word in sys.orig_argv)
_LABEL = os.environ.get("AUTORESEARCH_KILL_RUNNER" if _IS_RUNNER else "AUTORESEARCH_KILL_SERVER", "")


def arm(*, here: bool = True) -> None:
    """Begin to watch, in the threads that begin from now on, and in this one; does nothing where no point is named."""
    if not _LABEL:
        return
    table = json.loads(Path(os.environ["AUTORESEARCH_KILL_TABLE"]).read_text())
    side = "runner" if _IS_RUNNER else "server"
    watch = _Watch([point for point in table if point["side"] == side and _LABEL in ("*", point["label"])])
    threading.setprofile(watch)
    if here:
        sys.setprofile(watch)


class _Watch:
    def __init__(self, points: list[dict]) -> None:
        self._points: dict[tuple[str, str], list[dict]] = {}
        self._names = set()
        for point in points:
            name = point["function"].rpartition(".")[2]
            self._names.add(name)
            self._points.setdefault((point["event"], name), []).append(point)
        self._seen: dict[str, int] = {}

    def __call__(self, frame, event, arg) -> None:
        name = frame.f_code.co_name if event in ("call", "return") else getattr(arg, "__name__", "")
        if name not in self._names:
            return
        for point in self._points.get((event, name), ()):
            if _matches(point, frame, event, arg):
                label = point["label"]
                self._seen[label] = self._seen.get(label, 0) + 1
                if self._seen[label] == point["nth"]:
                    _reach(label)


def _matches(point: dict, frame, event: str, arg) -> bool:
    code = frame.f_code
    if event in ("call", "return"):
        if code.co_qualname != point["function"] or not code.co_filename.endswith(point["module"]):
            return False
        if any(not re.fullmatch(wanted, str(frame.f_locals.get(name))) for name, wanted in point["where"].items()):
            return False
        frame = frame.f_back
    elif getattr(arg, "__module__", None) not in ("posix", "time"):  # a method of the same name
        return False
    if not point["within"]:
        return True
    while frame is not None:
        if frame.f_code.co_qualname == point["within"]:
            return True
        frame = frame.f_back
    return False


def _reach(label: str) -> None:
    """Note that a point was reached; die there, as often as was asked for."""
    notes = Path(os.environ["AUTORESEARCH_KILL_NOTES"])
    reached = sum(1 for _ in notes.glob(f"{label}.*"))
    (notes / f"{label}.{reached + 1}").touch()
    if _LABEL != "*" and reached < int(os.environ.get("AUTORESEARCH_KILL_TIMES", "1")):
        os.kill(os.getpid(), signal.Signals[os.environ.get("AUTORESEARCH_KILL_SIGNAL", "SIGKILL")])


if _IS_RUNNER:
    arm()
elif _IS_SERVER:
    arm(here=False)  # tools run in threads of their own; being watched would slow the imports down
