"""The table of contents of the command line: every command, in the order of a lab's life.

The command modules import what they need inside their functions, so that `serve` is up before a client grows impatient.
"""

from __future__ import annotations

import inspect

import typer

from .bench_command import bench
from .calibrate_command import calibrate
from .client_commands import install, uninstall
from .doctor_command import doctor
from .early_stop_command import early_stop
from .errors import CommandGroup
from .experiment_commands import cancel, confirm, keep, revert, run
from .export_command import export
from .finalize_command import finalize
from .hook_command import hook
from .isolation_command import accept_isolation
from .lab_commands import init, verify, where
from .prepare_command import prepare
from .record_commands import history, plot, show, status
from .report_command import report
from .research_command import research
from .rules_commands import accept_config, pause, repair, resume
from .serve_command import serve
from .token_command import token

app = typer.Typer(
    name="autoresearch",
    cls=CommandGroup,
    help="Research by experiment: an agent edits train.py, this program is the referee.",
    epilog="Begin with: autoresearch research",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_COMMANDS = {
    "Set up": (init, prepare, install, uninstall, doctor, where),
    "Research": (research, serve, run, confirm, calibrate, keep, revert, cancel),
    "Govern": (accept_config, accept_isolation, token, pause, resume, repair),
    "Look": (history, show, status, report, finalize, plot, export, early_stop, verify, bench),
}

for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        _help = inspect.cleandoc(_function.__doc__ or "").replace("[", r"\[")  # rich would take a section's name for markup
        app.command(rich_help_panel=_panel, help=_help)(_function)
app.add_typer(hook, name="hook", rich_help_panel="Set up")
