"""How much of one set of documents occurs in another: the share of 13-token shingles found there.

A token is a run of word bytes (letters, digits, underscore, and every byte of a non-ASCII character) or one other byte that is
not white space. A shingle is 13 consecutive tokens of one document; shingles never cross documents, and layout (spaces, line
breaks) does not count.

Shingles are compared by 64-bit hashes: among 10 million against 10 million, about 5e-6 are expected to match by accident.
Everything is vectorised over about a megabyte of text at a time; memory is 8 bytes a shingle plus some 60 MB (more
only when a single document is larger). Where that is too much, `sample_every` says how few shingles to look at: the same
ones in every text, those with the smallest hashes, so that what occurs in both texts is in both samples.
Not covered: near-duplicates with a change in every 13 tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .sources import document_ranges

SHINGLE_TOKENS = 13

EXACT_BYTES = 100_000_000  # of training text: up to here every shingle is looked at, some 250 MB of hashes

_CHUNK_BYTES = 1 << 20
_SPACE, _WORD, _OTHER = 0, 1, 2
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64 and every power of it too
_SHINGLE_BASE = np.uint64(0xC2B2AE3D27D4EB4F)


def _byte_kinds() -> npt.NDArray[np.uint8]:
    kinds = np.full(256, _OTHER, dtype=np.uint8)
    kinds[list(b" \t\n\r\v\f")] = _SPACE
    kinds[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] = _WORD
    kinds[128:] = _WORD
    return kinds


_KINDS = _byte_kinds()
# Random values per byte, because small integers times powers of one base collide far more often. Spaces weigh nothing:
# the space after a token then falls into that token's sum without changing it.
_VALUES = np.random.default_rng(13).integers(1, 1 << 63, size=256, dtype=np.uint64) * (_KINDS != _SPACE)


def sample_every(text_bytes: int) -> int:
    """Return k such that one shingle in k of ``text_bytes`` of text is few enough to compare; 1 is all of them."""
    return max(1, -(-text_bytes // EXACT_BYTES))


def shingle_hashes(text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], *, one_in: int = 1) -> npt.NDArray[np.uint64]:
    """Return one hash for every shingle of every document, in order of occurrence.

    Args:
        text: the documents one after another, uint8 ``[bytes]``; a memory map will do.
        offsets: where each document starts, and the end of the last, int64 ``[documents + 1]``.
        one_in: above 1, only hashes below 2^64 / ``one_in`` are returned, the same shingles whatever the text.

    Returns:
        uint64 ``[shingles]``; a document of n tokens has max(0, n - 12) of them.
    """
    ceiling = np.uint64((1 << 64) // one_in - 1 if one_in > 1 else (1 << 64) - 1)
    ranges = list(document_ranges(offsets, _CHUNK_BYTES))
    longest = max((int(offsets[stop] - offsets[first]) for first, stop in ranges), default=0)
    powers = _powers(_BASE, longest)
    inverse_powers = _powers(pow(_BASE, -1, 1 << 64), longest)
    parts = []
    for first, stop in ranges:
        start, end = int(offsets[first]), int(offsets[stop])
        document_starts = offsets[first:stop] - start
        chunk = np.asarray(text[start:end])
        hashes = _chunk_hashes(chunk, document_starts[document_starts < len(chunk)], powers, inverse_powers)
        parts.append(hashes if one_in == 1 else hashes[hashes <= ceiling])
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def distinct_sorted(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return every different hash once, ascending: what `np.unique` returns, which takes 70 times as long (numpy 2.4)."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if ordered.size else ordered


def overlap_share(hashes: npt.NDArray[np.uint64], reference_sorted: npt.NDArray[np.uint64]) -> float:
    """Return the share (0 to 1) of ``hashes`` that occur in ``reference_sorted``; 0 when there are none at all.

    As given, every occurrence counts; of `distinct_sorted` ones, every different shingle counts once.
    """
    if hashes.size == 0 or reference_sorted.size == 0:
        return 0.0
    wanted = np.sort(hashes)  # searching in order is several times faster: neighbours share cache lines
    places = np.minimum(np.searchsorted(reference_sorted, wanted), reference_sorted.size - 1)
    return float(np.mean(reference_sorted[places] == wanted))


def _powers(base: int, count: int) -> npt.NDArray[np.uint64]:
    """Return base^0, base^1, … base^(count-1), modulo 2^64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _chunk_hashes(
    text: npt.NDArray[np.uint8],
    document_starts: npt.NDArray[np.int64],
    powers: npt.NDArray[np.uint64],
    inverse_powers: npt.NDArray[np.uint64],
) -> npt.NDArray[np.uint64]:
    kinds = _KINDS[text]
    continues = np.zeros(len(text), dtype=bool)
    continues[1:] = (kinds[1:] == _WORD) & (kinds[:-1] == _WORD)
    continues[document_starts] = False
    starts = np.flatnonzero((kinds != _SPACE) & ~continues)
    if len(starts) < SHINGLE_TOKENS:
        return np.empty(0, dtype=np.uint64)
    # The sum over a token's bytes of value * base^position, moved to position 0 by the inverse power of its start.
    tokens = np.add.reduceat(_VALUES[text] * powers[: len(text)], starts) * inverse_powers[starts]
    tokens ^= tokens >> np.uint64(32)  # the low bits of products are weak: fold the high ones in
    count = len(tokens) - SHINGLE_TOKENS + 1
    shingles = np.zeros(count, dtype=np.uint64)
    for shift in range(SHINGLE_TOKENS):
        shingles *= _SHINGLE_BASE
        shingles += tokens[shift : shift + count]
    document = np.searchsorted(document_starts, starts, side="right")
    return shingles[document[:count] == document[SHINGLE_TOKENS - 1 :]]
