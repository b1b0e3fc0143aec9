from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.prepare import store as store_module
from autoresearch_mcp.prepare.corpus import Corpus
from autoresearch_mcp.prepare.errors import CorpusDamagedError
from autoresearch_mcp.prepare.store import StoreRecord, build_token_store, open_tokens, read_store_record, verify_token_store


def build(corpus: Corpus, destination: Path) -> StoreRecord:
    return build_token_store(corpus.text_path("train"), corpus.offsets("train"), corpus.tokenizer(512), destination)


@pytest.mark.parametrize("batch_bytes", [1, 5000, 4_000_000])
def test_a_store_is_every_document_in_order_with_bos_before_each(
    tiny_corpus: Corpus, tmp_path: Path, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store_module, "_BATCH_BYTES", batch_bytes)
    destination = tmp_path / "train.bin"
    record = build(tiny_corpus, destination)
    tokenizer, text, offsets = tiny_corpus.tokenizer(512), tiny_corpus.text("train").tobytes(), tiny_corpus.offsets("train")
    expected = []
    for start, end in pairwise(offsets):
        expected += [tokenizer.bos_token_id, *tokenizer.encode(text[start:end].decode())]
    tokens = open_tokens(destination)
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == expected
    assert not tokens.flags.writeable
    assert record == StoreRecord(
        vocab_size=512, tokens=len(expected), sha256=hashlib.sha256(destination.read_bytes()).hexdigest()
    )


def test_a_store_that_is_there_is_not_built_again(tiny_corpus: Corpus, tmp_path: Path):
    destination = tmp_path / "train.bin"
    first = build(tiny_corpus, destination)
    before = destination.stat()
    assert build(tiny_corpus, destination) == first
    assert (destination.stat().st_ino, destination.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", ["no sidecar", "empty sidecar", "cut short", "other size"])
def test_an_incomplete_store_is_built_again(tiny_corpus: Corpus, tmp_path: Path, damage: str):
    destination = tmp_path / "train.bin"
    first = build(tiny_corpus, destination)
    sidecar = tmp_path / "train.json"
    match damage:
        case "no sidecar":
            sidecar.unlink()
        case "empty sidecar":
            sidecar.write_text("{}")
        case "cut short":
            destination.write_bytes(destination.read_bytes()[:-2])
        case _:
            sidecar.write_text(sidecar.read_text().replace("512", "257"))
    assert build(tiny_corpus, destination) == first
    verify_token_store(destination)


def test_two_builders_at_once_make_one_store(tiny_corpus: Corpus, tmp_path: Path):
    destination = tmp_path / "train.bin"
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(lambda _: build(tiny_corpus, destination), range(2)))
    assert records[0] == records[1] == read_store_record(destination)
    verify_token_store(destination)


def test_an_interrupted_build_leaves_no_store(tiny_corpus: Corpus, tmp_path: Path):
    destination = tmp_path / "train.bin"

    def interrupt(_fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_token_store(
            tiny_corpus.text_path("train"),
            tiny_corpus.offsets("train"),
            tiny_corpus.tokenizer(512),
            destination,
            progress=interrupt,
        )
    assert read_store_record(destination) is None
    assert [path.name for path in tmp_path.glob("train.*")] == ["train.lock"]


def test_verifying_finds_a_changed_byte(tiny_corpus: Corpus, tmp_path: Path):
    destination = tmp_path / "train.bin"
    build(tiny_corpus, destination)
    content = bytearray(destination.read_bytes())
    content[10] ^= 1
    destination.write_bytes(content)
    with pytest.raises(CorpusDamagedError, match=r"train\.bin"):
        verify_token_store(destination)
