"""The only module that runs git: reads, and adds objects and refs, in a repository that an agent can write to.

Everything in ``.git`` may have been planted, so git is reached through GitPython's ``Git.execute`` with fixed plumbing
commands, an environment rebuilt from nothing, and options that outrank ``.git/config``.

Guarantees: no hook, filter, fsmonitor, alias, pager, signing program, transport or helper named there is executed;
bytes go in and out unchanged; HEAD, the index and the working tree are never touched (``initial_commit``, on a
repository without commits, is the one exception); refs move by compare-and-swap and only under
``refs/heads/autoresearch/`` and ``refs/autoresearch/``; equal arguments give the equal commit, so redoing is safe.

Does not: merge, diff, check out or push, nor keep a process or a descriptor open between calls.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import GitError

TAG_RULE = (
    "a tag is 1 to 64 lowercase letters, digits, '.', '_' and '-', starts with a letter or digit, has no '..', "
    "does not end with '.' or '.lock', and is not 'backup'"
)

_COMPONENT = r"[a-z0-9][a-z0-9._-]{0,63}"
_REF = re.compile(rf"refs/(?:heads/)?autoresearch(?:/{_COMPONENT}){{1,3}}")
_REF_PREFIX = re.compile(rf"refs/(?:heads/)?autoresearch(?:/{_COMPONENT}){{0,2}}/?")
_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

# Far above any honest duration: it ends a git that waits for a pipe which somebody put into .git.
_TIMEOUT_SECONDS = 60

_IDENTITY = ("autoresearch", "autoresearch@localhost")

_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    # Outranks protocol.<name>.allow in .git/config, which protocol.allow does not: a partial clone whose remote is
    # "ext::<command>" would otherwise run that command to fetch a missing object.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_AUTHOR_NAME": _IDENTITY[0],
    "GIT_AUTHOR_EMAIL": _IDENTITY[1],
    "GIT_COMMITTER_NAME": _IDENTITY[0],
    "GIT_COMMITTER_EMAIL": _IDENTITY[1],
}

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=committed",
    "core.fsyncMethod=fsync",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "i18n.commitEncoding=UTF-8",
)


def validate_tag(tag: str) -> str:
    """Return ``tag`` if it can name a session and its branch; raises ``GitError`` with the rule otherwise."""
    if re.fullmatch(_COMPONENT, tag) is None or not _is_ref_component(tag) or tag == "backup":
        raise GitError(f"{tag!r} cannot be a tag: {TAG_RULE}")
    return tag


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
                answer = _git(folder, "rev-parse", "--git-common-dir")
                return cls(root=folder, common_dir=(folder / answer.line).resolve())
        raise GitError(f"{start} is not inside a git repository: run `git init` there, or `autoresearch init`")

    @classmethod
    def create(cls, path: Path) -> GitRepository:
        """Make ``path`` (created if missing) a new repository on an unborn branch ``main``, with no template files."""
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve()
        if (root / ".git").exists():
            raise GitError(f"{root} is a git repository already: use it as it is, or choose another folder")
        _git(root, "init", "--quiet", "--template=", "-b", "main", located=False)
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

    def read_file(self, commit: str, path: str) -> bytes | None:
        """Return the bytes of ``path`` in ``commit``, or None where it does not exist; links are refused."""
        parts = _path_parts(path)
        tree = _object_name(commit)
        for depth, name in enumerate(parts, start=1):
            entry = self._tree_entries(tree).get(name)
            if entry is None:
                return None
            if depth == len(parts):
                if not entry.is_regular_file():
                    raise GitError(f"{path} in {commit[:12]} has mode {entry.mode}, so it is not a regular file")
                return self.read_blob(entry.object_name)
            if entry.kind != "tree":
                return None
            tree = entry.object_name
        return None

    def store_blob(self, data: bytes) -> str:
        """Store exactly ``data``, whatever filters and line-ending rules say, and return its object name."""
        return self._run("hash-object", "-w", "--stdin", "--no-filters", stdin=data).line

    def read_blob(self, object_name: str) -> bytes:
        """Return the bytes of a blob."""
        return self._run("cat-file", "blob", _object_name(object_name)).stdout

    def object_exists(self, object_name: str) -> bool:
        """True where the object is in this repository; nothing is fetched."""
        return self._run("cat-file", "-e", _object_name(object_name), accept=(0, 1, 128)).status == 0

    def commit_with_file(self, parent: str | None, path: str, data: bytes, message: str, timestamp: int) -> str:
        """Store the commit that is ``parent`` with ``data`` at ``path``, and return its name; no ref moves.

        Everything else of the parent's tree (modes, links, submodules, names that are not UTF-8) stays as it is. No
        index is involved. ``parent`` None gives a root commit with this one file. ``timestamp`` is in Unix seconds.
        """
        parent_tree = None if parent is None else _object_name(parent)
        tree = self._tree_with_file(parent_tree, _path_parts(path), self.store_blob(data))
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
            tree = self._tree_with_file(tree, _path_parts(path), blob)
            index_lines.append(f"100644 {blob} 0\t{path}".encode() + b"\0")
        if tree is None:
            raise GitError("an initial commit needs at least one file")
        commit = self._commit_tree(tree, None, message, timestamp)
        self._run("update-index", "-z", "--index-info", stdin=b"".join(index_lines))
        self._run("update-ref", "-m", "autoresearch: initial commit", "HEAD", commit, "0" * len(commit))
        return commit

    def ref(self, name: str) -> str | None:
        """Return what the ref points to, or None where it does not exist."""
        answer = self._run("rev-parse", "--verify", "--quiet", _ref_name(name), accept=(0, 1))
        return answer.line if answer.status == 0 else None

    def refs(self, prefix: str) -> dict[str, str]:
        """Return the refs below ``prefix`` by full name, sorted."""
        if _REF_PREFIX.fullmatch(prefix) is None:
            raise GitError(f"{prefix!r} is not a folder of refs that belongs to autoresearch")
        answer = self._run("for-each-ref", "--format=%(refname) %(objectname)", prefix.rstrip("/") + "/")
        lines = answer.stdout.decode("utf-8", "surrogateescape").splitlines()
        return dict(line.split(" ", maxsplit=1) for line in lines)

    def update_ref(self, name: str, new: str, old: str | None) -> None:
        """Point ``name`` at ``new`` if it now points at ``old`` (None: if it does not exist), atomically.

        Where it points at ``new`` already, nothing is left to do: another process of ours may have been first.

        Raises:
            GitError: the ref is elsewhere (the message says where), it is locked, or ``new`` is not in the repository.
        """
        expected = "0" * len(new) if old is None else _object_name(old)
        arguments = ("-m", "autoresearch", _ref_name(name), _object_name(new), expected)
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

    def is_ignored(self, path: str) -> bool:
        """True where git ignores ``path`` by the repository's own rules; a tracked file is not ignored."""
        _path_parts(path)
        # check-ignore refuses to run with literal pathspecs; the prefix keeps ":" from starting a magic one.
        plain = {"GIT_LITERAL_PATHSPECS": "0"}
        return self._run("check-ignore", "--quiet", f"./{path}", environment=plain, accept=(0, 1)).status == 0

    def _run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
    ) -> _Answer:
        return _git(self.root, *arguments, stdin=stdin, environment=environment, accept=accept)

    def _tree_entries(self, tree: str) -> dict[bytes, _TreeEntry]:
        entries = {}
        for record in self._run("ls-tree", "-z", "--full-tree", tree).stdout.split(b"\0")[:-1]:
            facts, _, name = record.partition(b"\t")
            mode, kind, object_name = facts.decode("ascii").split(" ")
            entries[name] = _TreeEntry(mode=mode, kind=kind, object_name=object_name)
        return entries

    def _tree_with_file(self, tree: str | None, parts: tuple[bytes, ...], blob: str) -> str:
        """Store ``tree`` with one path replaced, folder by folder, and return the new tree's name."""
        entries = {} if tree is None else self._tree_entries(tree)
        name, *rest = parts
        existing = entries.get(name)
        if rest:
            if existing is not None and existing.kind != "tree":
                raise GitError(f"{name.decode()} is a {existing.kind} in the commit, not a folder: move it away")
            inner = self._tree_with_file(None if existing is None else existing.object_name, tuple(rest), blob)
            entries[name] = _TreeEntry(mode="040000", kind="tree", object_name=inner)
        else:
            if existing is not None and existing.kind != "blob":
                raise GitError(f"{name.decode()} is a {existing.kind} in the commit, not a file: move it away")
            mode = existing.mode if existing is not None and existing.is_regular_file() else "100644"
            entries[name] = _TreeEntry(mode=mode, kind="blob", object_name=blob)
        records = (f"{entry.mode} {entry.kind} {entry.object_name}\t".encode() + key + b"\0" for key, entry in entries.items())
        # --missing: in a partial clone the other objects need not be here.
        return self._run("mktree", "-z", "--missing", stdin=b"".join(records)).line

    def _commit_tree(self, tree: str, parent: str | None, message: str, timestamp: int) -> str:
        parents = () if parent is None else ("-p", parent)
        dates = {"GIT_AUTHOR_DATE": f"@{timestamp} +0000", "GIT_COMMITTER_DATE": f"@{timestamp} +0000"}
        text = message.replace("\0", "").encode("utf-8", "replace")
        arguments = ("--no-gpg-sign", *parents, "-F", "-", tree)
        return self._run("commit-tree", *arguments, stdin=text, environment=dates).line


