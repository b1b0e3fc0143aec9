"""How long a tool may wait: what was asked for, but never more than the human or the client's configuration allows."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..lab.errors import ConfigError
from ..lab.executor import Progress
from ..lab.lab import Lab

MAX_WAIT_VARIABLE = "AUTORESEARCH_MAX_WAIT"  # set by a client's configuration together with that client's own timeout

OnProgress = Callable[[Progress], None] | None


def bounded(lab: Lab, wait_seconds: float | None) -> float:
    """Return the seconds to wait; without a wish, as long as is allowed."""
    override = os.environ.get(MAX_WAIT_VARIABLE)
    try:
        limit = float(override) if override else lab.config().wait.max_seconds
    except ValueError:
        raise ConfigError(
            f"{MAX_WAIT_VARIABLE} is {override!r} in the client's configuration: write seconds, such as 110"
        ) from None
    return limit if wait_seconds is None else min(wait_seconds, limit)
