"""A tiny corpus that needs no network, a hub on this machine, and a cache of its own for every test."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus
from autoresearch_mcp.prepare.sources import FetchReport, Project, Split

os.environ["HF_HUB_DISABLE_XET"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the library is imported


class TinySource:
    """Documents of made-up words, always the same; each project has its own words, so nothing overlaps by accident."""

    max_overlap: float | None = 0.01

    def __init__(self, **documents: list[str]) -> None:
        splits: dict[str, Split] = {"alpha": "train", "beta": "train", "gamma": "val", "delta": "test"}
        self.projects = tuple(
            Project(name=name, version="1", sha256=f"{index:064x}", split=split)
            for index, (name, split) in enumerate(splits.items())
        )
        self.texts = {name: documents.get(name, made_up_documents(name)) for name in splits}
        self.fetches = 0

    @property
    def key(self) -> str:
        return "tiny:" + ",".join(project.name for project in self.projects)

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        self.fetches += 1
        (scratch / "fetched").write_text("yes")
        report(0.5, "half of it")
        return self.projects

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


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are part of the tests."""


class HubServer:
    """A hub on 127.0.0.1 as far as `huggingface_hub` needs one, and the content network that it redirects to.

    ``faults[name]`` is what happens to the next requests for the content of a file: ``drop`` ends the connection in the
    middle, ``truncate`` ends the answer early and says so, ``corrupt`` changes a byte, ``whole`` ignores the range, and a
    number is a status. ``hub_faults[name]`` are statuses and error codes of the hub itself.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str | int]] = {}
        self.hub_faults: dict[str, list[tuple[int, str]]] = {}
        self.commit: str | None = None  # what it says instead of the commit that was asked for
        self.requests: list[tuple[str, str, str | None, str | None]] = []  # place, method and file, range, authorization
        self.hub, self.content = (_QuietServer(("127.0.0.1", 0), self._handler(kind)) for kind in ("hub", "content"))
        for server in (self.hub, self.content):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        for server in (self.hub, self.content):
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.hub.server_port}"

    def seen(self, place: str) -> list[str]:
        """The requests that reached ``hub`` or ``content``, as method and file."""
        return [what for where, what, _, _ in self.requests if where == place]

    def _handler(self, place: str) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                name = self.path.rsplit("/", 1)[1]
                headers = self.headers
                owner.requests.append((place, f"{self.command} {name}", headers.get("Range"), headers.get("Authorization")))
                (self.answer_hub if place == "hub" else self.answer_content)(name)

            def answer_hub(self, name: str) -> None:
                faults = owner.hub_faults.get(name, [])
                status, code = faults.pop(0) if faults else (302, "")
                if name not in owner.files and status == 302:
                    status, code = 404, "EntryNotFound"
                self.send_response(status)
                self.send_header("Content-Length", "0")
                revision = self.path.split("/resolve/")[1].split("/")[0]
                self.send_header("X-Repo-Commit", owner.commit or revision)
                if code:
                    self.send_header("X-Error-Code", code)
                if status == 302:
                    content = owner.files[name]
                    self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                    self.send_header("X-Linked-Size", str(len(content)))
                    self.send_header("Location", f"http://localhost:{owner.content.server_port}/content/{name}")
                self.end_headers()

            def answer_content(self, name: str) -> None:
                content = owner.files[name]
                faults = owner.faults.get(name, [])
                fault = faults.pop(0) if faults else ""
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                asked = self.headers.get("Range")
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault != "whole" else 0
                if fault == "corrupt":
                    content = content[:-1] + bytes([content[-1] ^ 1])
                body = content[start:]
                half = body[: len(body) // 2]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(half) if fault == "truncate" else len(body)))
                self.end_headers()
                self.wfile.write(half if fault in ("drop", "truncate") else body)
                if fault == "drop":
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

        return Handler


def parquet(texts: list[str | None], *, column: str = "text", rows_per_group: int = 4) -> bytes:
    """Return the bytes of a Parquet file with one column of text."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({column: pyarrow.array(texts, pyarrow.string())})
    pyarrow.parquet.write_table(table, sink, row_group_size=rows_per_group)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub of the test's own; connections to any other machine fail."""
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_test_token")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        assert isinstance(address, str) or (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1")), address
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    yield server
    server.close()


@pytest.fixture
def make_parquet() -> Callable[..., bytes]:
    return parquet


@pytest.fixture
def make_documents() -> Callable[..., list[str]]:
    return made_up_documents
