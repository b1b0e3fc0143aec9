from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from autoresearch_mcp.lab.config import PROFILES
from autoresearch_mcp.prepare import splitting
from autoresearch_mcp.prepare.errors import PrepareError
from autoresearch_mcp.prepare.sources import SPLITS
from autoresearch_mcp.prepare.splitting import scorable_bytes, split_documents

from ..windows import draw_windows

SIZE = 5_000


def split(
    count: int, *, size: int = SIZE, scorable: list[int] | None = None, shared: list[float] | None = None, seed: int = 1
) -> np.ndarray:
    digests = np.random.default_rng(seed).permutation(10 * count)[:count].astype(np.uint64)
    return split_documents(
        digests=digests,
        text_bytes=np.full(count, size),
        scorable=np.full(count, size) if scorable is None else np.array(scorable),
        shared=np.zeros(count, dtype=np.float32) if shared is None else np.array(shared, dtype=np.float32),
    )


def sizes(result: np.ndarray, size: int = SIZE) -> dict[str, int]:
    return {name: int((result == index).sum()) * size for index, name in enumerate(SPLITS)}


def test_the_bounds_are_those_of_the_profiles():
    cpu, gpu = PROFILES["cpu"], PROFILES["gpu"]
    assert splitting.WINDOW_BYTES == cpu.window_bytes == min(profile.window_bytes for profile in PROFILES.values())
    assert cpu.validation_bytes < splitting.LEAST_HELD_OUT_BYTES
    assert gpu.validation_bytes < splitting.MOST_HELD_OUT_BYTES


def test_what_can_be_scored_is_what_the_referee_would_cut_into_windows():
    generator = np.random.default_rng(5)
    documents = []
    for _ in range(40):
        lines = [b"x" * int(length) for length in generator.integers(0, generator.choice([80, 3000, 9000]), size=30)]
        documents.append(b"\n".join(lines[: generator.integers(1, 30)]) + b"\n" * int(generator.integers(2)))
    text = np.frombuffer(b"".join(documents), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, documents)])
    windows = draw_windows(text, offsets, secret=b"", total_bytes=len(text), window_bytes=splitting.WINDOW_BYTES)
    assert 0 < len(windows) < len(text) / splitting.WINDOW_BYTES
    for document, (start, end) in zip(documents, pairwise(offsets.tolist()), strict=True):
        assert scorable_bytes(document) == sum(b - a for a, b in windows if start <= a < end)
    assert scorable_bytes(b"") == scorable_bytes(b"x" * 511) == scorable_bytes(b"x" * 4097) == 0


def test_held_out_is_one_in_twenty_within_bounds():
    assert sizes(split(200)) == {"train": 400_000, "val": 300_000, "test": 300_000}
    assert sizes(split(2000)) == {"train": 9_000_000, "val": 500_000, "test": 500_000}
    size = 64_000
    assert sizes(split(25_000, size=size), size) == {"train": 1_472_000_000, "val": 64_000_000, "test": 64_000_000}


def test_the_split_follows_the_digests_and_not_the_order():
    digests = np.random.default_rng(3).permutation(1000).astype(np.uint64)
    fixed = {"text_bytes": np.full(1000, SIZE), "scorable": np.full(1000, SIZE), "shared": np.zeros(1000, dtype=np.float32)}
    result = split_documents(digests=digests, **fixed)
    assert split_documents(digests=digests[::-1], **fixed).tolist() == result[::-1].tolist()
    assert set(digests[result == SPLITS.index("val")].tolist()) == set(range(60))
    assert set(digests[result == SPLITS.index("test")].tolist()) == set(range(60, 120))


def test_held_out_is_only_what_can_be_scored_and_does_not_repeat_others():
    scorable = [SIZE if index % 3 else SIZE // 2 - 1 for index in range(900)]
    shared = [0.21 if index % 5 == 0 else 0.2 * (index % 2) for index in range(900)]
    result = split(900, scorable=scorable, shared=shared)
    held_out = np.flatnonzero(result != SPLITS.index("train"))
    assert len(held_out) >= 120
    assert not [index for index in held_out.tolist() if index % 3 == 0 or index % 5 == 0]


def test_a_little_text_that_can_be_scored_is_enough_beside_much_that_cannot():
    scorable = [SIZE if index % 50 == 0 else 0 for index in range(10_000)]
    assert sizes(split(10_000, scorable=scorable)) == {"train": 49_400_000, "val": 300_000, "test": 300_000}


@pytest.mark.parametrize(
    ("count", "options", "numbers", "remedy"),
    [
        (0, {}, "0 bytes in 0 documents", "add text"),
        (1, {"size": 3_000_000}, "3,000,000 of them, and 3,000,000 of those", "add text"),
        (199, {}, "995,000 bytes in 199 documents", "add text"),
        (400, {"scorable": [0] * 300 + [SIZE] * 100}, "scoring can take 500,000 of them", "join short texts"),
        (400, {"shared": [0.5] * 300 + [0.1] * 100}, "2,000,000 of them, and 500,000 of those", "take out what repeats itself"),
    ],
)
def test_too_little_text_is_refused_with_the_numbers_and_what_would_help(count: int, options: dict, numbers: str, remedy: str):
    with pytest.raises(PrepareError, match=rf"val and test take 300,000 bytes each.*{numbers}.*: .*{remedy}"):
        split(count, **options)
