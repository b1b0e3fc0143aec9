"""The command line of a lab; `main` is what the console script `autoresearch` calls."""

import importlib.util
import sys

_NEEDS_POSIX = """\
autoresearch: this Python runs on Windows itself, which has no POSIX sessions, locks and limits; the referee needs them.
Use the Windows Subsystem for Linux: run `wsl --install` in PowerShell, restart, and install autoresearch in its terminal.\
"""


def main() -> None:
    """Run the command line and exit with its code."""
    if importlib.util.find_spec("fcntl") is None:
        print(_NEEDS_POSIX, file=sys.stderr)
        raise SystemExit(1)
    from .application import app

    app(prog_name="autoresearch")
