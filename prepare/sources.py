"""Where the text of a corpus comes from, as `prepare_corpus` sees it.

A source has a key, known without a network, that says which text it is: a corpus that is already prepared is recognised by
it. Fetching gives the projects, each with the hash of its bytes and the one split it belongs to; then the documents of a
project can be read. Splitting by whole project is the rule: no project has documents in two splits.
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


class FetchReport(Protocol):
    """What a source calls while it fetches, with the fraction (0 to 1) that is done and, if it helps, what that means."""

    def __call__(self, fraction: float, detail: str = "", /) -> None: ...


class CorpusSource(Protocol):
    """What `prepare_corpus` builds a corpus from."""

    @property
    def key(self) -> str:
        """What identifies the text, known without a network and without reading much; other text has another key.

        It begins with the kind of source and a colon.
        """
        ...

    @property
    def max_overlap(self) -> float | None:
        """The share (0 to 1) of the distinct 13-token shingles of a held-out project that may occur in train.

        None: the share is only recorded.
        """
        ...

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        """Bring the text and return every project, in the order in which its text is stored; names are unique.

        ``scratch`` is an empty folder that is deleted when the corpus is built.

        Raises:
            PrepareError: the text could not be fetched, or is not the text that was asked for.
        """
        ...

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        """Yield the documents of ``project``, always the same ones in the same order; called after `fetch`."""
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
