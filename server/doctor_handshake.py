"""What `doctor` says about the server, as a client would meet it, and about what the lab's client files name.

The server that this installation starts is really started and shaken hands with, in both eras of the protocol, with a
deadline, and ended. `status` is asked where the lab has a record already, or where there is none to ask; a lab that was never
opened stays that way. A queued experiment may start meanwhile, as with every window of a client. What a file of the lab names
is compared with it and never started: an agent may have written that file. Servers named by a URL are left out.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..lab.errors import NotReadyError
from ..lab.lab import find_lab_root
from ..lab.machine import command_path
from .check import Check, Level
from .clients.pieces import Entry, Purpose, WholeFile
from .clients.same_server import expanded, same_server
from .clients.table import CLIENTS, Setup
from .handshake import Era, HandshakeError, Launch, Shaken, shake_hands

_SLOW_SECONDS = 3.0  # some clients list no tools when these take longer
_DEADLINE_SECONDS = 30.0  # a first start on a slow disk; clients that give up at all wait at least as long
_NAME = "autoresearch"  # of the server, in its own words and in the clients' files
_IMPORTED = re.compile(r'File "(.+?)", line \d+')
_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALL = "make setup in the clone, or pip install PATH_OF_THE_CLONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a client's file in the lab says about our server; a problem where it cannot be read."""

    client: str
    file: Path
    launch: Launch | None = None
    problem: str = ""


def check_servers(folder: Path) -> Iterator[Check]:
    """Check the server that this installation starts for ``folder``, then what the client files of its lab name."""
    try:
        root = find_lab_root(folder)
    except NotReadyError:
        yield check_server(_ours(folder), ask_status=True)
        return
    from .app import has_record

    yield check_server(_ours(root), ask_status=has_record(root))
    yield from (check_registration(registration, root=root) for registration in registrations(root))


def check_server(launch: Launch, *, ask_status: bool, deadline_seconds: float = _DEADLINE_SECONDS) -> Check:
    """Shake hands in both eras."""

    def check(level: Level, found: str, advice: str = "") -> Check:
        return Check(name="server", level=level, found=found, advice=advice)

    again = shlex.join(launch.command)
    resolved = _resolved(launch)
    if resolved is None:
        return check(Level.FAIL, f"{launch.command[0]}: command not found", _INSTALL)
    try:
        shaken = shake_hands(resolved, Era.LEGACY, ask_status=ask_status, deadline_seconds=deadline_seconds)
    except HandshakeError as error:
        if (shadow := _shadow(error.stderr, launch.folder)) is not None:
            advice = f"rename {shadow}, or start the server as {command_path()}"
            return check(Level.FAIL, f"{error}. Python imported {shadow}, a file of the lab, for a module of its own", advice)
        return check(Level.FAIL, str(error), f"{again} (its errors are on the terminal; Ctrl-C ends it)")
    if shaken.name != _NAME:
        return check(Level.FAIL, f"{shaken.name} {shaken.version} answers, which is another server", _INSTALL)
    if shaken.stray:
        found = f"writes to its standard output what is no message, which breaks clients: {shaken.stray!r}"
        return check(Level.FAIL, found, "print to standard error instead (a sitecustomize, a wrapper script?)")
    try:
        modern = shake_hands(resolved, Era.MODERN, ask_status=False, deadline_seconds=deadline_seconds)
    except HandshakeError as error:
        return check(Level.WARN, f"{_described(shaken)}; in revision {Era.MODERN.value}: {error}", f"upgrade mcp: {_INSTALL}")
    found = _described(shaken, modern)
    if shaken.version != version("autoresearch-mcp"):
        return check(Level.WARN, f"{found}; version {shaken.version}, and this is {version('autoresearch-mcp')}", _INSTALL)
    if min(shaken.seconds, modern.seconds) > _SLOW_SECONDS:
        return check(Level.WARN, f"{found}: slow", "autoresearch doctor (again: a first start is slower)")
    return check(Level.OK, found)


