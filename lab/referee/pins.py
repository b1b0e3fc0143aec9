"""Pins: what a run's harness, corpus and environment consist of, by SHA-256, and whether that still holds.

A pins file is named by the SHA-256 of its own bytes, which the ledger has too, so a hand edit of it shows. For each file it
keeps the hash of its bytes and its stat signature (size, mtime, ctime, inode). `mismatches` reads a file again only where the
signature is another one: an ordinary user cannot set a ctime, so a check of ten thousand files takes a moment.

Guarantees: a pinned file that was changed, even with its mtime set back, or removed is named, and so is one that was put beside
them: whatever a run can read, code or not, could carry something into it. A file that was touched, or put back as it was,
holds. Does not: see what only root can do (setting the machine's clock back, writing to the disk itself), see new bytecode in
a package that was installed without (it appears with use), know the system's own libraries, or prevent anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..files import write_atomically

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode

BYTECODE_SUFFIX = ".pyc"
_HOOKS = ("sitecustomize.py", "usercustomize.py")
_UNFINISHED_SUFFIXES = (".lock", ".tmp")  # beside a token store
_MISSING = "the pins {} are missing or were changed: run `autoresearch init`, which pins what is there now"
_STEP_SECONDS = 0.05
_COMPILED_SHARE = 0.9  # a package whose sources have bytecode was compiled when it was installed


class Kind(StrEnum):
    """What a tree of pinned files is to a run."""

    HARNESS = "harness"  # the pinned copy of lab/ and prepare/
    CORPUS = "corpus"
    ENVIRONMENT = "environment"  # the interpreter that trains and scores, and torch with what it needs
    REFEREE = "referee"  # what the runner itself imports, beside the environment
    HOOKS = "hooks"  # files of a package folder that Python runs, unasked, whenever it starts


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file. Without a signature, because it had just been written when it was pinned, it is read in every check."""

    sha256: str | None  # None: it could not be read, so only the signature is compared
    signature: Signature | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedTree:
    """A folder, or one file (then its name is ""), with the next step for who finds it changed."""

    kind: Kind
    root: str
    remedy: str
    files: dict[str, PinnedFile]  # by the POSIX path below the root
    skipped: tuple[str, ...] = ()  # names directly below the root that are not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Everything that one pins file holds."""

    trees: tuple[PinnedTree, ...]


class PinCheck:
    """The pins of one run, checked before it and after it.

    The first check is made in parts, so that a run's processes may begin meanwhile and are watched all the same; `before` tells
    what it found. Nothing of a run counts before it is complete.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pins: Pins | None = None
        self._steps = self._first()
        self.is_complete = False
        self.before: str | None = None  # the first that did not hold; None: not known yet, or all do

    def advance(self, seconds: float) -> None:
        """Go on with the check before the run, for about so long; one large file that was touched takes longer."""
        deadline = time.monotonic() + seconds
        while not self.is_complete and time.monotonic() < deadline:
            self.before = next(self._steps, "")
            self.is_complete = self.before is not None
            self.before = self.before or None

    def finish(self) -> str | None:
        """Complete the check before the run; return its sentence, as `check` has it."""
        while not self.is_complete:
            self.advance(_STEP_SECONDS)
        return self.before

    def after(self, *, since_ns: int) -> str | None:
        """Return what does not hold now, at the end of a run that began at ``since_ns``, as `check` has it."""
        if self._pins is None:
            return check(self._path, since_ns=since_ns)
        return next(_found(_examine(self._pins, since_ns=since_ns)), None)

    def _first(self) -> Iterator[str | None]:
        self._pins = load_pins(Path(self._path))
        yield _MISSING.format(self._path) if self._pins is None else None
        if self._pins is not None:
            yield from _examine(self._pins)


def check(path: str, *, since_ns: int | None = None) -> str | None:
    """Return None where the pins in the file ``path`` hold, else one sentence: the first that does not, and the next step.

    ``since_ns`` is when the run began, in nanoseconds since the epoch: what was written since does not hold, even if its bytes
    are the pinned ones again.
    """
    return next(mismatches(path, since_ns=since_ns), None)


def mismatches(path: str, *, since_ns: int | None = None, read_everything: bool = False) -> Iterator[str]:
    """Yield a sentence for each pin that does not hold, as `check` has it; ``read_everything`` trusts no signature."""
    pins = load_pins(Path(path))
    if pins is None:
        return iter((_MISSING.format(path),))
    return _found(_examine(pins, since_ns=since_ns, read_everything=read_everything))


def _found(steps: Iterator[str | None]) -> Iterator[str]:
    return (said for said in steps if said is not None)


def _examine(pins: Pins, *, since_ns: int | None = None, read_everything: bool = False) -> Iterator[str | None]:
    """Yield a sentence for each pin that does not hold, and None often enough to be left in between."""
    for tree in pins.trees:
        found = walk(Path(tree.root), tree.kind, skipped=frozenset(tree.skipped))
        yield None
        for name, pin in tree.files.items():
            status = found.get(name)
            if status is not None and not read_everything and pin.signature == signature_of(status):
                continue
            path = joined(tree.root, name)
            said = _difference(path, pin, status, since_ns=since_ns, read_everything=read_everything)
            yield None if said is None else f"{path} ({tree.kind}) {said}; {tree.remedy}"
        added = found.keys() - tree.files.keys()
        if not added or tree.kind is Kind.CORPUS:
            continue
        bytecode_appears = not _is_compiled(tree)
        for name in sorted(added):
            if not (bytecode_appears and name.endswith(BYTECODE_SUFFIX)):
                yield f"{joined(tree.root, name)} ({tree.kind}) was added after its folder was pinned; {tree.remedy}"


def load_pins(path: Path) -> Pins | None:
    """Read a pins file; None where it is missing or its bytes are not those that its name says."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != path.stem:
        return None
    trees = []
    for tree in json.loads(content)["trees"]:
        files = {
            name: PinnedFile(sha256=sha256, signature=None if signature is None else tuple(signature))  # type: ignore[arg-type]
            for name, (sha256, signature) in tree["files"].items()
        }
        trees.append(PinnedTree(**{**tree, "kind": Kind(tree["kind"]), "files": files, "skipped": tuple(tree["skipped"])}))
    return Pins(trees=tuple(trees))


