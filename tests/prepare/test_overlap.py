from __future__ import annotations

import random
import re

import numpy as np
import pytest
from autoresearch_mcp.prepare import overlap
from autoresearch_mcp.prepare.overlap import SHINGLE_TOKENS, overlap_share, shingle_hashes

TOKEN = re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^A-Za-z0-9_\x80-\xff \t\n\r\v\f]")


def naive_shingles(documents: list[bytes]) -> list[tuple[bytes, ...]]:
    found = []
    for document in documents:
        tokens = TOKEN.findall(document)
        found += [tuple(tokens[i : i + SHINGLE_TOKENS]) for i in range(len(tokens) - SHINGLE_TOKENS + 1)]
    return found


def hashes_of(documents: list[bytes]) -> np.ndarray:
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return shingle_hashes(np.frombuffer(b"".join(documents), dtype=np.uint8), offsets)


def random_documents(seed: int, count: int = 12) -> list[bytes]:
    generator = random.Random(seed)
    parts = ["a", "bb", "a_1", "é", "日本", "(", ")", ".", "==", " ", "\n", "  ", "\t", "the same long phrase of words " * 3]
    return ["".join(generator.choices(parts, k=generator.randint(0, 120))).encode() for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk_bytes", [1, 200, 1 << 20])
def test_hashes_are_equal_exactly_where_shingles_are_equal(seed: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overlap, "_CHUNK_BYTES", chunk_bytes)
    documents = random_documents(seed)
    naive, hashes = naive_shingles(documents), hashes_of(documents)
    assert len(hashes) == len(naive)
    assert len(set(zip(naive, hashes.tolist(), strict=True))) == len(set(naive)) == len(set(hashes.tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_the_share_is_that_of_a_plain_python_count(seed: int):
    part, reference = random_documents(seed), random_documents(seed + 100)
    known = set(naive_shingles(reference))
    naive = naive_shingles(part)
    reference_sorted = np.sort(hashes_of(reference))
    hashes = hashes_of(part)
    assert overlap_share(hashes, reference_sorted) == pytest.approx(sum(s in known for s in naive) / len(naive))
    distinct = set(naive)
    assert overlap_share(np.unique(hashes), reference_sorted) == pytest.approx(len(distinct & known) / len(distinct))


def test_layout_does_not_count_but_word_borders_do():
    words = [f"w{i}" for i in range(SHINGLE_TOKENS)]
    spaced = " ".join(words).encode()
    assert hashes_of([spaced]) == hashes_of(["\n\t ".join(words).encode()])
    assert hashes_of([spaced]) != hashes_of([b"w" + spaced])


def test_a_shingle_never_crosses_from_one_document_into_the_next():
    document = b"one two three four five six seven "
    assert len(hashes_of([document, document])) == 0
    assert len(hashes_of([document + document])) == 2


def test_nothing_overlaps_with_nothing():
    empty = np.empty(0, dtype=np.uint64)
    assert hashes_of([]).size == hashes_of([b""]).size == 0
    assert overlap_share(empty, hashes_of([b"a " * 20])) == 0.0
    assert overlap_share(hashes_of([b"a " * 20]), empty) == 0.0
