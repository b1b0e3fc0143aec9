"""Which lab a repository is: a UUID in its git directory, which names the state folder outside of it."""

from __future__ import annotations

import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .disk import named
from .errors import NotReadyError
from .jsonfiles import read_json, write_json
from .paths import StatePaths, state_root

_FILE = "autoresearch.json"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A lab's UUID and the git directory that it belongs to."""

    id: str
    state: StatePaths
    created: bool  # by this call


def establish_identity(common_dir: Path, root: Path, *, renew: bool = False) -> Identity:
    """Return the identity of the repository, making one on the first call; ``renew`` makes a copy a lab of its own.

    Raises:
        NotReadyError: the repository is a copy of a lab that still exists, so two labs would write one record.
    """
    path = common_dir / _FILE
    recorded = None if renew else read_json(path)
    if recorded is None:
        lab_id = str(uuid.uuid4())
        write_json(path, {"id": lab_id, "git_dir": str(common_dir)}, durable=True)
        return Identity(id=lab_id, state=_state_folder(lab_id, root), created=True)
    lab_id, origin = str(uuid.UUID(recorded["id"])), Path(recorded["git_dir"])
    if origin != common_dir and not _is_same_folder(origin, common_dir):
        other = read_json(origin / _FILE) if origin.is_dir() else None
        if other is not None and other["id"] == lab_id:
            raise NotReadyError(
                f"{root} is a copy of the lab whose git directory is {origin}; both would write one record. "
                "To make the copy a lab of its own, run there: autoresearch init --new-identity"
            )
        write_json(path, {"id": lab_id, "git_dir": str(common_dir)}, durable=True)  # the lab was moved
    return Identity(id=lab_id, state=_state_folder(lab_id, root), created=False)


def _is_same_folder(one: Path, other: Path) -> bool:
    """True where two spellings (case on macOS, a link) lead to one folder."""
    return one.is_dir() and one.samefile(other)


def adopt_identity(common_dir: Path, lab_id: str) -> None:
    """Make the repository the lab whose state is still there, after its clone was deleted.

    Raises:
        NotReadyError: there is no such state, or the lab that it belongs to still exists.
    """
    folder = state_of(lab_id).root
    if not state_of(lab_id).ledger.is_file():
        there = ", ".join(f"{known} ({root})" for known, root in known_labs()) or "none"
        raise NotReadyError(f"No lab {lab_id!r} has a record in {state_root()}. There are: {there}.")
    origin, own = Path((read_json(folder / "lab.json") or {"root": "/"})["root"]) / ".git" / _FILE, common_dir / _FILE
    if origin.resolve() != own.resolve() and recorded_identity(origin.parent) == lab_id:
        raise NotReadyError(f"The lab {lab_id} still lives in {origin.parent.parent}; two would write one record. Work there.")
    write_json(common_dir / _FILE, {"id": lab_id, "git_dir": str(common_dir)}, durable=True)


def recorded_identity(common_dir: Path) -> str | None:
    """Return the id of the lab that a git directory says it is."""
    recorded = read_json(common_dir / _FILE)
    return None if recorded is None else recorded["id"]


def known_identity(common_dir: Path) -> Identity | None:
    """Return the identity that a git directory has already; nothing is made, and its state may be gone."""
    lab_id = recorded_identity(common_dir)
    return None if lab_id is None else Identity(id=lab_id, state=state_of(lab_id), created=False)


def orphaned_lab(root: Path) -> str | None:
    """Return the id of the one lab that lay at ``root`` and whose record is still here."""
    here = [lab_id for lab_id, known in known_labs() if known == root and state_of(lab_id).ledger.is_file()]
    return here[0] if len(here) == 1 else None


def state_of(lab_id: str) -> StatePaths:
    """The state of a lab of this user, whether it exists or not."""
    return StatePaths(state_root() / "labs" / lab_id)


def known_labs() -> list[tuple[str, Path]]:
    """Return (UUID, workspace) of every lab that has state on this machine."""
    found = []
    for path in sorted((state_root() / "labs").glob("*/lab.json")):
        recorded = read_json(path)
        if recorded is not None:
            found.append((recorded["id"], Path(recorded["root"])))
    return found


def _state_folder(lab_id: str, root: Path) -> StatePaths:
    """Make sure that the state folder exists, is private, and holds the secret that draws the validation windows."""
    state = state_of(lab_id)
    folder = state.root
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if read_json(folder / "lab.json") != {"id": lab_id, "root": str(root)}:
        write_json(folder / "lab.json", {"id": lab_id, "root": str(root)})
    if not state.validation_secret.exists():
        temporary = folder / f".secret.{uuid.uuid4()}"
        try:
            with temporary.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secrets.token_bytes(_SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first; its secret counts
                state.validation_secret.hardlink_to(temporary)
        except OSError as error:
            raise named(error, state.validation_secret)
        finally:
            temporary.unlink(missing_ok=True)
    return state
