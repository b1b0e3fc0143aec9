"""The product's table of contents: every tool, with its title and all four annotations.

Clients decide by the annotations whether a call needs a person: one of them refuses a tool that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .cancel_experiment import cancel_experiment
from .confirm_experiment import confirm_experiment
from .edit_train import edit_train
from .history import history
from .keep import keep
from .read_program import read_program
from .read_train import read_train
from .report import report
from .results import Answer
from .revert import revert
from .run_experiment import run_experiment
from .show_experiment import show_experiment
from .start_session import start_session
from .status import status
from .wait_experiment import wait_experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function of a `Lab` that agents may call; its docstring is the description that they read."""

    function: Callable[..., Answer]
    title: str
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool

    @property
    def name(self) -> str:
        return self.function.__name__


def _reads(function: Callable[..., Answer], title: str) -> Tool:
    return Tool(function=function, title=title, read_only=True, destructive=False, idempotent=True, open_world=False)


def _writes(function: Callable[..., Answer], title: str) -> Tool:
    # Never destructive: every candidate and every replaced file is stored first. Repeating a call changes nothing more.
    return Tool(function=function, title=title, read_only=False, destructive=False, idempotent=True, open_world=False)


def _edits(function: Callable[..., Answer], title: str) -> Tool:
    # Not destructive: what it replaces is in the record, saved first, or a step of the same researcher that its answers undo.
    # Not idempotent: text that contains what it replaces can be put in once more.
    return Tool(function=function, title=title, read_only=False, destructive=False, idempotent=False, open_world=False)


TOOLS = (
    _reads(read_program, "Read the program and the state of research"),
    _writes(start_session, "Start or resume a session"),
    _reads(read_train, "Read train.py"),
    _edits(edit_train, "Edit train.py"),
    _writes(run_experiment, "Run an experiment"),
    _reads(wait_experiment, "Wait for an experiment"),
    _writes(confirm_experiment, "Confirm an experiment"),
    _writes(cancel_experiment, "Cancel an experiment"),
    _writes(keep, "Keep an experiment"),
    _writes(revert, "Revert an experiment"),
    _reads(history, "List experiments"),
    _reads(show_experiment, "Show an experiment"),
    _reads(status, "Status of the lab"),
    _reads(report, "Report of a session"),
)
