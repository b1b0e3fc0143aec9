"""Where the text of a corpus comes from, as `prepare_corpus` sees it.

A source is a list of projects, each with the hash of its bytes and the one split it belongs to, and a way to read the
documents of a project. The list is known before anything is fetched, so a corpus that is already prepared is recognised
without a network. Splitting by whole project is the rule: no project has documents in two splits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
HELD_OUT_SPLITS: tuple[Split, ...] = ("val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One project of a corpus: what it is, the SHA-256 of the file it comes from, and the split all of it goes to."""

    name: str
    version: str
    sha256: str
    split: Split

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"project {self.name!r}: split is {self.split!r}, must be one of {', '.join(SPLITS)}")


class CorpusSource(Protocol):
    """What `prepare_corpus` builds a corpus from."""

    @property
    def projects(self) -> tuple[Project, ...]:
        """Every project, in the order in which its text is stored; known without fetching anything."""
        ...

    def fetch(self, scratch: Path) -> None:
        """Bring what is needed into the empty folder ``scratch``; it is deleted when the corpus is built.

        Raises:
            PrepareError: the text could not be fetched, or is not the text that was asked for.
        """
        ...

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        """Yield the documents of ``project``, always the same ones in the same order."""
        ...


def document_ranges(offsets: npt.NDArray[np.int64], limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield ``(first, stop)`` of consecutive documents that hold up to ``limit_bytes``, or of one document that holds more.

    ``offsets`` is where each document starts, and the end of the last, int64 ``[documents + 1]``.
    """
    first = 0
    while first < len(offsets) - 1:
        stop = max(bisect_right(offsets, int(offsets[first]) + limit_bytes) - 1, first + 1)
        yield first, stop
        first = stop