def save_pins(pins: Pins, folder: Path) -> Path:
    """Write the pins into ``folder``, named by their SHA-256, for their owner only; return the file."""
    trees = []
    for tree in pins.trees:
        files = {name: [pin.sha256, pin.signature] for name, pin in tree.files.items()}
        trees.append({"kind": tree.kind, "root": tree.root, "remedy": tree.remedy, "skipped": tree.skipped, "files": files})
    content = json.dumps({"trees": trees}, separators=(",", ":")).encode()
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()}.json"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content, 0o600)
    return path


def walk(root: Path, kind: Kind, *, skipped: frozenset[str] = frozenset()) -> dict[str, os.stat_result]:
    """Return the files below ``root`` that count, by their POSIX path below it; a ``root`` that is a file is named "".

    Links to files are followed. A link to a folder counts as a file: where it leads to is its content.
    """
    try:
        status = root.stat()
    except OSError:
        return {}
    if not stat.S_ISDIR(status.st_mode):
        return {"": status}
    found: dict[str, os.stat_result] = {}
    queue = [""]
    while queue:
        folder = queue.pop()
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    if entry.name in skipped and not folder:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if kind is not Kind.HOOKS:
                            queue.append(prefix + entry.name)
                    elif counts(kind, entry.name):
                        with suppress(OSError):  # gone, or a link that leads nowhere
                            found[prefix + entry.name] = entry.stat(follow_symlinks=not entry.is_dir())
        except OSError:
            continue  # what was pinned in it is missing
    return found


def counts(kind: Kind, name: str) -> bool:
    """True where a file of this name is pinned."""
    if kind is Kind.HOOKS:
        return name.endswith(".pth") or name in _HOOKS
    return kind is not Kind.CORPUS or not name.endswith(_UNFINISHED_SUFFIXES)


def signature_of(status: os.stat_result) -> Signature:
    """Return what changes with every write, rename and change of mode."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def content_sha256(path: str) -> str | None:
    """Return the SHA-256 of a file's bytes, or of where a link to a folder leads; None where it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except IsADirectoryError:
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()  # noqa: PTH115
    except OSError:
        return None


def joined(root: str, name: str) -> str:
    """Return the path of a file of a tree."""
    return f"{root}/{name}" if name else root


def _is_compiled(tree: PinnedTree) -> bool:
    sources, compiled = (sum(name.endswith(suffix) for name in tree.files) for suffix in (".py", BYTECODE_SUFFIX))
    return compiled >= _COMPILED_SHARE * sources


def _difference(
    path: str, pin: PinnedFile, found: os.stat_result | None, *, since_ns: int | None, read_everything: bool
) -> str | None:
    """Say in which way a file is another one than the pinned, whose signature it does not have (or is not trusted)."""
    if found is None:
        # Bytecode that is gone is made again from its pinned source.
        return None if path.endswith(BYTECODE_SUFFIX) else "is gone"
    if since_ns is not None and found.st_ctime_ns >= since_ns:
        return "was written to while the run used it"
    if pin.sha256 is None:
        return None if pin.signature == signature_of(found) else "is not the file that was pinned"
    return None if content_sha256(path) == pin.sha256 else "is not the file that was pinned"
