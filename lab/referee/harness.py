"""The pinned copy of the harness: what runs is a copy of lab/ and prepare/ by SHA-256, never the working tree.

In a clone the installed package *is* the working tree, which the agent may edit; its edits have no effect until a human runs
`autoresearch init` again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from ..disk import named
from ..errors import NotReadyError

_PACKAGE = "autoresearch_mcp"
PARTS = ("lab", "prepare")


def package_root() -> Path:
    """The folder that holds lab/ and prepare/ of the running code."""
    return Path(__file__).resolve().parent.parent.parent


def harness_sha256(root: Path) -> str:
    """Return the SHA-256 over the names and bytes of every module of the harness below ``root``."""
    digest = hashlib.sha256()
    for path in _modules(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def pin_harness(destination: Path) -> str:
    """Copy the running harness below ``destination`` unless it is there already; return its SHA-256."""
    root = package_root()
    sha256 = harness_sha256(root)
    target = destination / sha256
    if not target.exists():
        temporary = destination / f".{sha256}.{os.getpid()}"
        package = temporary / _PACKAGE
        try:
            for path in _modules(root):
                copy = package / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            (package / "__init__.py").write_bytes(b'"""The pinned harness of one lab."""\n')
            temporary.rename(target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not target.exists():
                raise named(error, target)
    return sha256


def pinned_package(destination: Path, sha256: str) -> Path:
    """Return the package folder of a pinned harness; raises `NotReadyError` when its bytes are not the pinned ones."""
    package = destination / sha256 / _PACKAGE
    # Nothing but the hashed sources may lie there: bytecode beside them would be run in their place.
    files = {path for path in package.rglob("*") if not path.is_dir()}
    expected = {*_modules(package), package / "__init__.py"}
    if files != expected or harness_sha256(package) != sha256:
        raise NotReadyError(
            f"The pinned harness {package} is missing or was changed, so nothing can be run with it. Remove the folder "
            f"{package.parent}, run `autoresearch init` and begin a new session."
        )
    return package


def _modules(root: Path) -> list[Path]:
    return sorted(path for part in PARTS for path in (root / part).rglob("*.py"))
