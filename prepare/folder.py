"""Any folder of text as a source of documents: `.txt`, `.md`, `.jsonl` and `.parquet`, in folders within it too.

    read          `readers`: the documents of every file, in the order of the files' names
    duplicates    `duplicates`: of what repeats earlier text only the first is kept
    split         `splitting`: by the digest of each document; a text longer than a document may give parts to several splits

Guarantees: the same files give the same splits, whatever the folder is called, where it lies, in which order the disk lists
it, and when it was copied; other names, sizes or bytes give another key. Text goes through the scratch folder, so what is
split is what was read; a file that changes meanwhile is an error. Hidden files and folders are left out, symbolic links are
not followed, and the cache of corpora is never read as text. Memory: some 250 MB and 100 bytes a document, and what `readers`
takes. Disk: the text once more while the corpus is made.
Not covered: who else can read the folder. Text that lies where a candidate can read it, such as under /usr or beside the Python
that trains, can be learned before the clock starts; take other text.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .corpus import cache_root
from .duplicates import document_digest, find_duplicates
from .errors import PrepareError
from .files import sha256_file
from .readers import SUFFIXES, is_readable, read_documents_of, require_library
from .sources import SPLITS, FetchReport, Project, Split
from .splitting import scorable_bytes, split_documents

# A backstop for text of more than `duplicates.EXACT_BYTES`, where the shares that `splitting` goes by are estimates.
MAX_OVERLAP = 0.25

_RULES = "autoresearch folder 1"  # another number when the same files give other splits
_PROBLEMS_SHOWN = 5
_READ_SHARE, _DUPLICATES_SHARE = 0.5, 0.45  # of the time of `fetch`
_REPORT_BYTES = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSummary:
    """What became of the files and documents of a folder."""

    files: int
    left_out: dict[str, int]  # files by ending, and ``links``
    documents: int
    exact_duplicates: int
    near_duplicates: int
    kept: dict[Split, tuple[int, int]]  # documents, bytes

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {count:,} ({size / 1e6:.1f} MB)" for split, (count, size) in self.kept.items())
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
        return (
            f"{self.documents:,} documents of {self.files:,} files, {self.exact_duplicates:,} exact and "
            f"{self.near_duplicates:,} near duplicates left out: {splits}" + (f"; not read: {others}" if others else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    size_bytes: int
    state: tuple[int, int, int]  # changes when the file does


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    files: tuple[_File, ...]
    left_out: dict[str, int]
    key: str


@dataclass(slots=True, kw_only=True)
class _Documents:
    """What is known of every document that was read."""

    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    digests: array[int] = field(default_factory=lambda: array("Q"))
    scorable: array[int] = field(default_factory=lambda: array("q"))

    def add(self, document: str, content: bytes) -> None:
        self.offsets.append(self.offsets[-1] + len(content))
        self.digests.append(document_digest(document))
        self.scorable.append(scorable_bytes(content))


class FolderSource:
    """The text of a folder as a `CorpusSource`; ``summary`` is there after `fetch`."""

    max_overlap = MAX_OVERLAP

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.summary: FolderSummary | None = None
        self._listing: _Listing | None = None

    @property
    def key(self) -> str:
        """``folder:`` and a SHA-256 of the names and bytes of all files; reads them when first asked (a second a gigabyte).

        Raises:
            PrepareError: the folder cannot be read, or has no file that can be.
        """
        return self._listed().key

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        """Read every file into ``scratch``, and decide what is kept and where it goes.

        Raises:
            LibraryMissingError: there are Parquet files, and pyarrow is not installed.
            PrepareError: files cannot be read (the text names the first few), changed meanwhile, or hold too little text.
        """
        listing = self._listed()
        for file in listing.files:
            require_library(file.path)
        documents = self._read(listing, scratch, report)
        offsets = np.array(documents.offsets, dtype=np.int64)
        digests = np.array(documents.digests, dtype=np.uint64)
        duplicates = find_duplicates(
            scratch / "documents",
            offsets,
            digests,
            report=lambda done: report(_READ_SHARE + _DUPLICATES_SHARE * done, "looking for duplicates"),
        )
        kept = np.flatnonzero(duplicates.kept)
        split = np.full(len(digests), len(SPLITS), dtype=np.uint8)  # none of them
        try:
            split[kept] = split_documents(
                digests=digests[kept],
                text_bytes=np.diff(offsets)[kept],
                scorable=np.array(documents.scorable, dtype=np.int64)[kept],
                shared=duplicates.shared[kept],
            )
        except PrepareError as error:
            raise PrepareError(f"{self.path}: {error}, and prepare again") from error
        np.save(scratch / "offsets.npy", offsets)
        np.save(scratch / "split.npy", split)
        sizes = np.diff(offsets)
        self.summary = FolderSummary(
            files=len(listing.files),
            left_out=listing.left_out,
            documents=len(digests),
            exact_duplicates=int(np.count_nonzero(duplicates.exact)),
            near_duplicates=int(np.count_nonzero(duplicates.near)),
            kept={name: (int((split == i).sum()), int(sizes[split == i].sum())) for i, name in enumerate(SPLITS)},
        )
        projects = tuple(self._project(name, listing.key, scratch) for name in SPLITS)
        report(1.0, str(self.summary))
        return projects

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        """Yield the documents of a split, in the order in which they were read."""
        for content in _contents(scratch, project.split):
            yield content.decode("utf-8")

    def _listed(self) -> _Listing:
        if self._listing is None:
            self._listing = _list_files(self.path)
        return self._listing

    def _read(self, listing: _Listing, scratch: Path, report: FetchReport) -> _Documents:
        documents = _Documents()
        problems: list[PrepareError] = []
        total_bytes = max(sum(file.size_bytes for file in listing.files), 1)
        done_bytes, next_report = 0, _REPORT_BYTES
        with (scratch / "documents").open("wb") as text:
            for number, file in enumerate(listing.files, start=1):
                try:
                    for document in read_documents_of(file.path):
                        content = document.encode("utf-8")
                        documents.add(document, content)
                        text.write(content)
                        if documents.offsets[-1] >= next_report:
                            next_report = documents.offsets[-1] + _REPORT_BYTES
                            detail = f"{documents.offsets[-1] / 1e6:.0f} MB of text, file {number:,} of {len(listing.files):,}"
                            report(_READ_SHARE * done_bytes / total_bytes, detail)
                except PrepareError as error:
                    problems.append(error)
                    if len(problems) == _PROBLEMS_SHOWN:
                        break
                done_bytes += file.size_bytes
        if problems:
            more = " There may be more." if len(problems) == _PROBLEMS_SHOWN else ""
            raise PrepareError("\n".join(map(str, problems)) + "\nNothing was prepared." + more) from problems[0]
        for file in listing.files:
            if not file.path.is_file() or _state(file.path) != file.state:
                raise PrepareError(f"{file.path} changed while it was read: prepare again when nothing writes to the folder")
        return documents

    def _project(self, split: Split, key: str, scratch: Path) -> Project:
        digest = hashlib.sha256()
        for content in _contents(scratch, split):
            digest.update(len(content).to_bytes(8, "big") + content)
        version = key.removeprefix("folder:")[:16]
        return Project(name=f"{self.path.name}/{split}", version=version, sha256=digest.hexdigest(), split=split)


def _contents(scratch: Path, split: Split) -> Iterator[bytes]:
    """Yield the bytes of every document of a split that `FolderSource.fetch` left in ``scratch``."""
    offsets: npt.NDArray[np.int64] = np.load(scratch / "offsets.npy")
    chosen = np.flatnonzero(np.load(scratch / "split.npy") == SPLITS.index(split))
    with (scratch / "documents").open("rb") as text:
        for start, end in zip(offsets[chosen].tolist(), offsets[chosen + 1].tolist(), strict=True):
            text.seek(start)
            yield text.read(end - start)


def _list_files(folder: Path) -> _Listing:
    """List the files of a folder by name, and hash them."""
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder: give the folder that holds the {', '.join(SUFFIXES)} files")
    left_out: Counter[str] = Counter()
    paths = sorted(_walk(folder, cache_root().resolve(), left_out), key=lambda path: os.fsencode(path.relative_to(folder)))
    if not paths:
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items())) or "nothing"
        raise PrepareError(
            f"{folder} has no {', '.join(SUFFIXES)} files (hidden ones and symbolic links do not count; it has {others}): "
            "give another folder, or save the text as one of these"
        )
    digest = hashlib.sha256(_RULES.encode())
    files = []
    for path in paths:
        try:
            state = _state(path)
            sha256 = sha256_file(path)
        except OSError as error:
            raise PrepareError(f"{path} cannot be read ({error.strerror}): make it readable, or take it out") from error
        files.append(_File(path=path, size_bytes=state[0], state=state))
        name = os.fsencode(path.relative_to(folder))
        digest.update(len(name).to_bytes(8, "big") + name + bytes.fromhex(sha256))
    return _Listing(files=tuple(files), left_out=dict(left_out), key=f"folder:{digest.hexdigest()}")


def _walk(folder: Path, cache: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Yield the files that can be read, in no order; count the others in ``left_out``."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise PrepareError(f"{folder} cannot be read ({error.strerror}): make it readable, or take it out") from error
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or path == cache:
            continue
        if entry.is_symlink():
            left_out["links"] += 1
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, cache, left_out)
        elif entry.is_file(follow_symlinks=False) and is_readable(path):
            yield path
        else:
            left_out[path.suffix.lower() or "without an ending"] += 1


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat(follow_symlinks=False)
    return found.st_size, found.st_mtime_ns, found.st_ino