def check_registration(registration: Registration, *, root: Path) -> Check:
    """Say whether a client's file names this server; never worse than a warning, since other clients may be fine."""
    name = str(registration.file.relative_to(root)) if registration.file.is_relative_to(root) else str(registration.file)
    launch = registration.launch

    def warn(found: str, advice: str) -> Check:
        return Check(name=name, level=Level.WARN, found=found, advice=advice)

    if launch is None:
        return warn(registration.problem, f"repair {name}")
    ours = _ours(root)
    if same_server({"command": [*launch.command]}, {"command": [*ours.command]}, launch.folder):
        return Check(name=name, level=Level.OK, found="names this server")
    found = "another server, not started here" if _resolved(launch) else "command not found"
    advice = shlex.join([ours.command[0], "install", registration.client, "--lab", str(root), "--replace"])
    return warn(f"names {shlex.join(launch.command)}: {found}", advice)


def registrations(root: Path) -> list[Registration]:
    """Return what the clients' files in the lab at ``root`` say about our server; a file that says nothing is left out."""
    setup = Setup(command=command_path(), lab=root, home=Path.home())
    servers = (
        (client.name, piece.file, piece.path if isinstance(piece, Entry) else piece.key)
        for client in CLIENTS
        for piece in client.pieces(setup)
        if piece.purpose is Purpose.SERVER and not isinstance(piece, WholeFile)
    )
    found = (_registration(client, file, path, root) for client, file, path in servers)
    return [registration for registration in found if registration is not None]


def _registration(client: str, file: Path, path: tuple[str, ...], root: Path) -> Registration | None:
    """Return what stands at ``path`` of a client's file; None where nothing does, or a URL."""
    try:
        text = file.read_text()
        entry: Any = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        for key in path:
            entry = entry.get(key, {})
        if not entry or "url" in entry:
            return None
        return Registration(client=client, file=file, launch=_launch(entry, root))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Registration(client=client, file=file, problem=f"is not what its client reads: {error}")


def _launch(entry: Mapping[str, object], root: Path) -> Launch:
    """Return how a client starts an entry; raises TypeError where it names no command."""
    command, arguments = entry.get("command"), entry.get("args", [])
    words = [*(command if isinstance(command, list) else [command]), *(arguments if isinstance(arguments, list) else [None])]
    if not all(isinstance(word, str) and word for word in words):
        raise TypeError(f"{_NAME} names no command: {json.dumps(entry)}")
    environment = entry.get("env") or entry.get("environment") or {}
    if not isinstance(environment, dict):
        raise TypeError(f"{_NAME} has an env that is no table: {json.dumps(environment)}")
    folder, *command = (expanded(str(word), root) for word in (entry.get("cwd") or ".", *words))
    return Launch(
        command=tuple(command),
        folder=root / folder,
        environment={str(name): str(value) for name, value in environment.items()},
    )


def _ours(folder: Path) -> Launch:
    """Return what a client would be given to start the server of this installation."""
    return Launch(command=(command_path(), "serve", "--lab", str(folder)), folder=folder)


def _resolved(launch: Launch) -> Launch | None:
    """Return it with the program that its name stands for; None where there is none that may be executed."""
    program = launch.command[0]
    found = shutil.which(program if "/" not in program else str(launch.folder / program))
    return (
        None
        if found is None
        else Launch(command=(found, *launch.command[1:]), folder=launch.folder, environment=launch.environment)
    )


def _described(*shaken: Shaken) -> str:
    first = shaken[0]
    revisions = " and ".join(each.revision for each in shaken)
    asked = "" if first.status is None else "; status answers"
    return f"{first.tools} tools {min(each.seconds for each in shaken):.1f} s after the start, in revision {revisions}{asked}"


def _shadow(stderr: str, folder: Path) -> str | None:
    """Return the last file of ``folder`` that a traceback came through: one that Python took for a module that others need."""
    for name in reversed(_IMPORTED.findall(stderr)):
        path = Path(name)
        beside = path.parent == folder or (path.name == "__init__.py" and path.parent.parent == folder)
        if beside and not path.resolve().is_relative_to(_PACKAGE):
            return str(path)
    return None
