"""What is pinned: the trees of files of a corpus and of an environment, with their hashes and what puts them back.

Of an environment that is what a sandboxed candidate can read of it (`python_probe.layout`), bytecode included, and what Python
runs unasked when it starts; beside it, what the runner imports and so trusts. Guarantees: everything below these folders
counts, so nothing can be put there unseen. Left out: the system's own libraries, which its package manager upgrades, and of the
standard library what no training imports.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import importlib.util
import json
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..prepare.corpus import Corpus
from .environment import trainer_path
from .errors import NotReadyError
from .machine import command_path
from .referee.pins import BYTECODE_SUFFIX, Kind, PinnedFile, PinnedTree, content_sha256, joined, signature_of, walk
from .referee.sandbox.interpreter import NOT_FOR_TRAINING, InterpreterError, layout_of

_SETTLED_NS = 2_000_000_000  # a file that was written later than that before it was pinned could change unseen in the same tick
_REFEREE_MODULES = ("psutil", "platformdirs", "pyseccomp", "pynvml")  # what the runner imports beside the environment
_DESCRIBED = {"executable", "standard", "extensions", "files", "entries", "packages"}
_SYSTEM = ("/usr/lib", "/usr/include", "/lib")  # of the system's package manager, and upgraded by it


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMaker:
    """Pins trees; a hash comes from what is ``known`` of a file with this signature, from a RECORD, or from its bytes."""

    known: Mapping[str, PinnedFile]
    trust_records: bool

    def tree(
        self,
        kind: Kind,
        root: Path,
        remedy: str,
        *,
        recorded: Mapping[str, tuple[int, str]] | None = None,
        skipped: tuple[str, ...] = (),
    ) -> PinnedTree:
        """Pin what counts below ``root``; ``recorded`` maps a path to the size and the SHA-256 that its package names."""
        recorded = recorded if recorded is not None and self.trust_records else {}
        settled_ns = time.time_ns() - _SETTLED_NS
        files = {}
        for name, status in sorted(walk(root, kind, skipped=frozenset(skipped)).items()):
            path, signature = joined(str(root), name), signature_of(status)
            known, record = self.known.get(path), recorded.get(path)
            if known is not None and known.signature == signature:
                files[name] = known
                continue
            sha256 = record[1] if record is not None and record[0] == status.st_size else content_sha256(path)
            is_settled = status.st_ctime_ns < settled_ns
            files[name] = PinnedFile(sha256=sha256, signature=signature if is_settled or sha256 is None else None)
        return PinnedTree(kind=kind, root=str(root), remedy=remedy, files=files, skipped=skipped)


def corpus_tree(maker: TreeMaker, corpus: Corpus) -> PinnedTree:
    """Pin a corpus; raises `NotReadyError` where a file is not the one in the manifest, or in the sidecar of its store."""
    remedy = f"run `{command_path()} {corpus.repair_command.removeprefix('autoresearch ')}`, which makes it again"
    tree = maker.tree(Kind.CORPUS, corpus.path, remedy)
    expected = {"tokenizer.json": corpus.manifest.tokenizer_sha256}
    for split, record in corpus.manifest.splits.items():
        expected |= {f"{split}.txt": record.text_sha256, f"{split}.offsets": record.offsets_sha256}
    for store in _stores(corpus):
        expected |= _store_hash(corpus, store)
    _require_content(corpus, tree.files, expected, remedy)
    return tree


def add_new_stores(tree: PinnedTree, corpus: Corpus) -> PinnedTree:
    """Return the pins of a corpus with the token stores that were made since; all else stays pinned as it was."""
    maker, files = TreeMaker(known={}, trust_records=False), dict(tree.files)
    for store in _stores(corpus):
        if store.relative_to(corpus.path).as_posix() in tree.files:
            continue
        for path in (store, store.with_suffix(".json")):
            files[path.relative_to(corpus.path).as_posix()] = maker.tree(Kind.CORPUS, path, tree.remedy).files[""]
        _require_content(corpus, files, _store_hash(corpus, store), tree.remedy)
    return dataclasses.replace(tree, files=files)


def _require_content(corpus: Corpus, files: Mapping[str, PinnedFile], expected: Mapping[str, str], remedy: str) -> None:
    for name, sha256 in expected.items():
        if files[name].sha256 != sha256:
            raise NotReadyError(f"The corpus file {corpus.path / name} is not what was prepared; {remedy}.")


def _store_hash(corpus: Corpus, store: Path) -> dict[str, str]:
    """Return name -> SHA-256 of a token store, as its sidecar has it."""
    sidecar = json.loads(store.with_suffix(".json").read_text())
    return {store.relative_to(corpus.path).as_posix(): sidecar["sha256"]}


def _stores(corpus: Corpus) -> list[Path]:
    from ..prepare.store import read_store_record

    return [path for path in sorted((corpus.path / "stores").glob("*.bin")) if read_store_record(path) is not None]


def environment_trees(maker: TreeMaker, configured: str | None) -> list[PinnedTree]:
    """Pin the interpreter that trains, and what the referee's own has beside it.

    ``configured`` is ``[trainer] python``; None: the referee's own trains.
    """
    trees = list(_interpreter_trees(maker, Kind.ENVIRONMENT, configured))
    if configured is not None:
        trees += _interpreter_trees(maker, Kind.REFEREE, None)
    remedy = f"put it back (pip install --force-reinstall), or run `{command_path()} init`, which pins what is there now"
    for module in _REFEREE_MODULES:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            root = origin.parent if spec.submodule_search_locations else origin
            trees.append(maker.tree(Kind.REFEREE, root.resolve(), remedy))
    unique: dict[tuple[str, bool], PinnedTree] = {}
    for tree in trees:
        unique.setdefault((tree.root, tree.kind is Kind.HOOKS), tree)
    return list(unique.values())


def _interpreter_trees(maker: TreeMaker, kind: Kind, configured: str | None) -> Iterator[PinnedTree]:
    """Pin an interpreter: the program, its standard library, the packages of torch's closure, and what starts with it."""
    layout = _describe(configured)
    if layout is None:
        return
    path = trainer_path(configured)
    adopt = f"or run `{command_path()} init`, which pins what is there now"
    own = f"put it back (install this Python again), {adopt}"
    # The path as it is called, not where it leads to: a link that was turned elsewhere is another program.
    roots = [Path(path), Path(path).parent.parent / "pyvenv.cfg", Path(layout["executable"])]
    roots += [Path(file) for file in layout["files"] if "libpython" in file or not file.startswith(_SYSTEM)]
    for root in roots:
        if root.exists():
            yield maker.tree(kind, root, own)
    standard = Path(layout["standard"])
    yield maker.tree(kind, standard, own, skipped=tuple(sorted(NOT_FOR_TRAINING)))
    if layout["extensions"] and not Path(layout["extensions"]).is_relative_to(standard):
        yield maker.tree(kind, Path(layout["extensions"]), own)
    recorded, owners = _records(layout["entries"])
    for name, root in sorted(layout["entries"].items()):
        put_back = "put it back"
        if name in owners:
            put_back += f" ({shlex.quote(path)} -m pip install --force-reinstall --no-deps {owners[name]})"
        yield maker.tree(kind, Path(root), f"{put_back}, {adopt}", recorded=recorded)
    folders = {Path(layout["packages"]).resolve(), *(Path(root).parent for root in layout["entries"].values())}
    for folder in sorted(folders):
        yield maker.tree(Kind.HOOKS, folder, f"take it out or put it back, {adopt}")


