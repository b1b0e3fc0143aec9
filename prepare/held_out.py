"""How much of the held-out splits of a corpus occurs in its training text, measured while the corpus is built.

Guarantees: exact up to `overlap.EXACT_BYTES` of training text; beyond, an estimate from the same sample of shingles in every
split, so that memory is bounded (some 300 MB) and only time grows with the text. Every project is held to the limit by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OverlapError
from .manifest import OverlapRecord
from .sources import HELD_OUT_SPLITS, FetchReport, Split, document_ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .corpus import Corpus

_RANGE_BYTES = 8_000_000  # of text that a thread hashes at a time
_THREADS = 8  # numpy lets others run; each needs some 60 MB


def measure_overlap(
    corpus: Corpus, documents_of: dict[str, tuple[int, int]], max_overlap: float | None, report: FetchReport
) -> dict[Split, OverlapRecord]:
    """Return how much of val and of test occurs in train.

    Args:
        corpus: with the text and offsets of every split on disk, and its projects and sizes in the manifest.
        documents_of: for each project, its first document in its split and the one after its last.
        max_overlap: the share (0 to 1) of the distinct shingles of any held-out project that may occur in train; None: any.
        report: called with the fraction of the text that is read.

    Raises:
        OverlapError: a held-out project shares more than that.
    """
    import numpy as np

    from .overlap import distinct_sorted, overlap_share, sample_every

    total_bytes = sum(record.text_bytes for record in corpus.manifest.splits.values())
    one_in = sample_every(corpus.manifest.splits["train"].text_bytes)
    done_bytes = 0

    def add(more_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += more_bytes
        report(done_bytes / total_bytes, f"{done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB")

    train = _hashes(corpus.text_path("train"), corpus.offsets("train"), one_in, add)
    train.sort()
    records: dict[Split, OverlapRecord] = {}
    for split in HELD_OUT_SPLITS:
        offsets = corpus.offsets(split)
        parts = []
        for project in corpus.manifest.projects:
            if project.split != split:
                continue
            first, stop = documents_of[project.name]
            parts.append(_hashes(corpus.text_path(split), offsets[first : stop + 1], one_in, add))
            share = overlap_share(distinct_sorted(parts[-1]), train)
            if max_overlap is not None and share > max_overlap:
                raise OverlapError(
                    f"{share:.2%} of the 13-token shingles of {project.name} ({split}) occur in the training text, at most "
                    f"{max_overlap:.0%} may: move the project to train, or leave it out"
                )
        hashes = np.concatenate(parts)
        records[split] = OverlapRecord(
            distinct_share=round(overlap_share(distinct_sorted(hashes), train), 6),
            occurrence_share=round(overlap_share(hashes, train), 6),
            sampled_share=round(1 / one_in, 6),
        )
    return records


def _hashes(path: Path, offsets: npt.NDArray[np.int64], one_in: int, add: Callable[[int], None]) -> npt.NDArray[np.uint64]:
    """Return the (sampled) shingle hashes of some documents, telling ``add`` after each stretch how many bytes it had."""
    import numpy as np

    from .overlap import shingle_hashes

    def measure(documents: tuple[int, int]) -> npt.NDArray[np.uint64]:
        first, stop = documents
        start = int(offsets[first])
        # Read, not mapped: the pages of a map would count as this process's memory until the end.
        text = np.fromfile(path, dtype=np.uint8, count=int(offsets[stop]) - start, offset=start)
        return shingle_hashes(text, offsets[first : stop + 1] - start, one_in=one_in)

    ranges = list(document_ranges(offsets, _RANGE_BYTES))
    parts = [np.empty(0, dtype=np.uint64)]
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS))
    try:
        for (first, stop), part in zip(ranges, pool.map(measure, ranges), strict=True):
            parts.append(part)
            add(int(offsets[stop] - offsets[first]))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest of the text
    return np.concatenate(parts)
