"""The command line of a lab; `main` is what the console script `autoresearch` calls."""


def main() -> None:
    """Run the command line and exit with its code."""
    from .application import app

    app(prog_name="autoresearch")
