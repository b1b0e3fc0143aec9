"""Writing a client's configuration on this machine, and taking out exactly what was written.

Guarantees: everything is decided before anything is written, so a file that is broken or in the way leaves all files as they
are; a file is written whole or not at all, with its own mode, and through a symbolic link of the person's; what was added is
on record (in the state folder), and `uninstall` removes that and nothing else, which gives back the same bytes where nobody
changed the file meanwhile. A second install changes nothing.

Does not: ask the client whether it accepts the files, lock them against a client that writes at the same moment (a file that
changed since it was read is refused), or follow a link that leads out of a lab.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...lab.files import write_atomically
from ...lab.jsonfiles import read_json, write_json
from ...lab.paths import state_root
from ...prepare.files import exclusive_lock
from . import json_text, toml_block
from .errors import ClientConfigError
from .json_text import Added
from .pieces import Entry, Piece, Purpose, Tables, WholeFile
from .same_server import same_server
from .table import Client, Setup


@dataclass(slots=True, kw_only=True)
class Change:
    """What becomes of one file. ``before`` is None for a new one, ``after`` for one that is deleted."""

    file: Path
    before: str | None
    after: str | None
    purposes: list[Purpose] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(slots=True, kw_only=True)
class Plan:
    """What an install or uninstall would do: its changes, and what a person should know about what stays."""

    changes: list[Change]
    notes: list[str] = field(default_factory=list)


def plan_install(client: Client, setup: Setup, *, replace: bool = False) -> Plan:
    """Return what an install would do; nothing is written.

    Raises:
        ClientConfigError: a file is broken, has comments, or holds another server under our name (and not ``replace``).
    """
    plan = Plan(changes=[])
    changes: dict[Path, Change] = {}
    for piece in client.pieces(setup):
        file = _real_file(_existing_variant(piece.file), setup)
        if file not in changes:
            text = _read_text(file)
            changes[file] = Change(file=file, before=text, after=text)
        _apply(piece, changes[file], setup, plan.notes, replace=replace, client=client.name)
    plan.changes = [change for change in changes.values() if change.changed]
    return plan


def install(client: Client, plan: Plan) -> None:
    """Write what was planned, its record first: what is on record and not in a file is no harm."""
    with _one_at_a_time():
        record = _read_record()
        for change in plan.changes:
            files = record.setdefault(client.name, {})
            if change.before is None:
                files.pop(str(change.file), None)  # somebody deleted it since
            known = files.setdefault(str(change.file), {"created": change.before is None, "steps": []})
            known["steps"] = [step for step in known["steps"] if not _superseded(step, change.steps)] + change.steps
        _write_record(record)
        _write(plan)


def plan_uninstall(client: Client, setup: Setup) -> Plan:
    """Return what an uninstall would do: undo the recorded steps of every file that this setup concerns."""
    plan = Plan(changes=[])
    record = _read_record().get(client.name, {})
    for file in dict.fromkeys(_real_file(_existing_variant(piece.file), setup) for piece in _all_pieces(client, setup)):
        if known := record.get(str(file)):
            plan.changes.append(_undo(file, known, plan.notes))
        elif (text := _read_text(file)) is not None and "autoresearch" in text:
            plan.notes.append(f"{file} names autoresearch and was not written by `autoresearch install`: it stays as it is.")
    return plan


def uninstall(client: Client, plan: Plan) -> None:
    """Write what was planned, and forget it."""
    with _one_at_a_time():
        _write(plan)
        record = _read_record()
        for change in plan.changes:
            record.get(client.name, {}).pop(str(change.file), None)
        _write_record(record)


def _all_pieces(client: Client, setup: Setup) -> list[Piece]:
    """Every piece that an install with any options may have written."""
    everything = Setup(command=setup.command, lab=setup.lab, home=setup.home, user=setup.user, allow=True, deny=True, hook=True)
    return list(client.pieces(everything))


def _apply(piece: Piece, change: Change, setup: Setup, notes: list[str], *, replace: bool, client: str) -> None:
    before = change.after
    if isinstance(piece, Entry):
        _apply_entry(piece, change, setup, notes, replace=replace, client=client)
    elif isinstance(piece, Tables):
        _apply_tables(piece, change, setup, replace=replace, client=client)
    else:
        _apply_whole_file(piece, change, replace=replace)
    if change.after != before and piece.purpose not in change.purposes:
        change.purposes.append(piece.purpose)


def _apply_entry(piece: Entry, change: Change, setup: Setup, notes: list[str], *, replace: bool, client: str) -> None:
    if piece.purpose is Purpose.FORMAT and change.before is not None:
        return
    text = "{}\n" if change.after is None else change.after
    name = str(piece.file)
    try:
        value = json_text.read(text, name)
    except ClientConfigError as error:
        raise ClientConfigError(f"{error}. Nothing was written. {_by_hand(piece)}") from None
    depth, found = json_text.lookup(value, piece.path)
    if depth == len(piece.path):
        if not piece.item:
            _meet_member(piece, change, text, found, setup, notes, replace=replace, client=client)
            return
        if isinstance(found, list):
            if piece.value in found:
                return
            older = [item for item in found if piece.mark and piece.mark in json.dumps(item)]
            if older:
                text = _replace_item(piece, change, text, older[0], replace=replace)
    try:
        change.after, added = json_text.add(text, piece.path, piece.value, item=piece.item)
    except ClientConfigError as error:
        if piece.purpose is not Purpose.SERVER:
            notes.append(f"{name}: {error}, so this was left out: {piece.purpose}.")
            return
        raise ClientConfigError(f"{name}: {error}. Nothing was written. {_by_hand(piece)}") from None
    change.steps.append({"kind": "json", **asdict(added)})


def _meet_member(
    piece: Entry, change: Change, text: str, found: Any, setup: Setup, notes: list[str], *, replace: bool, client: str
) -> None:
    """Something stands where the piece would go: it is the same, it is a person's choice, or it is another server."""
    if found == piece.value:
        return
    if piece.purpose is not Purpose.SERVER:
        notes.append(f"{piece.file}: {'.'.join(piece.path)} is {json.dumps(found)[:80]} and stays so ({piece.purpose}).")
        return
    if not replace:
        if same_server(found, piece.value, setup.root):
            notes.append(f"{piece.file} starts this lab's server already, and stays as it is.")
            return
        raise ClientConfigError(_conflict(str(piece.file), json.dumps(found), client))
    change.after = json_text.replace(text, piece.path, piece.value)
    notes.append(f"{piece.file}: what was replaced, which uninstall does not bring back: {json.dumps(found)}")
    change.steps.append({"kind": "json", "path": piece.path[:-1], "key": piece.path[-1], "value": piece.value, "gap": None})


