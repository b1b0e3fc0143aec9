"""Which documents of a folder are held out: a rule that depends on the documents alone, not on names, order or chance.

Held out is only a document that can be measured on: scoring takes at least half of it (`scorable_bytes`), and at most
`MAX_SHARED_SHARE` of its shingles stand in any other document, be that in train or not. Of these, in the order of their
digests, validation has the first `HELD_OUT_SHARE`, test as much of the next, within bounds that are those of the profiles: at
least what `cpu` scores, at most what `gpu` scores. All others are train.

Guarantees, as far as the shares are exact: no more than `MAX_SHARED_SHARE` of a held-out document, and so of a held-out split,
occurs in train. Adding documents moves few others. Not covered: what documents have in common beyond their words, such as the
author or the plot.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .errors import PrepareError
from .sources import HELD_OUT_SPLITS, SPLITS, Split

HELD_OUT_SHARE = 0.05
LEAST_HELD_OUT_BYTES = 300_000  # profile cpu scores 280,000
MOST_HELD_OUT_BYTES = 64_000_000  # profile gpu scores 60,000,000
LEAST_TRAIN_BYTES = 400_000

# Text of one kind repeats itself: a licence, an idiom. In the sources of torch and of Python's standard library 92 % and 91 %
# of the text is in documents below this limit, at a tenth it would be 84 % and 79 %.
MAX_SHARED_SHARE = 0.2

# The windows of profile cpu, which are the smallest: see `lab.referee.windows`.
WINDOW_BYTES = 2048
SHORTEST_WINDOW_BYTES = WINDOW_BYTES // 4
LONGEST_WINDOW_BYTES = WINDOW_BYTES * 2


def scorable_bytes(document: bytes) -> int:
    """Return how much of a document scoring can take: cut after lines into windows of a fit size, what is left over not."""
    total, left = 0, 0
    while left < len(document):
        line_end = document.find(b"\n", left + WINDOW_BYTES - 1)
        right = len(document) if line_end < 0 else line_end + 1
        if SHORTEST_WINDOW_BYTES <= right - left <= LONGEST_WINDOW_BYTES:
            total += right - left
        left = right
    return total


def split_documents(
    *,
    digests: npt.NDArray[np.uint64],
    text_bytes: npt.NDArray[np.int64],
    scorable: npt.NDArray[np.int64],
    shared: npt.NDArray[np.float32],
) -> npt.NDArray[np.uint8]:
    """Return the split of every document, as an index into ``SPLITS``.

    Args:
        digests: of each document, all different.
        text_bytes: the size of each.
        scorable: the `scorable_bytes` of each.
        shared: the share of the shingles of each that stand in others.

    Raises:
        PrepareError: there is not enough text for three splits; it says what there is, and what would help.
    """
    can_score = (scorable > 0) & (2 * scorable >= text_bytes)
    measurable = can_score & (shared <= MAX_SHARED_SHARE)
    total_bytes, scored_bytes, held_out_bytes = (
        int(part.sum()) for part in (text_bytes, scorable[can_score], scorable[measurable])
    )
    wanted_bytes = min(max(int(held_out_bytes * HELD_OUT_SHARE), LEAST_HELD_OUT_BYTES), MOST_HELD_OUT_BYTES)
    candidates = np.flatnonzero(measurable)
    candidates = candidates[np.argsort(digests[candidates])]
    result = np.full(len(digests), SPLITS.index("train"), dtype=np.uint8)
    for split, chosen in _first_enough(candidates, scorable, wanted_bytes):
        result[chosen] = SPLITS.index(split)
    train_bytes = int(text_bytes[result == SPLITS.index("train")].sum())
    enough = all(int(scorable[result == SPLITS.index(split)].sum()) >= wanted_bytes for split in HELD_OUT_SPLITS)
    if not enough or train_bytes < LEAST_TRAIN_BYTES:
        if total_bytes < 2 * wanted_bytes + LEAST_TRAIN_BYTES or held_out_bytes >= 2 * wanted_bytes:
            remedy = "add text"
        elif scored_bytes < 2 * wanted_bytes:
            remedy = (
                f"scoring takes documents of {SHORTEST_WINDOW_BYTES} bytes and more, with lines of up to "
                f"{LONGEST_WINDOW_BYTES:,}; join short texts that belong together, and break long lines"
            )
        else:
            remedy = (
                f"at most {MAX_SHARED_SHARE:.0%} of the 13-word sequences of a document that is held out may stand in others; "
                "take out what repeats itself, such as templates and tables, or add other text"
            )
        raise PrepareError(
            f"the text cannot be split: val and test take {wanted_bytes:,} bytes each, train at least {LEAST_TRAIN_BYTES:,}. "
            f"Without duplicates there are {total_bytes:,} bytes in {len(digests):,} documents; scoring can take "
            f"{scored_bytes:,} of them, and {held_out_bytes:,} of those repeat little of the others: {remedy}"
        )
    return result


def _first_enough(
    candidates: npt.NDArray[np.int64], scorable: npt.NDArray[np.int64], wanted_bytes: int
) -> Iterator[tuple[Split, npt.NDArray[np.int64]]]:
    for split in HELD_OUT_SPLITS:
        reached = np.cumsum(scorable[candidates])
        stop = int(np.searchsorted(reached, wanted_bytes)) + 1
        yield split, candidates[:stop]
        candidates = candidates[stop:]
