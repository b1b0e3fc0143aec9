"""Which lab a repository is: a UUID in its git directory, which names the state folder outside of it."""

from __future__ import annotations

import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
    if origin != common_dir:
        other = read_json(origin / _FILE) if origin.is_dir() else None
        if other is not None and other["id"] == lab_id:
            raise NotReadyError(
                f"{root} is a copy of the lab whose git directory is {origin}; both would write one record. "
                "To make the copy a lab of its own, run there: autoresearch init --new-identity"
            )
        write_json(path, {"id": lab_id, "git_dir": str(common_dir)}, durable=True)  # the lab was moved
    return Identity(id=lab_id, state=_state_folder(lab_id, root), created=False)


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
    folder = state_root() / "labs" / lab_id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = StatePaths(folder)
    if read_json(folder / "lab.json") != {"id": lab_id, "root": str(root)}:
        write_json(folder / "lab.json", {"id": lab_id, "root": str(root)})
    if not state.validation_secret.exists():
        temporary = folder / f".secret.{uuid.uuid4()}"
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first; its secret counts
            state.validation_secret.hardlink_to(temporary)
        temporary.unlink()
    return state
