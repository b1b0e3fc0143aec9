"""The repository of a lab: reads, and adds objects, refs and worktrees, beside a user and an agent who work in it.

Everything in ``.git`` may have been planted, so git runs through `git_command` alone, names are checked by `git_names`,
and worktrees are written by `git_worktree`.

Guarantees: no program named in the repository is executed; bytes go in and out unchanged; HEAD, the index and the files of
a working tree that exists are never touched (``initial_commit``, on a repository without commits, is the one exception);
refs move by compare-and-swap and only under ``refs/heads/autoresearch/`` and ``refs/autoresearch/``; equal arguments give
the equal commit, so redoing is safe. Objects that are not here are never fetched.

Does not: merge (`merging` does), diff, check out or push.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import git_worktree
from .errors import CandidateError, GitError
from .files import read_regular_file
from .git_command import Answer, run_git
from .git_names import (
    TAG_RULE,
    TreeEntry,
    is_object,
    path_parts,
    require_object,
    require_ref,
    require_ref_folder,
    tree_entries,
    validate_tag,
)

_LINE_BYTES = 1024
_IN_REFTABLE = "ref: refs/heads/.invalid"  # what HEAD's file says where the refs are kept elsewhere

__all__ = ["TAG_RULE", "GitRepository", "validate_tag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRepository:
    """One repository, or one linked worktree of it; made by ``discover`` or ``create``.

    ``root`` is the top folder of the working tree and ``common_dir`` the git directory that all worktrees share, both
    absolute and without links. Object names are full lowercase hexadecimal; paths are POSIX, relative to ``root``.
    Every method may raise ``GitError``.
    """

    root: Path
    common_dir: Path

    @classmethod
    def discover(cls, path: Path) -> GitRepository:
        """Return the repository around ``path``: the nearest folder upwards that has a ``.git``."""
        start = path.resolve()
        for folder in (start, *start.parents):
            if (folder / ".git").exists():
                answer = run_git(folder, "rev-parse", "--git-common-dir", git_dir=folder / ".git")
                return cls(root=folder, common_dir=(folder / answer.line).resolve())
        raise GitError(f"{start} is not inside a git repository: run `git init` there, or `autoresearch init`")

    @classmethod
    def create(cls, path: Path) -> GitRepository:
        """Make ``path`` (created if missing) a new repository on an unborn branch ``main``, with no template files."""
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve()
        if (root / ".git").exists():
            raise GitError(f"{root} is a git repository already: use it as it is, or choose another folder")
        run_git(root, "init", "--quiet", "--template=", "-b", "main", git_dir=None)
        return cls.discover(root)

    def head_commit(self) -> str | None:
        """Return the commit that HEAD stands on, or None on an unborn branch."""
        answer = self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", accept=(0, 1))
        if answer.status == 0:
            return answer.line
        name = self._run("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1))
        if name.status == 0:
            raise GitError(f"HEAD of {self.root} is {name.line}, which is not a readable commit: run `git fsck` there")
        return None

    def head_branch(self) -> str | None:
        """Return the full name of the ref that HEAD is on, born or not, or None where it is detached."""
        line = _line_of(self.root / ".git", "HEAD")
        if line.startswith("ref: refs/") and line != _IN_REFTABLE:
            return line.removeprefix("ref: ")
        answer = self._run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1))
        return answer.line if answer.status == 0 else None

    def read_file(self, commit: str, path: str) -> bytes | None:
        """Return the bytes of ``path`` in ``commit``, or None where it does not exist; links are refused."""
        name = b"/".join(path_parts(path))
        listing = self._run("ls-tree", "-z", "--full-tree", require_object(commit), path).stdout
        entry = dict(tree_entries(listing)).get(name)
        if entry is None:
            return None
        if not entry.is_regular_file():
            raise GitError(f"{path} in {commit[:12]} has mode {entry.mode}, so it is not a regular file")
        return self.read_blob(entry.object_name)

    def store_blob(self, data: bytes) -> str:
        """Store exactly ``data``, whatever filters and line-ending rules say, and return its object name."""
        return self._run("hash-object", "-w", "--stdin", "--no-filters", stdin=data).line

    def read_blob(self, object_name: str) -> bytes:
        """Return the bytes of a blob."""
        return self._run("cat-file", "blob", require_object(object_name)).stdout

    def object_exists(self, object_name: str) -> bool:
        """True where the object is in this repository; nothing is fetched."""
        return self._run("cat-file", "-e", require_object(object_name), accept=(0, 1, 128)).status == 0

    def commit_with_file(self, parent: str | None, path: str, data: bytes, message: str, timestamp: int) -> str:
        """Store the commit that is ``parent`` with ``data`` at ``path``, and return its name; no ref moves.

        Everything else of the parent's tree (modes, links, submodules, names that are not UTF-8) stays as it is. No
        index is involved. ``parent`` None gives a root commit with this one file. ``timestamp`` is in Unix seconds.
        """
        parent_tree = None if parent is None else require_object(parent)
        tree = self._tree_with_file(parent_tree, path_parts(path), self.store_blob(data))
        return self._commit_tree(tree, parent, message, timestamp)

    def initial_commit(self, files: Mapping[str, bytes], message: str, timestamp: int) -> str:
        """Commit ``files`` as the first commit of the checked-out branch and add them to the index.

        Where the same bytes lie in the working tree, ``git status`` is clean afterwards. What was staged before stays.
        """
        if self.head_commit() is not None:
            raise GitError(f"{self.root} has commits already: commit the new files yourself")
        tree = None
        index_lines = []
        for path, data in files.items():
            blob = self.store_blob(data)
            tree = self._tree_with_file(tree, path_parts(path), blob)
            index_lines.append(f"100644 {blob} 0\t{path}".encode() + b"\0")
        if tree is None:
            raise GitError("an initial commit needs at least one file")
        commit = self._commit_tree(tree, None, message, timestamp)
        self._run("update-index", "-z", "--index-info", stdin=b"".join(index_lines))
        self._run("update-ref", "-m", "autoresearch: initial commit", "HEAD", commit, "0" * len(commit))
        return commit

    def ref(self, name: str) -> str | None:
        """Return what the ref points to, or None where it does not exist."""
        if is_object(line := _line_of(self.common_dir, require_ref(name))):
            return line
        answer = self._run("rev-parse", "--verify", "--quiet", name, accept=(0, 1))
        return answer.line if answer.status == 0 else None

    def refs(self, prefix: str) -> dict[str, str]:
        """Return the refs below ``prefix`` by full name, sorted."""
        answer = self._run("for-each-ref", "--format=%(refname) %(objectname)", require_ref_folder(prefix))
        lines = answer.stdout.decode("utf-8", "surrogateescape").splitlines()
        return dict(line.split(" ", maxsplit=1) for line in lines)

    def ref_messages(self, prefix: str) -> dict[str, str]:
        """Return the messages of the commits that the refs below ``prefix`` name, by full name of the ref; "" for a blob."""
        form = "--format=%(refname)%00%(if:equals=commit)%(objecttype)%(then)%(contents)%(end)%00"
        text = self._run("for-each-ref", form, require_ref_folder(prefix)).stdout.decode("utf-8", "replace")
        parts = text.split("\0")
        return {ref.strip(): message for ref, message in zip(parts[::2], parts[1::2], strict=False)}

    def update_ref(self, name: str, new: str, old: str | None) -> None:
        """Point ``name`` at ``new`` if it now points at ``old`` (None: if it does not exist), atomically.

        Where it points at ``new`` already, nothing is left to do: another process of ours may have been first.

        Raises:
            GitError: the ref is elsewhere (the message says where), it is locked, or ``new`` is not in the repository.
        """
        expected = "0" * len(new) if old is None else require_object(old)
        arguments = ("-m", "autoresearch", require_ref(name), require_object(new), expected)
        # Without --no-deref a symbolic ref planted under our name would move the user's branch.
        answer = self._run("update-ref", "--no-deref", *arguments, accept=(0, 1, 128))
        if answer.status != 0:
            found = self.ref(name)
            if found == new:
                return  # another process of ours was first
            if found != old:
                raise GitError(
                    f"{name} was expected {_at(old)} and is {_at(found)}, so it was left alone: "
                    "somebody else moved it; look at `autoresearch status`"
                )
            raise GitError(f"{name} cannot be set to {new}: {answer.complaint}")

    def add_worktree(self, path: Path, commit: str) -> None:
        """Make a linked worktree at ``path``, two or more folders below ``root``, detached at ``commit``.

        Called again it finishes what was begun, and makes a deleted folder again; what lies there is never overwritten.
        """
        git_worktree.add_worktree(self.root, self.common_dir, path, require_object(commit))

    def is_ignored(self, path: str) -> bool:
        """True where git ignores ``path`` by the repository's own rules; a tracked file is not ignored."""
        path_parts(path)
        # check-ignore refuses to run with literal pathspecs; the prefix keeps ":" from starting a magic one.
        plain = {"GIT_LITERAL_PATHSPECS": "0"}
        return self._run("check-ignore", "--quiet", f"./{path}", environment=plain, accept=(0, 1)).status == 0

    def _run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
    ) -> Answer:
        return run_git(self.root, *arguments, git_dir=self.root / ".git", stdin=stdin, environment=environment, accept=accept)

    def _tree_entries(self, tree: str) -> dict[bytes, TreeEntry]:
        return dict(tree_entries(self._run("ls-tree", "-z", "--full-tree", tree).stdout))

    def _tree_with_file(self, tree: str | None, parts: tuple[bytes, ...], blob: str) -> str:
        """Store ``tree`` with one path replaced, folder by folder, and return the new tree's name."""
        entries = {} if tree is None else self._tree_entries(tree)
        name, *rest = parts
        existing = entries.get(name)
        if rest:
            if existing is not None and existing.kind != "tree":
                raise GitError(f"{name.decode()} is a {existing.kind} in the commit, not a folder: move it away")
            inner = self._tree_with_file(None if existing is None else existing.object_name, tuple(rest), blob)
            entries[name] = TreeEntry(mode="040000", kind="tree", object_name=inner)
        else:
            if existing is not None and existing.kind != "blob":
                raise GitError(f"{name.decode()} is a {existing.kind} in the commit, not a file: move it away")
            mode = existing.mode if existing is not None and existing.is_regular_file() else "100644"
            entries[name] = TreeEntry(mode=mode, kind="blob", object_name=blob)
        records = (f"{entry.mode} {entry.kind} {entry.object_name}\t".encode() + key + b"\0" for key, entry in entries.items())
        # --missing: in a partial clone the other objects need not be here.
        return self._run("mktree", "-z", "--missing", stdin=b"".join(records)).line

    def _commit_tree(self, tree: str, parent: str | None, message: str, timestamp: int) -> str:
        parents = () if parent is None else ("-p", parent)
        dates = {"GIT_AUTHOR_DATE": f"@{timestamp} +0000", "GIT_COMMITTER_DATE": f"@{timestamp} +0000"}
        text = message.replace("\0", "").encode("utf-8", "replace")
        arguments = ("--no-gpg-sign", *parents, "-F", "-", tree)
        return self._run("commit-tree", *arguments, stdin=text, environment=dates).line


def _line_of(git_dir: Path, name: str) -> str:
    """Return a file of the git directory that has one line, without asking git; empty where only git can say."""
    try:
        return read_regular_file(git_dir, name, _LINE_BYTES).decode().removesuffix("\n")
    except (CandidateError, OSError, UnicodeDecodeError):  # packed, linked, missing, or not a plain folder
        return ""


def _at(target: str | None) -> str:
    return "missing" if target is None else f"at {target}"
