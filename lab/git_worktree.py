"""A researcher's own working tree: a linked worktree that is written by us, because a checkout would run what it is told.

`git worktree add` and `git checkout` run hooks and the filters that ``.gitattributes`` names, and change line endings. Here
the entry in ``.git/worktrees``, the files and the index are made one by one, each seen whole or not at all.

Guarantees: files have the bytes and the executable bit of the commit, so ``git status`` is clean unless the repository's
own rules say otherwise; nothing runs but plumbing on objects; no link is followed below the repository; a file that is
there already stays as it is; other worktrees, HEAD and the index of the repository stay as they are. The index comes last:
where it is missing, whatever ended the call before, the next call goes on. One process works at a time.

Does not: fill in submodules (their folders stay empty, as git leaves them), remove a worktree, or wait for the disk: after
a power cut files may be short, as after a checkout of git.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .disk import is_about_disk, named
from .errors import CandidateError, GitError
from .files import read_regular_file, write_atomically
from .git_command import run_git
from .git_names import TreeEntry, path_parts, require_object, tree_entries

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX = "autoresearch-"
_LOCK_SECONDS = 120.0
_BATCH_BYTES = 64 << 20
_LINK_BYTES = 16_384  # far more than any path in .git and gitdir


def add_worktree(root: Path, common_dir: Path, path: Path, commit: str) -> None:
    """Make, finish or mend the worktree of the repository at ``path``, detached at ``commit`` where it is new.

    Raises:
        GitError: ``path`` is not below a folder of ``root``, holds another repository, or is reached through a link; the
            commit is not (wholly) here; another process has held the folder for two minutes; or it cannot be written.
        OSError: the disk is full (the error names ``path``).
    """
    place = _Place.of(root, common_dir, path)
    if (common_dir / "reftable").exists():
        raise GitError(f"{root} keeps its refs as reftable, in which no worktree can be made: clone it without that format")
    try:
        with _opened(root, place.parts[:-1]) as around, _locked(around, path.parent):
            with _opened(root, place.parts[:1]) as ours:
                _ignore_all(ours)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place.temporary, dir_fd=around)
            with _opened(common_dir, ("worktrees", place.entry.name)), _opened(root, place.parts):
                _connect(place, commit, around)
            if not (place.entry / "index").is_file():
                _fill(place, commit, around)
    except CandidateError as error:
        raise GitError(f"The worktree {path} cannot be made: {error}")
    except OSError as error:
        if is_about_disk(error):
            raise named(error, path)
        raise GitError(f"The worktree {path} cannot be made ({error}): make room for it, then call again")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    root: Path
    common_dir: Path
    path: Path
    parts: tuple[str, ...]  # of path, below root
    entry: Path  # the worktree's own git directory

    @classmethod
    def of(cls, root: Path, common_dir: Path, path: Path) -> _Place:
        if not path.is_relative_to(root) or len(parts := path.relative_to(root).parts) < 2 or "\n" in str(path):
            raise GitError(f"{path} cannot be a worktree: it must lie in a folder of its own below {root}")
        path_parts("/".join(parts))
        entries = common_dir / "worktrees"
        entry_name = f"{_PREFIX}{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
        # A lab that was moved has an entry under the name of its old place; the entry of a copied one belongs to another.
        said = Path(_read(root, path / ".git").removeprefix("gitdir: "))
        if said.name.startswith(_PREFIX) and said.parent.name == "worktrees" and (entries / said.name / "HEAD").is_file():
            user = Path(_read(common_dir, entries / said.name / "gitdir") or os.devnull)
            if user == path / ".git" or not _belongs(user, entries / said.name):
                entry_name = said.name
        return cls(root=root, common_dir=common_dir, path=path, parts=parts, entry=entries / entry_name)

    @property
    def temporary(self) -> str:
        """The name, beside the worktree, of each file while it is written."""
        return f".{self.path.name}.new"


def _belongs(git_file: Path, entry: Path) -> bool:
    if not git_file.is_file():
        return False
    with git_file.open("rb") as stream:
        return stream.read(_LINK_BYTES).strip() == b"gitdir: " + os.fsencode(entry)


def _connect(place: _Place, commit: str, around: int) -> None:
    """Make folder and entry name each other; HEAD and index are kept only where the folder was this worktree before."""
    entry = place.entry
    said = Path(_read(place.root, place.path / ".git").removeprefix("gitdir: "))
    if (said.name, said.parent.name) != (entry.name, "worktrees") or not _read(place.common_dir, entry / "HEAD"):
        if stat.S_ISDIR(_mode(place.path / ".git")):
            raise GitError(f"{place.path} holds a repository of its own: move it away, then call again")
        (entry / "index").unlink(missing_ok=True)
        _write(place, "HEAD", commit)
    _write(place, "commondir", "../..")
    _write(place, "gitdir", str(place.path / ".git"))
    if _read(place.root, place.path / ".git") != f"gitdir: {entry}":
        _create(around, place.temporary, b"gitdir: " + os.fsencode(entry) + b"\n", 0o666)
        with _opened(place.root, place.parts) as folder:
            os.replace(place.temporary, ".git", src_dir_fd=around, dst_dir_fd=folder)


def _fill(place: _Place, commit: str, around: int) -> None:
    """Write the files that are missing, then the index."""
    head = run_git(place.path, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", git_dir=place.entry, accept=(0, 1, 128))
    if head.status == 0:
        commit = require_object(head.line)  # of the call that was interrupted: its files are there
    else:
        _write(place, "HEAD", commit)
    index = _index_of(place, commit)
    listing = run_git(place.path, "ls-tree", "-r", "-z", "-l", "--full-tree", commit, git_dir=place.entry).stdout
    with _opened(place.root, place.parts) as top:
        for batch in _batches(tree_entries(listing)):
            contents = iter(_blobs(place, [entry.object_name for _, entry in batch if entry.kind == "blob"]))
            for name, entry in batch:
                content = next(contents) if entry.kind == "blob" else None
                _place_entry(top, around, place.temporary, name.split(b"/"), entry, content)
    write_atomically(place.entry / "index", index, beneath=place.common_dir)


def _index_of(place: _Place, commit: str) -> bytes:
    """Return the index of a commit; git refuses paths that must not be written."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-index-") as name:
        index = Path(name) / "index"
        run_git(place.path, "read-tree", commit, git_dir=place.entry, environment={"GIT_INDEX_FILE": str(index)})
        return index.read_bytes()


