"""Whose HTTP requests are answered: one token for each researcher, in a file of the lab's state that only its owner can read.

Guarantees: a token has 256 bits from the system and is shown once, since the file holds its SHA-256 only; the file has mode
0600 from its first moment, and one that others could have read or written, or that is a link, is refused; a presented token is
compared with every entry, in a time that depends on none. A running server sees new and revoked tokens with its next request,
and once it has asked for tokens it never stops asking. Does not: expire tokens, or end answers that are being waited for when
one is revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..lab.errors import NotReadyError, UnknownNameError
from ..lab.files import write_atomically
from ..lab.researchers import MAX_NAME
from ..prepare.files import exclusive_lock

TOKEN_BYTES = 32
PREFIX = "ar-"  # tells people, and programs that look for leaked secrets, what it is
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
_SHA256 = re.compile("[0-9a-f]{64}")
_LARGEST_BYTES = 1 << 20
_ANEW = "Move it away and make new tokens: `autoresearch token NAME`."
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token.

    Attributes:
        sha256: of the token's text, hexadecimal.
        made_at: seconds since 1970.
    """

    researcher: str
    sha256: str
    made_at: float


def make_token(path: Path, researcher: str) -> str:
    """Make the token of a researcher and return it; nothing can tell it again.

    Raises `NotReadyError` for a name that cannot be one, and where the researcher has a token.
    """
    if _NAME.fullmatch(researcher) is None:
        raise NotReadyError(
            f"{researcher!r} cannot be the name of a token's researcher: write 1 to {MAX_NAME} letters, digits, '.', '_' or "
            "'-', such as `autoresearch token claude-2`."
        )
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    with exclusive_lock(_lock(path)):
        there = read_tokens(path) or ()
        if any(known.researcher == researcher for known in there):
            raise NotReadyError(
                f"{researcher} has a token already, and it cannot be shown again. `autoresearch token --revoke {researcher}` "
                "ends it; then make a new one."
            )
        _write(path, (*there, Token(researcher=researcher, sha256=_digest(token.encode()), made_at=time.time())))
    return token


def revoke_token(path: Path, researcher: str) -> tuple[Token, ...]:
    """Forget the token of a researcher; returns those that are left. Raises `UnknownNameError` where there is none."""
    with exclusive_lock(_lock(path)):
        there = read_tokens(path) or ()
        left = tuple(token for token in there if token.researcher != researcher)
        if left == there:
            names = ", ".join(token.researcher for token in there)
            raise UnknownNameError(f"No token of {researcher!r}. There are tokens of: {names or 'nobody'}.")
        _write(path, left)
    return left


def read_tokens(path: Path) -> tuple[Token, ...] | None:
    """Return the tokens, in the order in which they were made; None: there is no file, so none was ever made.

    Raises `NotReadyError` for a file that is not this user's alone.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        what = "is a symbolic link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise NotReadyError(f"The tokens file {path} {what}. {_ANEW}") from error
    try:
        _require_private(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_LARGEST_BYTES)
    finally:
        os.close(descriptor)
    try:
        return tuple(map(_token, json.loads(data)["tokens"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotReadyError(f"The tokens file {path} is damaged. {_ANEW}") from error


class TokenFile:
    """The tokens as they are now, for a server that runs.

    ``locate`` names the file; None while the lab was never opened, and so has none.
    """

    def __init__(self, locate: Callable[[], Path | None]) -> None:
        self._locate = locate
        self._path: Path | None = None
        self._seen: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._problem: NotReadyError | None = None
        self._required = False

    def required(self) -> bool:
        """Say whether requests need a token: once there has been a file, also after it is gone. Raises as `read_tokens`."""
        self._read()
        return self._required

    def researchers(self) -> tuple[str, ...]:
        """Return who has a token."""
        self._read()
        return tuple(token.researcher for token in self._tokens)

    def researcher_of(self, token: bytes) -> str | None:
        """Return whose token this is; None: nobody's."""
        self._read()
        presented, found = _digest(token), None
        for known in self._tokens:
            if hmac.compare_digest(known.sha256, presented):
                found = known.researcher  # no early end: how long it takes says nothing about which one it was
        return found

    def _read(self) -> None:
        self._path = self._path or self._locate()
        if (seen := _signature(self._path)) != self._seen:
            self._seen, self._tokens, self._problem = seen, (), None
            self._required = self._required or seen is not None
            try:
                self._tokens = () if self._path is None else read_tokens(self._path) or ()
            except NotReadyError as error:
                self._problem = error
        if self._problem is not None:
            raise self._problem


def _signature(path: Path | None) -> tuple[int, ...] | None:
    """Return what changes with a file's content or rights; None: there is none."""
    try:
        facts = None if path is None else path.lstat()
    except FileNotFoundError:
        return None
    return None if facts is None else (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _require_private(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise NotReadyError(f"The tokens file {path} is not a regular file. {_ANEW}")
    if facts.st_uid != os.geteuid():
        raise NotReadyError(f"The tokens file {path} belongs to user {facts.st_uid}, not to {os.geteuid()}. {_ANEW}")
    if (mode := stat.S_IMODE(facts.st_mode)) & 0o077:
        raise NotReadyError(
            f"The tokens file {path} has mode {mode:04o}, so others may have changed it. If it has only the researchers that "
            f"`autoresearch token NAME` was called for, run: chmod 600 {path}"
        )


def _token(entry: dict[str, Any]) -> Token:
    token = Token(researcher=str(entry["researcher"]), sha256=str(entry["sha256"]), made_at=float(entry["made_at"]))
    if _NAME.fullmatch(token.researcher) is None or _SHA256.fullmatch(token.sha256) is None:
        raise ValueError(token.researcher)
    return token


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    entries = [{"researcher": one.researcher, "sha256": one.sha256, "made_at": one.made_at} for one in tokens]
    write_atomically(path, json.dumps({"tokens": entries}, indent=1).encode() + b"\n", 0o600)


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()
