"""Files of one dataset on the Hugging Face hub, fetched once into a cache beside the corpora.

    <folder>/<file>            whole, with the SHA-256 that the hub states for it
             <file>.sha256     that SHA-256, written after the check
             <file>.partial    what has arrived so far; the next call continues it
             .lock

Guarantees: a file that is returned has the SHA-256 the hub states for that revision, read from disk at every call; a transfer
that breaks continues where it stopped, also in a later process; two processes do not fetch the same file; a file that is
there needs no network. `huggingface_hub` brings endpoint, token, proxy and the errors of the hub; it checks sizes only and
keeps nothing of a broken transfer, so the rest is done here, over plain HTTP (its Xet transfers cannot be continued).
Not covered: several files at a time, and an endpoint that lies about its own hashes.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DiskFullError, DownloadError, LibraryMissingError
from .files import exclusive_lock, flush_directory, flush_to_disk, sha256_file, write_atomically
from .sources import FetchReport

DEFAULT_ENDPOINT = "https://huggingface.co"
# Room for the text and its tokens, for each byte of compressed Parquet: about 2.5 and 1.1 bytes, and some to spare.
SPACE_FACTOR = 4

_FAILURES_IN_A_ROW = 6  # without a new byte, before giving up: half a minute of waiting
_WRONG_BYTES = 3  # whole files with another SHA-256, before giving up
_MAX_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file as the hub describes it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """The files of ``repo`` at ``revision`` (a whole commit hash), kept in ``folder``."""

    corpus_name: str  # for the command that error messages name
    repo: str
    revision: str
    folder: Path
    back_off_seconds: float = 1.0

    def fetch(self, names: Sequence[str], report: FetchReport) -> dict[str, str]:
        """Return the SHA-256 of each of ``names``, fetching those that are not in the folder.

        Raises:
            LibraryMissingError: huggingface_hub is not installed.
            DownloadError: the hub is out of reach, does not have a file, wants a login, or sends other bytes than it states.
            DiskFullError: there is no room for the files and the corpus made from them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / ".lock"
        with exclusive_lock(lock, on_wait=lambda: report(0.0, "another process is fetching from the hub: waiting")):
            found: dict[str, str | None] = {}
            for name in names:
                if self.path(name).exists():
                    report(0.0, f"checking {name}")
                found[name] = self._kept(name)
            missing = [name for name, sha256 in found.items() if sha256 is None]
            if missing:
                hub = _Hub(self, report)
                files = [hub.describe(name) for name in missing]
                self._check_space(files, names)
                total = sum(file.size_bytes for file in files)
                before = 0
                for file in files:
                    hub.download(file, before, total)
                    before += file.size_bytes
                found |= {file.name: file.sha256 for file in files}
        report(1.0)
        return {name: sha256 for name, sha256 in found.items() if sha256 is not None}

    def path(self, name: str) -> Path:
        """Where a fetched file lies."""
        return self.folder / name

    def sidecar(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"

    def partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial"

    @property
    def again(self) -> str:
        """What to do after the cause of an error is gone."""
        return f"run `autoresearch prepare --corpus {self.corpus_name}` again (what has arrived is kept)"

    def _kept(self, name: str) -> str | None:
        """Return the SHA-256 of a file that is here and whole; what is not, is fetched again."""
        path, sidecar = self.path(name), self.sidecar(name)
        if path.is_file() and sidecar.is_file():
            stated = sidecar.read_text(encoding="ascii", errors="replace").strip()
            if sha256_file(path) == stated:
                return stated
            path.unlink()
        elif path.is_file():
            path.replace(self.partial(name))  # a process ended before the check: its bytes may be all right
        sidecar.unlink(missing_ok=True)
        return None

    def _check_space(self, files: Sequence[RemoteFile], names: Sequence[str]) -> None:
        here = sum(self.path(name).stat().st_size for name in names if self.path(name).exists())
        arrived = sum(self.partial(file.name).stat().st_size for file in files if self.partial(file.name).exists())
        download = sum(file.size_bytes for file in files)
        needed = download - arrived + SPACE_FACTOR * (here + download)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise DiskFullError(
                f"the corpus {self.corpus_name!r} needs about {needed / 1e9:.1f} GB on the disk of {self.folder} "
                f"({len(files)} files to fetch, {download / 1e9:.2f} GB, and the text made from them), and {free / 1e9:.1f} GB "
                "are free: free some space, take fewer `--shards`, or set AUTORESEARCH_CACHE to a folder on a larger disk"
            )


def require_libraries(corpus_name: str) -> None:
    """Import what a corpus from the hub needs; raises `LibraryMissingError`, which names the command that installs it."""
    # Telemetry looks up which agent this is, also where HF_ENDPOINT names another hub: off unless the human turns it on.
    # The library reads the variable when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub.file_download  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise LibraryMissingError(
            f"the corpus {corpus_name!r} comes from the Hugging Face hub, which takes two more libraries ({error}): run "
            "`pip install huggingface_hub pyarrow` with the Python that runs "
            f"autoresearch, then `autoresearch prepare --corpus {corpus_name}` again"
        ) from error


