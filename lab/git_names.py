"""What may be named in git: tags of sessions, refs of ours, objects, paths, and the entries of a tree.

Everything is checked before it reaches a command line, so no text can become an option, a revision expression or a path
outside of the tree. Does not: ask git, or know whether something exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import GitError

TAG_RULE = (
    "a tag is 1 to 64 lowercase letters, digits, '.', '_' and '-', starts with a letter or digit, has no '..', "
    "does not end with '.' or '.lock', and is not 'backup'"
)

_COMPONENT = r"[a-z0-9][a-z0-9._-]{0,63}"
_REF = re.compile(rf"refs/(?:heads/)?autoresearch(?:/{_COMPONENT}){{1,3}}")
_REF_PREFIX = re.compile(rf"refs/(?:heads/)?autoresearch(?:/{_COMPONENT}){{0,2}}/?")
_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def validate_tag(tag: str) -> str:
    """Return ``tag`` if it can name a session and its branch; raises ``GitError`` with the rule otherwise."""
    if re.fullmatch(_COMPONENT, tag) is None or not _is_ref_component(tag) or tag == "backup":
        raise GitError(f"{tag!r} cannot be a tag: {TAG_RULE}")
    return tag


def require_ref(name: str) -> str:
    """Return ``name`` if it is a full ref name under our two prefixes."""
    if _REF.fullmatch(name) is None or not all(map(_is_ref_component, name.split("/"))):
        raise GitError(f"{name!r} is not a ref that belongs to autoresearch")
    return name


def require_ref_folder(prefix: str) -> str:
    """Return ``prefix`` with one slash at its end, if it is a folder of refs of ours."""
    if _REF_PREFIX.fullmatch(prefix) is None:
        raise GitError(f"{prefix!r} is not a folder of refs that belongs to autoresearch")
    return prefix.rstrip("/") + "/"


def is_object(text: str) -> bool:
    """True for a full object name, of SHA-1 or SHA-256."""
    return _OBJECT.fullmatch(text) is not None


def require_object(text: str) -> str:
    """Return ``text`` if it is a full object name."""
    if not is_object(text):
        raise GitError(f"{text!r} is not a full object name (40 or 64 hexadecimal digits)")
    return text


def path_parts(path: str) -> tuple[bytes, ...]:
    """Return the components of a POSIX path that stays inside the repository."""
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or part.lower() == ".git" or "\0" in part or "\n" in part:
            raise GitError(f"{path!r} is not a path inside a repository")
    return tuple(part.encode("utf-8", "surrogateescape") for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One line of ``git ls-tree``: a file, a link, a folder (``tree``) or a submodule (``commit``)."""

    mode: str
    kind: str
    object_name: str
    size_bytes: int | None = None  # of a blob, where it was asked for

    @property
    def is_link(self) -> bool:
        return self.mode == "120000"

    @property
    def is_executable(self) -> bool:
        return self.mode == "100755"

    def is_regular_file(self) -> bool:
        return self.kind == "blob" and not self.is_link


def tree_entries(listing: bytes) -> Iterator[tuple[bytes, TreeEntry]]:
    """Yield the path and the entry of every record that ``git ls-tree -z``, with or without ``-l``, printed."""
    for record in listing.split(b"\0")[:-1]:
        facts, _, path = record.partition(b"\t")
        mode, kind, name, *size = facts.decode("ascii").split()
        size_bytes = int(size[0]) if size and size[0].isdigit() else None
        yield path, TreeEntry(mode=mode, kind=kind, object_name=name, size_bytes=size_bytes)


def _is_ref_component(text: str) -> bool:
    return ".." not in text and not text.endswith((".", ".lock"))
