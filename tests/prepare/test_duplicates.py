from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.prepare import duplicates
from autoresearch_mcp.prepare.duplicates import NEAR_DUPLICATE_SHARE, Duplicates, document_digest, find_duplicates
from autoresearch_mcp.prepare.overlap import SHINGLE_TOKENS

TOKEN = re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^A-Za-z0-9_\x80-\xff \t\n\r\v\f]")


@pytest.fixture
def find(tmp_path: Path):
    def find_in(documents: list[str]) -> Duplicates:
        path = tmp_path / "documents"
        path.write_bytes("".join(documents).encode())
        offsets = np.cumsum([0, *(len(document.encode()) for document in documents)]).astype(np.int64)
        return find_duplicates(path, offsets, np.array([document_digest(d) for d in documents], dtype=np.uint64))

    return find_in


def words(seed: object, count: int = 400) -> list[str]:
    generator = random.Random(str(seed))
    return ["".join(generator.choices("abcdefghijklmnopqrstuvwxyzé", k=generator.randint(2, 9))) for _ in range(count)]


def document(seed: object, count: int = 400) -> str:
    return " ".join(words(seed, count))


def edited(text: str, every: int) -> str:
    """Return the text with another word in every ``every``."""
    return " ".join(f"{word}x" if index % every == every // 2 else word for index, word in enumerate(text.split(" ")))


def shingles(text: str) -> set[tuple[bytes, ...]]:
    tokens = TOKEN.findall(text.encode())
    return {tuple(tokens[i : i + SHINGLE_TOKENS]) for i in range(len(tokens) - SHINGLE_TOKENS + 1)}


def test_the_same_text_again_is_a_duplicate_whatever_its_layout(find):
    first = document(1)
    found = find([first, document(2), first.replace(" ", "\r\n\t"), first + "\n", "Short.", "short.", " Short.\n"])
    assert found.exact.tolist() == [False, False, True, True, False, False, True]
    assert not found.near.any()
    assert found.kept.tolist() == [True, True, False, False, True, True, False]


@pytest.mark.parametrize("every", [200, 50, 30])
def test_a_copy_with_small_edits_is_a_near_duplicate_of_what_came_first(find, every: int):
    documents = [document(seed) for seed in range(5)]
    copies = [edited(text, every) for text in documents]
    found = find([*documents, *copies])
    assert found.near.tolist() == [False] * 5 + [True] * 5
    assert find([*copies, *documents]).near.tolist() == [False] * 5 + [True] * 5


def test_an_excerpt_and_a_text_put_together_from_others_are_near_duplicates(find):
    one, two, three = (document(seed) for seed in range(3))
    half = " ".join(one.split()[:200])
    parts = " ".join([*two.split()[100:220], *three.split()[300:], *words("new", 100)])
    assert find([one, two, three, half, parts]).near.tolist() == [False, False, False, True, True]


def test_what_shares_less_than_half_is_kept_and_its_share_is_measured(find):
    licence, body, other = document("licence", 100), document("a", 900), document("b", 900)
    small = document("small", 200)
    containing = f"{document('c', 900)} {small}"
    found = find([f"{licence} {body}", f"{licence} {other}", small, containing, document("alone")])
    assert found.kept.all()
    assert found.shared.dtype == np.float32
    assert found.shared.tolist() == pytest.approx([88 / 988, 88 / 988, 1.0, 188 / 1088, 0.0])


def test_only_kept_documents_count_as_seen(find):
    first = document("first")
    dropped = f"{first} {document('rest', 250)}"  # more than half of it is known
    also_in_dropped = f"{document('rest', 250)} {document('own', 200)}"  # more than half of it is known from that alone
    found = find([first, dropped, also_in_dropped])
    assert found.near.tolist() == [False, True, False]
    assert found.shared.tolist() == [0.0, 0.0, 0.0]


def test_short_documents_differ_when_a_word_does(find):
    tokens = words("short", SHINGLE_TOKENS)
    twelve = [" ".join([*tokens[:11], last]) for last in ("a", "b")]
    thirteen = [" ".join([*tokens[:12], last]) for last in ("a", "b", "a ")]
    found = find([*twelve, *thirteen])
    assert found.exact.tolist() == [False] * 4 + [True]
    assert not found.near.any()


def test_no_documents_and_documents_without_shingles_are_no_problem(find):
    assert find([]).kept.tolist() == []
    found = find(["a", "b", "a\n", "\0" * 20])
    assert found.kept.tolist() == [True, True, False, True]
    assert found.shared.tolist() == [0.0] * 4


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_the_answer_is_that_of_a_plain_python_count(find, monkeypatch: pytest.MonkeyPatch, seed: int, chunk_bytes: int):
    monkeypatch.setattr(duplicates, "_CHUNK_BYTES", chunk_bytes)
    generator = random.Random(seed)
    passages = [document((seed, index), generator.randint(5, 60)) for index in range(12)]
    texts = ["\n".join(generator.choices(passages, k=generator.randint(0, 5))) for _ in range(40)]
    found = find(texts)
    seen_texts, seen, kept = set(), set(), {}
    for index, text in enumerate(texts):
        own = shingles(text)
        exact = " ".join(text.split()) in seen_texts
        near = not exact and bool(own) and len(own & seen) >= NEAR_DUPLICATE_SHARE * len(own)
        assert (found.exact[index], found.near[index]) == (exact, near)
        seen_texts.add(" ".join(text.split()))
        if not exact and not near:
            seen |= own
            kept[index] = own
    for index, own in kept.items():
        others = set().union(*(theirs for other, theirs in kept.items() if other != index))
        assert found.shared[index] == pytest.approx(len(own & others) / max(len(own), 1))
    assert 2 < len(kept) < len(texts)


def test_beyond_the_exact_size_a_sample_of_the_shingles_finds_the_same_copies(find, monkeypatch: pytest.MonkeyPatch):
    originals = [document(seed) for seed in range(60)]
    half_copies = [f"{' '.join(text.split()[:60])} {document(('new', i), 340)}" for i, text in enumerate(originals)]
    texts = [*originals, *(edited(text, 60) for text in originals), *half_copies]
    exactly = find(texts)
    monkeypatch.setattr(duplicates, "EXACT_BYTES", sum(map(len, texts)) // 7)
    sampled = find(texts)
    assert exactly.kept.tolist() == sampled.kept.tolist() == [True] * 60 + [False] * 60 + [True] * 60
    assert sampled.shared[120:].mean() == pytest.approx(exactly.shared[120:].mean(), abs=0.03)


def test_progress_ends_at_one(tmp_path: Path):
    path = tmp_path / "documents"
    path.write_bytes(b"ab")
    fractions: list[float] = []
    digests = np.array([1, 2], dtype=np.uint64)
    find_duplicates(path, np.array([0, 1, 2], dtype=np.int64), digests, report=fractions.append)
    assert fractions == [1.0]
