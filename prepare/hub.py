"""Corpora from the Hugging Face hub: pinned Parquet shards of one dataset, as a source of documents.

A dataset here names its commit, its training shards in their order, and the shards that are held out. Validation and test are
pinned and never in train, however many shards are asked for, so labs with more text are still judged on the same documents
(their numbers are not comparable all the same: the tokenizer has seen other text).

Guarantees: every file has the SHA-256 that the hub states for that commit, and the manifest records it; documents come in
the order of the file, unchanged, empty ones left out. Not covered: duplicates between shards (what train and the held-out
text share is measured and recorded).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .corpus import cache_root
from .hub_files import HubFiles, require_libraries
from .readers import read_parquet
from .sources import FetchReport, Project, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Rows ``first_row`` to ``stop_row`` (not included; None: the end) of one Parquet file."""

    file: str
    first_row: int = 0
    stop_row: int | None = None

    def __str__(self) -> str:
        if self.first_row == 0 and self.stop_row is None:
            return self.file
        return f"{self.file}[{self.first_row}:{'' if self.stop_row is None else self.stop_row}]"

    def overlaps(self, other: Shard) -> bool:
        """Whether a row is in both."""
        before = self.stop_row is not None and self.stop_row <= other.first_row
        after = other.stop_row is not None and other.stop_row <= self.first_row
        return self.file == other.file and not before and not after


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A dataset on the hub, at one commit, cut into shards.

    Attributes:
        name: of the corpus made from it.
        repo: owner and name on the hub.
        revision: the whole commit hash.
        train: every training shard there is, in the order in which they are taken.
        default_shards: how many of them are taken unless somebody says otherwise.
        val, test: held out.
        column: of the Parquet files, that holds the documents.
    """

    name: str
    repo: str
    revision: str
    train: tuple[Shard, ...]
    default_shards: int
    val: Shard
    test: Shard
    column: str = "text"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision of {self.repo} is {self.revision!r}, must be a commit hash of 40 hex digits")
        for held_out, others in ((self.val, (*self.train, self.test)), (self.test, self.train)):
            for other in others:
                if held_out.overlaps(other):
                    raise ValueError(f"{held_out} of {self.repo} is held out and shares rows with {other}")

    def shards_in(self, key: str) -> int | None:
        """Return how many training shards a corpus with that source key has, or None when it is not of this dataset."""
        found = re.fullmatch(rf"hub:{re.escape(self.repo)}@[0-9a-f]+:train=(\d+),.*", key)
        shards = None if found is None else int(found[1])
        return shards if shards is not None and 1 <= shards <= len(self.train) else None


class HubSource:
    """The first ``shards`` training shards of a dataset, and its held-out ones, as a `CorpusSource`."""

    max_overlap = None  # of the text of the web nobody says how much repeats: it is measured and recorded

    def __init__(self, dataset: HubDataset, shards: int | None = None, *, back_off_seconds: float = 1.0) -> None:
        """Raises ValueError when the dataset does not have that many shards."""
        self.dataset = dataset
        self.shards = dataset.default_shards if shards is None else shards
        if not 1 <= self.shards <= len(dataset.train):
            there = "one training shard" if len(dataset.train) == 1 else f"1 to {len(dataset.train)} training shards"
            raise ValueError(f"the corpus {dataset.name!r} comes in {there}, {self.shards} is not possible")
        self._back_off_seconds = back_off_seconds

    @property
    def key(self) -> str:
        d = self.dataset
        return f"hub:{d.repo}@{d.revision}:train={self.shards},val={d.val},test={d.test}"

    @property
    def _files(self) -> HubFiles:
        d = self.dataset
        folder = cache_root() / ".hub" / d.repo.replace("/", "--") / d.revision
        return HubFiles(
            corpus_name=d.name, repo=d.repo, revision=d.revision, folder=folder, back_off_seconds=self._back_off_seconds
        )

    def _shards(self) -> dict[str, tuple[Shard, Split]]:
        d = self.dataset
        splits: list[tuple[Shard, Split]] = [(shard, "train") for shard in d.train[: self.shards]]
        return {str(shard): (shard, split) for shard, split in [*splits, (d.val, "val"), (d.test, "test")]}

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        """Bring the files into the cache beside the corpora, where a later call with more shards finds them."""
        require_libraries(self.dataset.name)
        shards = self._shards()
        hashes = self._files.fetch(list(dict.fromkeys(shard.file for shard, _ in shards.values())), report)
        return tuple(
            Project(name=name, version=self.dataset.revision, sha256=hashes[shard.file], split=split)
            for name, (shard, split) in shards.items()
        )

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        """Yield the documents of a shard.

        Raises:
            PrepareError: the file is no Parquet file, or has no such column.
        """
        shard, _ = self._shards()[project.name]
        path = self._files.path(shard.file)
        yield from read_parquet(path, self.dataset.column, first_row=shard.first_row, stop_row=shard.stop_row)