def _replace_item(piece: Entry, change: Change, text: str, older: Any, *, replace: bool) -> str:
    """Take out an older item of ours, so that the new one goes in instead; one that holds others' hooks as well stays."""
    if isinstance(older, dict) and isinstance(hooks := older.get("hooks"), list) and len(hooks) > 1:
        raise ClientConfigError(
            f"{piece.file} has another hook of autoresearch together with other hooks, {json.dumps(older)[:200]}. Nothing was "
            "written. Take the hook with `autoresearch` out of that entry and call this again."
        )
    if not replace:
        raise ClientConfigError(
            f"{piece.file} has another hook of autoresearch, {json.dumps(older)[:200]}. Nothing was written. "
            "To replace it, add --replace."
        )
    without = json_text.remove(text, Added(path=piece.path, key=None, value=older, gap=""))
    assert without is not None, "it was found there"
    return without


def _apply_tables(piece: Tables, change: Change, setup: Setup, *, replace: bool, client: str) -> None:
    text = change.after or ""
    try:
        values = toml_block.read(text, str(piece.file))
        wanted = json_text.lookup(toml_block.read(piece.text, "the block"), piece.key)[1]
        depth, found = json_text.lookup(values, piece.key)
        if depth == len(piece.key):
            if found == wanted or (not replace and same_server(found, wanted, setup.root)):
                return
            if not replace:
                raise ClientConfigError(_conflict(str(piece.file), json.dumps(found, default=str), client))
            without = toml_block.cut(text, "", piece.key)
            if without is None:
                raise ClientConfigError(
                    f"{piece.file} has a table {'.'.join(piece.key)} that `autoresearch install` did not write. Nothing was "
                    f"written. Remove that table (codex mcp remove {piece.key[-1]}) and call this again."
                )
            text = without
        change.after, added = toml_block.append(text, piece.text)
        toml_block.read(change.after, f"{piece.file} with the new tables")
    except ClientConfigError as error:
        if "Nothing was written" in str(error):
            raise
        raise ClientConfigError(f"{error}. Nothing was written. To add by hand:\n{piece.text}") from None
    change.steps.append({"kind": "toml", "text": added})


def _apply_whole_file(piece: WholeFile, change: Change, *, replace: bool) -> None:
    if change.after == piece.text:
        return
    if change.after is not None and not replace:
        raise ClientConfigError(f"{piece.file} has other rules than wanted. Nothing was written. To replace it, add --replace.")
    change.after = piece.text
    change.steps.append({"kind": "file", "text": piece.text})


def _undo(file: Path, known: dict[str, Any], notes: list[str]) -> Change:
    text = _read_text(file)
    change = Change(file=file, before=text, after=text)
    if text is None:
        return change
    for step in reversed(known["steps"]):
        current = change.after
        assert current is not None
        if step["kind"] == "json":
            json_text.read(current, str(file))
            added = Added(path=tuple(step["path"]), key=step["key"], value=step["value"], gap=step["gap"])
            undone = json_text.remove(current, added)
            if undone is None and added.key is not None:
                undone = _undo_inside(current, added)
        elif step["kind"] == "toml":
            undone = toml_block.cut(current, step["text"], toml_block.key_of(step["text"]))
        else:
            undone = "" if current == step["text"] else None
        if undone is None:
            notes.append(f"{file}: {_told(step)} was changed since, and stays.")
        else:
            change.after = undone
    if known["created"] and change.after is not None and change.after.split() in ([], ["{}"], ["{", "}"]):
        change.after = None
    return change