@dataclass(frozen=True, slots=True, kw_only=True)
class _TreeEntry:
    mode: str
    kind: str
    object_name: str

    def is_regular_file(self) -> bool:
        return self.kind == "blob" and self.mode != "120000"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    stdout: bytes
    complaint: str

    @property
    def line(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


@functools.cache
def _programs() -> tuple[str, str]:
    """Return the full paths of ``env`` and ``git``."""
    paths = (shutil.which("env"), shutil.which("git"))
    if paths[0] is None or paths[1] is None:
        raise GitError("git is not installed (or not on PATH): install it, for example with your package manager")
    return paths[0], paths[1]


def _git(
    root: Path,
    *arguments: str,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    accept: tuple[int, ...] = (0,),
    located: bool = True,
) -> _Answer:
    """Run one git command in ``root``; a status outside ``accept`` raises ``GitError`` with git's own words."""
    env_program, git_program = _programs()
    try:
        # Takes 0.2 s and runs `git version`, so it waits until git is needed.
        from git.cmd import Git
    except ImportError as error:
        raise GitError(f"GitPython could not be loaded ({error}): repair the installation with `make setup`")
    # GitPython merges os.environ into whatever it is given; `env -i` is the only way to drop what was inherited.
    command = [env_program, "-i"]
    command += [f"{key}={value}" for key, value in {**_ENVIRONMENT, **(environment or {})}.items()]
    command += [git_program, "--no-pager", "--no-replace-objects"]
    for setting in (*_SETTINGS, f"safe.directory={root}"):
        command += ["-c", setting]
    if located:
        # Both are given, because core.worktree and core.bare in .git/config could point elsewhere.
        command += [f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    with tempfile.TemporaryFile() as stream:
        if stdin:
            stream.write(stdin)
            stream.seek(0)
        status, stdout, complaint = Git(str(root)).execute(
            [*command, *arguments],
            istream=stream,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            shell=False,
            kill_after_timeout=_TIMEOUT_SECONDS,
        )
    if status not in accept:
        reason = complaint.strip() or f"it ended with status {status}"
        raise GitError(f"git {arguments[0]} failed in {root}: {reason}")
    return _Answer(status=status, stdout=stdout, complaint=complaint.strip())


def _path_parts(path: str) -> tuple[bytes, ...]:
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or part.lower() == ".git" or "\0" in part or "\n" in part:
            raise GitError(f"{path!r} is not a path inside a repository")
    return tuple(part.encode("utf-8", "surrogateescape") for part in parts)


def _object_name(text: str) -> str:
    if _OBJECT.fullmatch(text) is None:
        raise GitError(f"{text!r} is not a full object name (40 or 64 hexadecimal digits)")
    return text


def _ref_name(name: str) -> str:
    if _REF.fullmatch(name) is None or not all(map(_is_ref_component, name.split("/"))):
        raise GitError(f"{name!r} is not a ref that belongs to autoresearch")
    return name


def _is_ref_component(text: str) -> bool:
    return ".." not in text and not text.endswith((".", ".lock"))


def _at(target: str | None) -> str:
    return "missing" if target is None else f"at {target}"
