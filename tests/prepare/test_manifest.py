from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from autoresearch_mcp.prepare.errors import CorpusDamagedError
from autoresearch_mcp.prepare.manifest import Manifest, OverlapRecord, SplitRecord
from autoresearch_mcp.prepare.sources import Project


def record(digit: str) -> SplitRecord:
    return SplitRecord(documents=3, text_bytes=100, text_sha256=digit * 64, offsets_sha256="f" * 64)


MANIFEST = Manifest(
    corpus_name="tiny",
    source="tiny:1",
    projects=(Project(name="a", version="1", sha256="0" * 64, split="train"),),
    splits={"train": record("1"), "val": record("2"), "test": record("3")},
    tokenizer_sha256="a" * 64,
    bytes_per_token={257: 1.0, 512: 2.0},
    overlap_with_train={
        "val": OverlapRecord(distinct_share=0.001, occurrence_share=0.002),
        "test": OverlapRecord(distinct_share=0.0, occurrence_share=0.0),
    },
    tool_versions={"python": "3.11.0"},
)


def test_a_saved_manifest_loads_as_the_same_manifest(tmp_path: Path):
    MANIFEST.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == MANIFEST
    assert MANIFEST.vocab_sizes == (257, 512)


def test_the_corpus_id_follows_what_numbers_depend_on_and_nothing_else():
    assert len(MANIFEST.corpus_id) == 16
    assert (
        dataclasses.replace(MANIFEST, tool_versions={}, corpus_name="other", source="elsewhere").corpus_id == MANIFEST.corpus_id
    )
    assert dataclasses.replace(MANIFEST, tokenizer_sha256="b" * 64).corpus_id != MANIFEST.corpus_id
    other_val = {**MANIFEST.splits, "val": record("9")}
    assert dataclasses.replace(MANIFEST, splits=other_val).corpus_id != MANIFEST.corpus_id


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.pop("tokenizer_sha256"), "'tokenizer_sha256' is missing"),
        (lambda f: f.update(tokenizer_sha256="xyz"), "must be 64 hex digits"),
        (lambda f: f.update(format_version=99), "format_version is 99"),
        (lambda f: f.update(format_version=1), "format_version is 1"),
        (lambda f: f.pop("source"), "'source' is missing"),
        (lambda f: f["splits"].pop("val"), "splits are"),
        (lambda f: f["splits"]["val"].update(text_bytes="100"), "text_bytes is '100'"),
        (lambda f: f["splits"].update(val=3), "an object with 'documents'"),
        (lambda f: f["splits"]["val"].update(documents=4), "corpus_id is"),
        (lambda f: f["projects"][0].update(split="dev"), "split is 'dev'"),
        (lambda f: f["overlap_with_train"].pop("test"), "'test' is missing"),
        (lambda f: f.update(bytes_per_token={"many": 1}), "many"),
    ],
)
def test_a_wrong_field_is_named_with_the_file_and_the_remedy(tmp_path: Path, change, complaint: str):
    path = tmp_path / "manifest.json"
    MANIFEST.save(path)
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(CorpusDamagedError) as caught:
        Manifest.load(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "`autoresearch prepare`" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_manifest_is_damaged(tmp_path: Path, content: bytes):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(CorpusDamagedError, match=r"manifest\.json"):
        Manifest.load(path)
