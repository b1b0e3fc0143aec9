"""A tiny corpus that needs no network, and a cache of its own for every test."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus, prepare_corpus
from autoresearch_mcp.prepare.sources import Project, Split


class TinySource:
    """Documents of made-up words, always the same; each project has its own words, so nothing overlaps by accident."""

    def __init__(self, **documents: list[str]) -> None:
        splits: dict[str, Split] = {"alpha": "train", "beta": "train", "gamma": "val", "delta": "test"}
        self.projects = tuple(
            Project(name=name, version="1", sha256=f"{index:064x}", split=split)
            for index, (name, split) in enumerate(splits.items())
        )
        self.texts = {name: documents.get(name, made_up_documents(name)) for name in splits}
        self.fetches = 0

    def fetch(self, scratch: Path) -> None:
        self.fetches += 1
        (scratch / "fetched").write_text("yes")

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        assert (scratch / "fetched").exists()
        yield from self.texts[project.name]


def made_up_documents(seed: str, count: int = 6) -> list[str]:
    """Return ``count`` documents of a few hundred words, some of them not ASCII."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyzé", k=generator.randint(2, 9))) for _ in range(300)]
    return [
        "\n".join(" ".join(generator.choices(words, k=generator.randint(3, 12))) for _ in range(30)) + "\n"
        for _ in range(count)
    ]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty cache of its own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(root))
    return root


@pytest.fixture
def tiny_source() -> TinySource:
    return TinySource()


@pytest.fixture
def tiny_source_class() -> type[TinySource]:
    return TinySource


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of one real build, to copy from."""
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(root))
        prepare_corpus("tiny", source=TinySource())
    return root


@pytest.fixture
def tiny_corpus(built_once: Path, cache: Path) -> Corpus:
    """The corpus of a `TinySource`, in the test's own cache."""
    shutil.copytree(built_once, cache)
    return open_corpus("tiny")
