"""The one error of this package: a client's configuration cannot be changed as asked, and nothing was."""

from __future__ import annotations

from ...lab.errors import LabError


class ClientConfigError(LabError):
    """A client's file is broken, holds something else under our name, or cannot be rewritten without loss."""