def _describe(configured: str | None) -> dict[str, Any] | None:
    """Return the `python_probe.layout` of an interpreter; None where it does not say."""
    try:
        layout = layout_of(None if configured is None else trainer_path(configured))
    except InterpreterError:
        return None
    whole = isinstance(layout, dict) and layout.keys() >= _DESCRIBED
    return layout if whole else None


def _records(entries: Mapping[str, str]) -> tuple[dict[str, tuple[int, str]], dict[str, str]]:
    """Return path -> (size, SHA-256) of all files of these packages, as published, and top-level name -> its requirement."""
    recorded, owners = {}, {}
    for name, root in entries.items():
        record = Path(root) / "RECORD"
        if not name.endswith(".dist-info") or not record.is_file():
            continue
        requirement = "==".join(name.removesuffix(".dist-info").rsplit("-", 1))
        with record.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                top = row[0].partition("/")[0]
                owners.setdefault(top, requirement)
                algorithm, _, digest = row[1].partition("=")
                if top in entries and algorithm == "sha256" and row[2].isdigit():
                    path = entries[top] + row[0][len(top) :]
                    recorded[path] = (int(row[2]), base64.urlsafe_b64decode(digest + "==").hex())
    return recorded, owners


def content_digest(trees: Iterable[PinnedTree]) -> str:
    """Return the digest of what trains and scores, wherever it lies; the same version installed again has the same."""
    lines = set()
    for tree in trees:
        top = Path(tree.root).name
        if tree.kind is not Kind.ENVIRONMENT or top == "pyvenv.cfg":
            continue
        top = "program" if top.startswith("python") and "" in tree.files else top  # by whichever link it is called
        is_about = top.endswith((".dist-info", ".egg-info"))  # how and by whom it was installed
        lines |= {
            f"{top}/{name} {pin.sha256}"
            for name, pin in tree.files.items()
            if not name.endswith(BYTECODE_SUFFIX) and (not is_about or name == "entry_points.txt")
        }
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
