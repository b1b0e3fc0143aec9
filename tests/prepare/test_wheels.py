from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from autoresearch_mcp.prepare import wheels as wheels_module
from autoresearch_mcp.prepare.errors import DownloadError
from autoresearch_mcp.prepare.sources import Project
from autoresearch_mcp.prepare.wheels import WHEELS, WheelsSource, download_wheels, read_documents

LONG = "a line of text that makes the document long enough\r\n" * 6


def make_wheel(folder: Path, files: dict[str, str | bytes]) -> Path:
    path = folder / "tiny_project-1.0-py3-none-any.whl"
    metadata = {
        "tiny_project-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-project\nVersion: 1.0\n",
        "tiny_project-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_project-1.0.dist-info/notes.txt": LONG,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, **metadata}.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees no index and no configuration, only the wheels in the returned folder."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def tiny_project(wheel: Path) -> Project:
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Project(name="tiny-project", version="1.0", sha256=sha256, split="train")


def test_nine_wheels_are_pinned_by_hash_and_every_split_has_whole_projects():
    assert len({wheel.name for wheel in WHEELS}) == 9
    assert all(len(wheel.sha256) == 64 for wheel in WHEELS)
    assert {wheel.split for wheel in WHEELS} == {"train", "val", "test"}


def test_other_pins_are_another_source(monkeypatch: pytest.MonkeyPatch):
    key = WheelsSource().key
    assert key.startswith("wheels:")
    monkeypatch.setattr(wheels_module, "WHEELS", WHEELS[1:])
    assert WheelsSource().key not in ("", key)


def test_documents_are_the_text_files_in_order_with_their_bytes_unchanged(tmp_path: Path):
    wheel = make_wheel(
        tmp_path,
        {
            "pkg/z.py": LONG,
            "pkg/a.rst": LONG + "é",
            "pkg/short.py": "x" * 200,
            "pkg/just_long_enough.md": "x" * 201,
            "pkg/data.json": LONG,
            "pkg/locale/de/words.txt": LONG,
            "pkg/locales/en.yml": LONG,
            "pkg/latin1.txt": b"\xe9" * 300,
        },
    )
    documents = dict(read_documents(wheel))
    assert list(documents) == ["pkg/a.rst", "pkg/just_long_enough.md", "pkg/z.py"]
    assert documents["pkg/z.py"] == LONG
    assert documents["pkg/a.rst"].encode() == (LONG + "é").encode()


def test_pip_fetches_a_pinned_wheel_that_is_then_read(offline: Path, tmp_path: Path):
    project = tiny_project(make_wheel(offline, {"pkg/a.py": LONG}))
    destination = tmp_path / "fetched"
    destination.mkdir()
    download_wheels(destination, [project])
    assert list(WheelsSource().documents(project, destination)) == [LONG]


def test_a_wheel_with_another_hash_is_refused_and_the_error_says_what_to_repeat(offline: Path, tmp_path: Path):
    make_wheel(offline, {"pkg/a.py": LONG})
    project = Project(name="tiny-project", version="1.0", sha256="0" * 64, split="train")
    with pytest.raises(DownloadError) as caught:
        download_wheels(tmp_path, [project])
    message = str(caught.value)
    assert "-m pip download" in message
    assert "tiny-project==1.0" in message
    assert "package index" in message
    assert "`autoresearch prepare`" in message
    assert "HASHES" in message
