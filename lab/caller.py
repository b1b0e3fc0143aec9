"""Who calls, where a transport knows it: a researcher whose token came with the request.

Guarantees: what is said holds for the block, and for the threads that are started in it; two calls at once do not mix. Empty
means that nobody was identified: a client on standard input, a person's command, or HTTP without tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NAME: ContextVar[str] = ContextVar("caller", default="")


def caller() -> str:
    """Return the researcher whose call is being answered; empty: nobody was identified."""
    return _NAME.get()


@contextmanager
def called_by(name: str) -> Iterator[None]:
    """Answer a call of ``name`` in a block."""
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)