class _Hub:
    """The network side: one request after another, each repeated while that may help."""

    def __init__(self, files: HubFiles, report: FetchReport) -> None:
        require_libraries(files.corpus_name)
        from huggingface_hub.utils import build_hf_headers, disable_progress_bars, logging

        disable_progress_bars()
        logging.set_verbosity_error()
        self._files = files
        self._report = report
        self._fraction = 0.0
        self._endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._headers = build_hf_headers()  # with HF_TOKEN, or the token of `hf auth login`

    def describe(self, name: str) -> RemoteFile:
        """Ask for size and SHA-256 of a file."""
        from huggingface_hub import get_hf_file_metadata

        failures = 0
        while True:
            self._report(0.0, f"asking for {name}")
            try:
                stated = get_hf_file_metadata(self._url(name), headers=self._headers, endpoint=self._endpoint)
            except _network_errors() as error:
                failures += 1
                self._wait_or_give_up(error, name, failures)
                continue
            sha256 = (stated.etag or "").lower()
            if stated.commit_hash != self._files.revision or len(sha256) != 64 or stated.size is None:
                raise DownloadError(
                    f"{self._endpoint} does not answer as the Hugging Face hub does: for {name} it states commit "
                    f"{stated.commit_hash}, etag {stated.etag} and {stated.size} bytes, where commit {self._files.revision}, a "
                    f"SHA-256 and a size belong. Correct or unset HF_ENDPOINT, then {self._files.again}"
                )
            return RemoteFile(name=name, size_bytes=stated.size, sha256=sha256)

    def download(self, file: RemoteFile, before_bytes: int, total_bytes: int) -> None:
        """Bring one file, which is ``before_bytes`` into the ``total_bytes`` of this call."""
        partial = self._files.partial(file.name)
        partial.touch()
        failures, wrong = 0, 0
        while True:
            start = partial.stat().st_size
            try:
                self._transfer(file, partial, before_bytes, total_bytes)
            except _network_errors() as error:
                failures = 1 if partial.stat().st_size > start else failures + 1
                if getattr(getattr(error, "response", None), "status_code", None) == 416:
                    partial.write_bytes(b"")  # there is more here than there
                self._wait_or_give_up(error, file.name, failures)
                continue
            found = sha256_file(partial)
            if found == file.sha256:
                break
            partial.write_bytes(b"")
            wrong += 1
            if wrong == _WRONG_BYTES:
                raise DownloadError(
                    f"{file.name} arrived {wrong} times with other bytes than the hub states (last SHA-256 {found}, stated "
                    f"{file.sha256}): something between here and {self._endpoint} changes them. Try another network or "
                    f"HF_ENDPOINT, then {self._files.again}"
                )
        partial.replace(self._files.path(file.name))
        flush_directory(self._files.folder)
        write_atomically(self._files.sidecar(file.name), f"{file.sha256}\n".encode())

    def _transfer(self, file: RemoteFile, partial: Path, before_bytes: int, total_bytes: int) -> None:
        from huggingface_hub.file_download import http_get

        def arrived(position: int) -> None:
            done = before_bytes + position
            self._fraction = done / max(total_bytes, 1)
            self._report(self._fraction, f"{done / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, {file.name}")

        with _Counted(partial, arrived) as target:
            start = target.seek(0, os.SEEK_END)
            if start > file.size_bytes:
                start = target.seek(0)
                target.truncate()
            arrived(start)
            http_get(self._url(file.name), target, resume_size=start, headers=self._headers, expected_size=file.size_bytes)
            flush_to_disk(target)

    def _url(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self._files.repo, name, repo_type="dataset", revision=self._files.revision, endpoint=self._endpoint)

    def _wait_or_give_up(self, error: Exception, name: str, failures: int) -> None:
        """Return after a while when another try may help; raise what the human should read when not."""
        if isinstance(error, OSError) and error.errno is not None:
            raise error  # the disk, not the network
        final = self._explain(error, name)
        if final is not None:
            raise DownloadError(final) from error
        if failures >= _FAILURES_IN_A_ROW:
            raise DownloadError(
                f"{name} of {self._files.repo} could not be fetched from {self._endpoint} in {failures} tries: "
                f"{_first_line(error)}. Check the network and the proxy (HTTPS_PROXY), or set HF_ENDPOINT to a mirror, then "
                f"{self._files.again}. {self._by_hand()}"
            ) from error
        seconds = min(self._files.back_off_seconds * 2 ** (failures - 1), _MAX_WAIT_SECONDS)
        self._report(self._fraction, f"{_first_line(error)}: trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def _explain(self, error: Exception, name: str) -> str | None:
        """Return the text for an error that another try cannot mend, else None."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        files = self._files
        if isinstance(error, OfflineModeIsEnabled):
            return f"HF_HUB_OFFLINE is set, and {name} is not here yet: unset it, then {files.again}. {self._by_hand()}"
        if not isinstance(error, HfHubHTTPError):
            return None
        status = error.response.status_code
        if status in (401, 403):
            token = "a token is set and was not enough" if "authorization" in self._headers else "no token is set"
            return (
                f"the hub refuses {files.repo} (status {status}; {token}): it is gated, private or does not exist. Accept its "
                f"terms at {self._endpoint}/datasets/{files.repo} and set HF_TOKEN to a read token of that account, then "
                f"{files.again}"
            )
        if status == 404:
            return (
                f"{self._endpoint} has no {name} in {files.repo} at revision {files.revision[:12]} (status 404): if "
                f"HF_ENDPOINT names a mirror, unset it, then {files.again}. {self._by_hand()}"
            )
        if 400 <= status < 500 and status not in (408, 416, 425, 429):
            return f"the hub answers {status} for {name} of {files.repo}: {_first_line(error)}. {self._by_hand()}"
        return None

    def _by_hand(self) -> str:
        return "Or bring the Parquet files by another way and run `autoresearch prepare --corpus NAME --from DIR`"


class _Counted(io.BufferedRandom):
    """A file that tells how long it has become after each write."""

    def __init__(self, path: Path, arrived: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "r+"))
        self._arrived = arrived

    def write(self, buffer: bytes, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        written = super().write(buffer)
        self._arrived(self.tell())
        return written


def _network_errors() -> tuple[type[Exception], ...]:
    """What requests raise; `OSError` is how the library reports a wrong size, and what a full disk raises."""
    import httpx

    return (httpx.HTTPError, OSError)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
