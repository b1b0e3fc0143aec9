from __future__ import annotations

import random
import re

import numpy as np
import pytest
from autoresearch_mcp.prepare import overlap
from autoresearch_mcp.prepare.overlap import SHINGLE_TOKENS, distinct_sorted, overlap_share, sample_every, shingle_hashes

TOKEN = re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^A-Za-z0-9_\x80-\xff \t\n\r\v\f]")


def naive_shingles(documents: list[bytes]) -> list[tuple[bytes, ...]]:
    found = []
    for document in documents:
        tokens = TOKEN.findall(document)
        found += [tuple(tokens[i : i + SHINGLE_TOKENS]) for i in range(len(tokens) - SHINGLE_TOKENS + 1)]
    return found


def hashes_of(documents: list[bytes], one_in: int = 1) -> np.ndarray:
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return shingle_hashes(np.frombuffer(b"".join(documents), dtype=np.uint8), offsets, one_in=one_in)


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
    assert overlap_share(distinct_sorted(hashes), reference_sorted) == pytest.approx(len(distinct & known) / len(distinct))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_distinct_hashes_are_what_numpy_finds(count: int):
    hashes = np.random.default_rng(count).integers(0, 500, count, dtype=np.uint64)
    assert np.array_equal(distinct_sorted(hashes), np.unique(hashes))


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


def test_a_sample_is_the_same_shingles_whatever_the_text_is_cut_from():
    generator = random.Random(7)
    words = [f"word{index}" for index in range(500)]
    documents = [" ".join(generator.choices(words, k=2000)).encode() for _ in range(20)]
    every = hashes_of(documents)
    sample = hashes_of(documents, one_in=8)
    assert set(sample.tolist()) == {value for value in every.tolist() if value < 2**64 // 8}
    assert len(sample) == pytest.approx(len(every) / 8, rel=0.1)
    assert np.concatenate([hashes_of([document], one_in=8) for document in documents]).tolist() == sample.tolist()


@pytest.mark.parametrize("one_in", [4, 16])
def test_the_share_of_a_sample_is_close_to_the_share_of_all(one_in: int):
    generator = random.Random(3)
    words = [f"word{index}" for index in range(500)]
    shared, train, held_out = ([" ".join(generator.choices(words, k=300)).encode() for _ in range(n)] for n in (60, 200, 140))
    exact, estimate = (
        overlap_share(np.unique(hashes_of([*held_out, *shared], one_in=k)), np.sort(hashes_of([*train, *shared], one_in=k)))
        for k in (1, one_in)
    )
    assert exact == pytest.approx(0.3, abs=0.001)
    assert estimate == pytest.approx(exact, abs=0.02)


def test_small_corpora_are_measured_exactly_and_large_ones_on_a_bounded_sample():
    assert [sample_every(size) for size in (0, 45_000_000, 100_000_000, 100_000_001, 2_500_000_000)] == [1, 1, 1, 2, 25]
