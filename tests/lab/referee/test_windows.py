"""A split of which nothing can be scored is told with the next step, as early as it can be known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from autoresearch_mcp.lab.devices import FakeGpuDriver, Gpu
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.executor import RunSpec
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.scored_rows import ScoredRows
from autoresearch_mcp.lab.referee.windows import NoWindowsError, require_windows
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.corpus import open_corpus
from autoresearch_mcp.prepare.errors import PrepareError
from autoresearch_mcp.prepare.sources import FetchReport, Project

from ...windows import draw_windows, encode_rows

WINDOW_BYTES = 2048


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"A short line.\n" * 10, id="too short"),
        pytest.param(b"x" * 10_000, id="one long line"),
    ],
)
def test_text_without_a_window_raises_with_the_sizes_and_the_next_step(document: bytes) -> None:
    text = np.frombuffer(document * 3, dtype=np.uint8)
    offsets = np.arange(4) * len(document)
    with pytest.raises(
        NoWindowsError, match=r"the longest has [\d,]+ bytes, and a window has 512 to 4,096.*autoresearch\.toml"
    ):
        draw_windows(text, offsets, secret=b"", total_bytes=100_000, window_bytes=WINDOW_BYTES)


def test_short_documents_are_told_from_their_sizes_alone() -> None:
    require_windows(np.array([0, 100, 612]), window_bytes=WINDOW_BYTES)
    for offsets in ([0, 100, 611], [0]):
        with pytest.raises(NoWindowsError):
            require_windows(np.array(offsets), window_bytes=WINDOW_BYTES)


def test_a_little_text_is_scored_although_less_is_asked_for_than_a_window() -> None:
    text = np.frombuffer(b"A short line.\n" * 200, dtype=np.uint8)
    windows = draw_windows(text, np.array([0, len(text)]), secret=b"", total_bytes=10, window_bytes=WINDOW_BYTES)
    assert len(windows) == 1


def test_each_split_has_windows_of_its_own_although_the_secret_is_one() -> None:
    text = np.frombuffer(b"A short line.\n" * 20_000, dtype=np.uint8)
    sizes = {"secret": b"secret", "total_bytes": 20_000, "window_bytes": WINDOW_BYTES}
    val, test = (draw_windows(text, np.array([0, len(text)]), **sizes, split=split) for split in ("val", "test"))
    assert val == draw_windows(text, np.array([0, len(text)]), **sizes)
    assert len(val) == len(test)
    assert val != test
    with pytest.raises(NoWindowsError, match="no document of the test split"):
        draw_windows(text[:100], np.array([0, 100]), **sizes, split="test")


@pytest.mark.parametrize(("vocab_size", "split"), [(257, "val"), (2048, "val"), (257, "test")])
def test_rows_made_bit_by_bit_are_those_made_at_once(
    tiny_corpus: str, tmp_path: Path, vocab_size: int, split: Literal["val", "test"]
) -> None:
    corpus = open_corpus(tiny_corpus)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    sizes = {"context_length": 64, "validation_bytes": 20_000, "window_bytes": 512}
    made = ScoredRows(spec_of(validation_secret=str(secret), split=split, **sizes), corpus, vocab_size)
    looks = 1
    while not made.advance(0.0 if looks == 1 else 1e-6):
        looks += 1
    rows = made.finish()
    assert looks > 2
    text, offsets = corpus.text(split), corpus.offsets(split)
    windows = draw_windows(text, offsets, secret=b"secret", total_bytes=20_000, window_bytes=512, split=split)
    at_once = encode_rows(
        text,
        windows,
        corpus.tokenizer(vocab_size),
        context_length=64,
        padding=np.fromfile(corpus.token_store(vocab_size), np.uint16),
        rng=np.random.default_rng(0),
    )
    mask = rows.mask()
    assert (rows.scored == at_once.scored).all()
    assert (rows.window == at_once.window).all()
    assert (rows.tokens[:, 0] == made.tokenizer.bos_token_id).all()
    assert (rows.tokens[:, 1:][mask] == at_once.tokens[:, 1:][mask]).all()
    assert rows.scored_bytes == at_once.scored_bytes == sum(end - start for start, end in windows)


def test_a_corpus_of_documents_too_short_for_the_profile_starts_no_session(
    make_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    prepare_corpus("tiny", source=Stories(held_out_bytes=600))
    versions = {"torch": "2.13.0+cu130", "numpy": "2", "tiktoken": "0.14", "cloudpickle": "3"}
    said = json.dumps({"python": [3, 11], "versions": versions, "cuda": True, "packages": str(tmp_path)})
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{said}'\n")
    python.chmod(0o755)
    root = make_lab(extra=f'[trainer]\npython = "{python}"\n').root
    (root / "autoresearch.toml").write_text('profile = "gpu"\n' + (root / "autoresearch.toml").read_text())
    lab = Lab.open(root, gpu_driver=FakeGpuDriver(found=(Gpu(index=0, uuid="GPU-1", name="NVIDIA L4", memory_mb=23_034),)))
    with pytest.raises(NotReadyError, match=r"The corpus tiny does not fit profile gpu.*\[corpus\] name"):
        lab.start_session(None, "tester")
    assert lab.ledger.sessions() == []
    lab.close()


def test_a_corpus_of_which_no_profile_can_score_anything_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PrepareError, match=r"longest document of the split val has 2\d\d bytes.*512 bytes and more: join"):
        prepare_corpus("stories", source=Stories(held_out_bytes=250))
    assert not (tmp_path / "cache" / "stories").exists()


class Stories:
    """A corpus whose held-out documents are all of one size."""

    key = "stories:1"
    max_overlap = None
    projects = tuple(
        Project(name=split, version="1", sha256=f"{index:064x}", split=split)
        for index, split in enumerate(("train", "val", "test"))
    )

    def __init__(self, *, held_out_bytes: int) -> None:
        self.held_out_bytes = held_out_bytes

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        return self.projects

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        words = np.random.default_rng(len(project.name) + ord(project.name[0]))
        size = 4000 if project.split == "train" else self.held_out_bytes
        for _ in range(60):
            lines = (" ".join(f"{word:x}" for word in words.integers(0, 1 << 20, 8)) for _ in range(size // 40))
            yield "\n".join(lines)[: size - 1] + "\n"


def spec_of(**fields: Any) -> RunSpec:
    """A run of which only what is scored matters."""
    values: dict[str, Any] = {
        "run_id": "e0001.1",
        "candidate": b"",
        "harness": "",
        "corpus": "tiny",
        "profile": "cpu",
        "device": "cpu",
        "cores": 1,
        "seed": 1,
        "clock": "core_seconds",
        "budget_seconds": 1.0,
        "startup_seconds": 1.0,
        "scoring_seconds": 1.0,
        "memory_mb": 1000,
        "processes": 10,
        "disk_mb": 10,
        "log_kb": 10,
        "audits": 40,
    }
    return RunSpec(**{**values, **fields})