def _undo_inside(text: str, added: Added) -> str | None:
    """Undo what made containers that others have filled since: only the innermost value goes."""
    assert added.key is not None
    path, value = (*added.path, added.key), added.value
    while isinstance(value, dict) and len(value) == 1:
        key, value = next(iter(value.items()))
        inner = Added(path=path, key=key, value=value, gap="")
        if (undone := json_text.remove(text, inner)) is not None:
            return undone
        path = (*path, key)
    if isinstance(value, list):
        for item in value:
            undone = json_text.remove(text, Added(path=path, key=None, value=item, gap=""))
            if undone is None:
                return None
            text = undone
        return text
    return None


def _superseded(step: dict[str, Any], newer: list[dict[str, Any]]) -> bool:
    """Whether a recorded step was replaced by a newer one of the same place."""
    if step["kind"] != "json":
        return any(other["kind"] == step["kind"] for other in newer)
    if step["key"] is None:
        return False
    place = (*step["path"], step["key"])
    return any(other["kind"] == "json" and (*other["path"], other["key"]) == place for other in newer)


def _told(step: dict[str, Any]) -> str:
    return ".".join([*step["path"], step["key"] or "item"]) if step["kind"] == "json" else "our part"


def _conflict(file: str, found: str, client: str) -> str:
    return (
        f"{file} has a server called autoresearch already, another one: {found[:300]}. Nothing was written. To make it this "
        f"lab's: autoresearch install {client} --replace"
    )


def _by_hand(piece: Entry) -> str:
    value: Any = [piece.value] if piece.item else piece.value
    for key in reversed(piece.path):
        value = {key: value}
    return "To add by hand:\n" + json.dumps(value, indent=2, ensure_ascii=False)


def _existing_variant(file: Path) -> Path:
    """Return the file that the client reads: opencode takes .jsonc as well."""
    variant = file.with_suffix(".jsonc")
    return variant if file.name == "opencode.json" and variant.exists() and not file.exists() else file


def _real_file(file: Path, setup: Setup) -> Path:
    """Return where a file really is; a link is followed, but not out of a lab, whose files belong to an agent."""
    try:
        real = file.resolve()
    except (OSError, RuntimeError):
        raise ClientConfigError(f"{file} is a link that leads nowhere. Nothing was written: put a plain file there.") from None
    if file.is_relative_to(setup.root) and not setup.user and not real.is_relative_to(setup.root.resolve()):
        raise ClientConfigError(f"{file} leads out of the lab, to {real}. Nothing was written: put a plain file there.")
    return real


def _read_text(file: Path) -> str | None:
    """Return a file's text with its line ends as they are, or None where there is none."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ClientConfigError(f"{file} is not UTF-8 at byte {error.start}. Nothing was written.") from None
    except OSError as error:
        raise ClientConfigError(f"{file} cannot be read ({error.strerror}). Nothing was written.") from None


def _write(plan: Plan) -> None:
    changes = [change for change in plan.changes if change.changed]
    for change in changes:
        if _read_text(change.file) != change.before:
            raise ClientConfigError(f"{change.file} was changed by somebody else just now: call this again.")
    for change in changes:
        try:
            _write_one(change)
        except OSError as error:
            raise ClientConfigError(
                f"{change.file} cannot be written ({error.strerror}). Files before it may have been: make it writable and call "
                "this again, or `autoresearch uninstall`."
            ) from error


def _write_one(change: Change) -> None:
    if change.after is None:
        change.file.unlink()
        _remove_if_empty(change.file.parent)
        return
    change.file.parent.mkdir(parents=True, exist_ok=True)
    # A new file is private: a client may put account data into one in the home later.
    mode = 0o600 if change.before is None else stat.S_IMODE(change.file.stat().st_mode)
    write_atomically(change.file, change.after.encode(), mode)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _record_file() -> Path:
    return state_root() / "clients.json"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep another install or uninstall waiting: what it reads of the record is then what this one wrote."""
    file = _record_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(file.with_name(f"{file.name}.lock")):
        yield


def _read_record() -> dict[str, Any]:
    try:
        return read_json(_record_file()) or {}
    except ValueError:
        raise ClientConfigError(
            f"The record of what was installed, {_record_file()}, is damaged. Nothing was written: move it away. What it knew "
            "of must then be taken out by hand."
        ) from None


def _write_record(record: dict[str, Any]) -> None:
    write_json(_record_file(), record, durable=True)
