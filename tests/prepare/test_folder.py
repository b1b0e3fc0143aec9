from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus
from autoresearch_mcp.prepare.errors import LibraryMissingError, PrepareError
from autoresearch_mcp.prepare.folder import FolderSource
from autoresearch_mcp.prepare.overlap import overlap_share, shingle_hashes
from autoresearch_mcp.prepare.sources import HELD_OUT_SPLITS, SPLITS
from autoresearch_mcp.prepare.splitting import LEAST_HELD_OUT_BYTES, MAX_SHARED_SHARE, scorable_bytes
from autoresearch_mcp.prepare.store import open_tokens

Splits = dict[str, list[str]]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Some 1.3 MB of documents that share nothing."""
    generator = np.random.default_rng(11)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzéß日🎉"))
    words = ["".join(generator.choice(letters, size=length)) for length in generator.integers(2, 9, size=2000)]
    result = []
    for _ in range(300):
        chosen = generator.integers(0, len(words), size=620)
        result.append("\n".join(" ".join(words[i] for i in chosen[start : start + 10]) for start in range(0, 620, 10)) + "\n")
    return result


@pytest.fixture
def folder(tmp_path: Path, texts: list[str], make_parquet: Callable[..., bytes]) -> Path:
    """All four formats, in folders within folders, with what must not be read beside them."""
    root = tmp_path / "my texts"
    for index, text in enumerate(texts[:150]):
        path = root / f"part {index % 3}" / "deep" / f"note-{index:03}.{'md' if index % 2 else 'txt'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"\xef\xbb\xbf" if index == 0 else b"") + text.encode())
    (root / "windows.txt").write_bytes(texts[150].replace("\n", "\r\n").encode())
    (root / "records.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[151:220]))
    (root / "part 1" / "rows.parquet").write_bytes(make_parquet(texts[220:], column="content"))
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.txt").write_text("hidden")
    (root / ".hidden.txt").write_text("hidden")
    (root / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "link").symlink_to(tmp_path)
    return root


def fetched(folder: Path, scratch: Path) -> tuple[FolderSource, Splits]:
    scratch.mkdir()
    source = FolderSource(folder)
    projects = source.fetch(scratch, lambda _fraction, _detail="": None)
    assert [project.split for project in projects] == list(SPLITS)
    return source, {project.split: list(source.documents(project, scratch)) for project in projects}


def hashes_of(documents: list[str]) -> np.ndarray:
    content = [document.encode() for document in documents]
    offsets = np.cumsum([0, *map(len, content)]).astype(np.int64)
    return np.unique(shingle_hashes(np.frombuffer(b"".join(content), dtype=np.uint8), offsets))


def test_a_folder_of_every_format_becomes_a_corpus_that_trains_and_scores(folder: Path, texts: list[str]):
    source = FolderSource(folder)
    corpus = prepare_corpus("mine", source=source)
    assert open_corpus("mine") == corpus
    found: Splits = {}
    for split in SPLITS:
        text, offsets = corpus.text(split), corpus.offsets(split)
        found[split] = [text[start:end].tobytes().decode() for start, end in pairwise(offsets)]
    expected = [text.replace("\n", "\r\n") if index == 150 else text for index, text in enumerate(texts)]
    assert sorted(chain(*found.values())) == sorted(expected)
    for split in HELD_OUT_SPLITS:
        held_out_bytes = sum(scorable_bytes(document.encode()) for document in found[split])
        assert LEAST_HELD_OUT_BYTES <= held_out_bytes < LEAST_HELD_OUT_BYTES + 10_000
        assert corpus.manifest.overlap_with_train[split].distinct_share == 0.0
    tokens = open_tokens(corpus.token_store(512))
    encoded = [[corpus.tokenizer(512).bos_token_id, *ids] for ids in corpus.tokenizer(512).encode_batch(found["train"])]
    assert tokens.tolist() == list(chain(*encoded))


def test_the_manifest_shows_a_project_for_each_split_and_the_key(folder: Path):
    source = FolderSource(folder)
    manifest = prepare_corpus("mine", source=source).manifest
    assert manifest.source == source.key
    assert [(p.name, p.split, p.version) for p in manifest.projects] == [
        (f"my texts/{split}", split, source.key.removeprefix("folder:")[:16]) for split in SPLITS
    ]
    assert len({project.sha256 for project in manifest.projects}) == 3


def test_the_summary_says_what_became_of_the_files_and_documents(folder: Path, tmp_path: Path):
    shutil.copy(folder / "windows.txt", folder / "again.md")
    (tmp_path / "scratch").mkdir()
    details: list[tuple[float, str]] = []
    source = FolderSource(folder)
    source.fetch(tmp_path / "scratch", lambda fraction, detail="": details.append((fraction, detail)))
    assert source.summary is not None
    assert details[-1] == (1.0, str(source.summary))
    assert [fraction for fraction, _ in details] == sorted(fraction for fraction, _ in details)
    assert str(source.summary).startswith("301 documents of 154 files, 1 exact and 0 near duplicates left out: train ")
    assert str(source.summary).endswith("not read: 1 .png, 2 links")
    assert sum(count for count, _ in source.summary.kept.values()) == 300


def test_preparing_again_reads_the_files_and_makes_nothing(folder: Path):
    corpus = prepare_corpus("mine", source=FolderSource(folder))
    source = FolderSource(folder)
    stages: list[str] = []
    assert prepare_corpus("mine", source=source, progress=lambda stage, *_: stages.append(stage)) == corpus
    assert (stages, source.summary) == ([], None)


def test_the_key_and_the_splits_depend_on_names_and_bytes_alone(folder: Path, tmp_path: Path):
    source, splits = fetched(folder, tmp_path / "scratch")
    copy = tmp_path / "copy" / "under another name"
    for path in sorted(folder.rglob("*"), reverse=True):  # written in another order
        if path.is_file() and not path.is_symlink() and ".hidden" not in str(path):
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            os.utime(target, (1_000_000, 1_000_000))
    again, splits_again = fetched(copy, tmp_path / "scratch again")
    assert again.key == source.key
    assert splits_again == splits


def test_files_under_other_names_keep_their_split(folder: Path, tmp_path: Path):
    source, splits = fetched(folder, tmp_path / "scratch")
    (folder / "part 0").rename(folder / "z")
    (folder / "windows.txt").rename(folder / "0.md")
    renamed, splits_renamed = fetched(folder, tmp_path / "scratch again")
    assert renamed.key != source.key
    assert {split: sorted(documents) for split, documents in splits_renamed.items()} == {
        split: sorted(documents) for split, documents in splits.items()
    }


def test_a_changed_file_makes_another_corpus(folder: Path):
    before = prepare_corpus("mine", source=FolderSource(folder))
    path = folder / "windows.txt"
    times = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"?" + content[-2:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = prepare_corpus("mine", source=FolderSource(folder))
    assert after.manifest.source != before.manifest.source
    assert after.corpus_id != before.corpus_id


def test_no_copy_with_small_edits_is_in_another_split(folder: Path, tmp_path: Path, texts: list[str]):
    _, before = fetched(folder, tmp_path / "scratch")
    for index, text in enumerate(texts):
        (folder / f"copy-{index}.txt").write_text(f"A new first line.\n{text.replace('a', 'b', 3)}")
    source, splits = fetched(folder, tmp_path / "scratch again")
    assert source.summary is not None
    assert source.summary.near_duplicates + source.summary.exact_duplicates == len(texts)
    assert sum(map(len, splits.values())) == sum(map(len, before.values()))
    train = hashes_of(splits["train"])
    for split in HELD_OUT_SPLITS:
        assert overlap_share(hashes_of(splits[split]), train) == 0.0


def test_what_a_larger_file_contains_and_what_shares_much_is_not_held_out(folder: Path, tmp_path: Path, texts: list[str]):
    for index in range(0, 60, 2):  # each repeats two notes whole, in far more text of its own
        own = " ".join(f"{index}w{n}" for n in range(6000)).replace("0 ", "0\n")
        (folder / f"zz-{index}.md").write_text(f"{texts[index]}{own}\n{texts[index + 1]}")
    source, splits = fetched(folder, tmp_path / "scratch")
    assert source.summary is not None
    assert source.summary.near_duplicates == 0
    repeated = set(texts[:60])
    assert repeated <= set(splits["train"])
    for split in HELD_OUT_SPLITS:
        train = hashes_of(splits["train"])
        assert overlap_share(hashes_of(splits[split]), train) <= MAX_SHARED_SHARE
        assert all(overlap_share(hashes_of([document]), train) <= MAX_SHARED_SHARE for document in splits[split])


def test_one_long_file_gives_parts_to_every_split(tmp_path: Path, texts: list[str]):
    (tmp_path / "books").mkdir()
    book = "\n".join(texts)
    (tmp_path / "books" / "book.txt").write_text(book)
    _, splits = fetched(tmp_path / "books", tmp_path / "scratch")
    assert all(splits.values())
    parts = sorted(chain(*splits.values()), key=book.index)
    assert "".join(parts) == book


def test_a_huge_single_line_is_trained_on_and_not_held_out(folder: Path, tmp_path: Path):
    line = " ".join(f"token{index}" for index in range(200_000))
    (folder / "line.txt").write_text(line)
    _, splits = fetched(folder, tmp_path / "scratch")
    assert "".join(document for document in splits["train"] if document.startswith("token")) == line
    assert not [document for split in HELD_OUT_SPLITS for document in splits[split] if "token" in document]


def test_a_folder_with_one_short_document_is_refused_with_the_numbers(tmp_path: Path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.txt").write_text("One short document.\n" * 40)
    with pytest.raises(PrepareError, match=r"small: the text cannot be split: .* 800 bytes in 1 documents; .*: add text, and"):
        prepare_corpus("mine", source=FolderSource(tmp_path / "small"))


def test_a_folder_without_text_files_is_refused_with_what_it_has(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PrepareError, match=r"empty has no \.txt, .*it has nothing\): give another folder"):
        _ = FolderSource(empty).key
    for name in ("a.pdf", "b.pdf", "c.html", "README", ".hidden.txt"):
        (empty / name).write_text("x")
    (empty / "link.txt").symlink_to(empty / ".hidden.txt")
    with pytest.raises(PrepareError, match=r"it has 1 \.html, 2 \.pdf, 1 links, 1 without an ending\)"):
        _ = FolderSource(empty).key


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str):
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(PrepareError, match=rf"{name} is not a folder"):
        _ = FolderSource(tmp_path / name).key


def test_every_bad_file_is_named_at_once_and_nothing_is_prepared(folder: Path, cache: Path):
    (folder / "bad.txt").write_bytes(b"gr\xfcn")
    (folder / "bad.jsonl").write_text('{"text": "fine"}\n{"body": "x"}\n')
    (folder / "bad.parquet").write_bytes(b"no")
    with pytest.raises(PrepareError) as caught:
        prepare_corpus("mine", source=FolderSource(folder))
    message = str(caught.value)
    assert "bad.jsonl, line 2: no field" in message
    assert "bad.parquet cannot be read as a Parquet file" in message
    assert "bad.txt, line 1: not UTF-8 (byte 0xfc)" in message
    assert message.endswith("Nothing was prepared.")
    assert not (cache / "mine").exists()


def test_many_bad_files_are_named_up_to_five(folder: Path, tmp_path: Path):
    for index in range(9):
        (folder / f"bad{index}.txt").write_bytes(b"\xff")
    with pytest.raises(PrepareError, match=r"(?s)bad0.*bad4\.txt, line 1.*There may be more") as caught:
        fetched(folder, tmp_path / "scratch")
    assert "bad5" not in str(caught.value)


def test_a_missing_library_is_named_before_anything_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "a bad one.txt").write_bytes(b"\xff")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LibraryMissingError, match=r"rows\.parquet is a Parquet file.*pip install"):
        fetched(folder, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["windows.txt", "part 1"])
def test_what_may_not_be_read_is_refused_by_name(folder: Path, name: str):
    (folder / name).chmod(0)
    try:
        with pytest.raises(PrepareError, match=rf"{name} cannot be read \(Permission denied\)"):
            _ = FolderSource(folder).key
    finally:
        (folder / name).chmod(0o755)


@pytest.mark.parametrize("change", ["append", "delete"])
def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path, tmp_path: Path, change: str):
    source = FolderSource(folder)
    assert source.key.startswith("folder:")
    path = folder / "windows.txt"
    if change == "append":
        with path.open("a") as file:
            file.write("More.")
    else:
        path.unlink()
    (tmp_path / "scratch").mkdir()
    with pytest.raises(PrepareError, match=r"windows\.txt (changed while it was read|cannot be read)"):
        source.fetch(tmp_path / "scratch", lambda _fraction, _detail="": None)


def test_the_cache_of_corpora_inside_the_folder_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    key = FolderSource(folder).key
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(folder / "cache"))
    corpus: Corpus = prepare_corpus("mine", source=FolderSource(folder))
    assert corpus.path.is_relative_to(folder)
    assert corpus.manifest.source == FolderSource(folder).key == key