def _batches(entries: Iterable[tuple[bytes, TreeEntry]]) -> Iterator[list[tuple[bytes, TreeEntry]]]:
    batch: list[tuple[bytes, TreeEntry]] = []
    total = 0
    for name, entry in entries:
        if batch and total + (entry.size_bytes or 0) > _BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append((name, entry))
        total += entry.size_bytes or 0
    yield batch


def _blobs(place: _Place, names: Sequence[str]) -> Iterator[bytes]:
    request = "".join(f"{name}\n" for name in names).encode()
    answer = run_git(place.path, "cat-file", "--batch", git_dir=place.entry, stdin=request).stdout if names else b""
    position = 0
    for name in names:
        end = answer.find(b"\n", position)
        found, *facts = answer[position:end].decode().split()
        if found != name or len(facts) != 2 or facts[0] != "blob":
            raise GitError(f"The object {name} is missing in {place.common_dir}: run `git fsck` there, then call again")
        position = end + 1 + int(facts[1]) + 1
        yield answer[end + 1 : position - 1]


def _place_entry(top: int, around: int, temporary: str, parts: list[bytes], entry: TreeEntry, content: bytes | None) -> None:
    """Write one file, link or submodule's folder, unless something is there, or in the way of its folder."""
    *folders, name = parts
    if any(part in (b"", b".", b"..") or part.lower() == b".git" for part in parts):
        raise GitError(f"{b'/'.join(parts)!r} in the commit is no path that may be written: begin from another commit")
    try:
        folder = os.dup(top)
        for part in folders:
            folder = _step(folder, part, create=True)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return  # a file or link of the researcher's
        raise
    try:
        if content is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
        elif entry.is_link:
            with contextlib.suppress(FileExistsError):
                os.symlink(content, name, dir_fd=folder)
        else:
            _create(around, temporary, content, 0o777 if entry.is_executable else 0o666)
            _move(temporary, name, around, folder)
    finally:
        os.close(folder)


def _create(folder: int, name: str, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(name, _FILE_FLAGS, mode, dir_fd=folder), "wb") as stream:
        stream.write(content)


def _move(temporary: str, name: bytes, around: int, folder: int) -> None:
    """Give the written file its name, unless that is taken."""
    try:
        os.link(temporary, name, src_dir_fd=around, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not _exists(name, folder):
            os.rename(temporary, name, src_dir_fd=around, dst_dir_fd=folder)
            return
    os.unlink(temporary, dir_fd=around)


def _exists(name: bytes, folder: int) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _ignore_all(folder: int) -> None:
    """Keep a folder out of the status of the repository around it, whatever its .gitignore says."""
    with contextlib.suppress(FileExistsError):
        _create(folder, ".gitignore", b"*\n", 0o666)


def _read(root: Path, path: Path) -> str:
    """Return the one line of a small file of git's, or nothing."""
    try:
        data = read_regular_file(root, path.relative_to(root).as_posix(), _LINK_BYTES)
    except CandidateError:
        return ""
    return os.fsdecode(data).removesuffix("\n")


def _write(place: _Place, name: str, line: str) -> None:
    if _read(place.common_dir, place.entry / name) != line:
        write_atomically(place.entry / name, os.fsencode(line) + b"\n", beneath=place.common_dir)


def _step(folder: int, name: str | bytes, *, create: bool) -> int:
    """Return a descriptor of the folder ``name`` in ``folder``, which is closed whatever happens."""
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
        return os.open(name, _FOLDER_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _opened(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of a folder below ``root``, made where it is missing, reached without a link."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            folder = _step(folder, part, create=True)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise GitError(
                    f"{part} on the way to {root.joinpath(*parts)} is a link or a file: move it away, then call again"
                )
            raise
    try:
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(folder: int, path: Path) -> Iterator[None]:
    """Hold the folder against other processes of ours; the lock goes with its holder."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise GitError(f"Another process has held {path} for {_LOCK_SECONDS:.0f} s: end it, then call again")
            time.sleep(0.02)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)
