"""A lab that the official clients may use, and its server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from autoresearch_mcp.lab.scaffold import create_lab

from ..conftest import QUICK_TRAIN_PY
from ..serving import serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: str) -> Path:
    """A lab as `init` makes it, that nobody has opened yet."""
    folder = tmp_path_factory.mktemp("official") / "lab"
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "train.py").write_text(QUICK_TRAIN_PY)
    (folder / "autoresearch.toml").write_text(f'[corpus]\nname = "{tiny_corpus}"\n')
    create_lab(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of its server."""
    with serving(folder) as served:
        yield served.url
