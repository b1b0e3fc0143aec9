"""Sandboxes: a ladder of ways to run a candidate's code, probed by running something on each, the strongest first.

    bubblewrap.py   namespaces by bubblewrap, Landlock and seccomp inside
    landlocked.py   Landlock and seccomp, where user namespaces are forbidden
    unboxed.py      seccomp and limits; limits alone; neither promises anything about files

`confinement.py` is what a process is started with, `view.py` and `interpreter.py` what it may see, `filters.py` the system
calls it may not make, `starting.py` the start. What runs inside first is `prepare/stage.py`.
"""

from __future__ import annotations

from .confinement import Confinement, Limits, device_environment, environment, guarantees_of, limits_of
from .interpreter import Interpreter, InterpreterError, make_interpreter, package_folder
from .rung import IsolationLevel, Rung
from .starting import (
    LADDER,
    Sandboxed,
    SandboxError,
    Trial,
    problem_of,
    rung_of,
    start,
    thread_limit,
    trial_of,
    try_program,
    view_for,
)
from .view import View

__all__ = [
    "LADDER",
    "Confinement",
    "Interpreter",
    "InterpreterError",
    "IsolationLevel",
    "Limits",
    "Rung",
    "SandboxError",
    "Sandboxed",
    "Trial",
    "View",
    "device_environment",
    "environment",
    "guarantees_of",
    "limits_of",
    "make_interpreter",
    "package_folder",
    "problem_of",
    "rung_of",
    "start",
    "thread_limit",
    "trial_of",
    "try_program",
    "view_for",
]
