"""Making a corpus from a source: text, offsets, overlap, tokenizer, token store, and last its manifest.

Guarantees: a folder under the corpus's name is always a whole corpus (it is built beside and renamed); two processes do not
build the same one; an interrupted build leaves nothing that anyone reads, and the next call removes it; where the source sets
a limit, no held-out project shares more than that with train. Memory does not grow with the corpus: text is written as it is
read, BPE learns from a sample, and overlap beyond `overlap.EXACT_BYTES` is measured on a sample of shingles.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
from array import array
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from .catalog import named_source, usual_vocab_size
from .corpus import DEFAULT_CORPUS, Corpus, corpus_path, open_corpus
from .errors import CorpusDamagedError, CorpusMissingError, DiskFullError, PrepareError
from .files import exclusive_lock, flush_directory, flush_to_disk, sha256_file
from .held_out import measure_overlap
from .manifest import Manifest, SplitRecord
from .sources import HELD_OUT_SPLITS, SPLITS, CorpusSource, Project, Split
from .tokenizer import Tokenizer, save_ranks, sizes_for, train_ranks

# BPE learns from every k-th training document, k chosen so that it sees about this much at most. On the wheels a third of
# the text costs 0.4 % more tokens than all of it and trains in a quarter of the time.
TOKENIZER_SAMPLE_BYTES = 16_000_000
# Bytes per token are measured on every k-th val document in the same way.
MEASURE_SAMPLE_BYTES = 1_000_000

# The stages of a build and the share of its time that each takes (seconds on two cores, for the wheels).
_STAGES = {"download": 3.0, "read": 1.0, "overlap": 2.5, "tokenizer": 2.0, "measure": 1.0, "encode": 5.0}
_REPORT_BYTES = 32_000_000  # of text read between two reports


class Progress(Protocol):
    """Called with the stage, the fraction (0 to 1) of the whole work that is done, and what there is to say beyond that."""

    def __call__(self, stage: str, fraction: float, detail: str, /) -> None: ...


class _Stage(Protocol):
    def __call__(self, stage: str, fraction: float = 0.0, detail: str = "", /) -> None: ...


def prepare_corpus(
    name: str = DEFAULT_CORPUS,
    *,
    progress: Progress | None = None,
    source: CorpusSource | None = None,
    vocab_size: int | None = None,
    verify: bool = False,
) -> Corpus:
    """Return the corpus ``name``, building it first when it is absent, damaged, or made from another source.

    Args:
        progress: called with the stage, the fraction of the whole work that is done, and a detail such as bytes.
        source: where the text comes from; by default the source that goes with the name, at the number of shards that is
            prepared already.
        vocab_size: the size whose token store is made at once (the largest one up to it); by default the usual one for the
            name. Others are made when first needed.
        verify: read every byte of an existing corpus, and build it again if one differs.

    Raises:
        ValueError: no source goes with that name.
        DownloadError: the text could not be fetched.
        DiskFullError: there is no room for it.
        OverlapError: a held-out project repeats too much of the training text.
        PrepareError: a split has no documents, the cache cannot be written, or the source has something to say.
    """
    path = corpus_path(name)
    if source is None:
        source = named_source(name, prepared=prepared_source(name))
    report = progress if progress is not None else _ignore
    existing = _usable(name, source, verify)
    if existing is not None:
        return existing
    lock = path.parent / f".{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise PrepareError(
            f"{path.parent}, the folder of the corpora, cannot be written ({error.strerror}): set AUTORESEARCH_CACHE to a "
            "folder that can, and run `autoresearch prepare` again"
        ) from error
    with exclusive_lock(lock, on_wait=lambda: report("waiting for another process", 0.0, "")):
        building, replaced = path.parent / f".{name}.building", path.parent / f".{name}.replaced"
        for leftover in (building, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        existing = _usable(name, source, verify)
        if existing is not None:
            return existing
        try:
            _build(name, building, source, report, usual_vocab_size(name) if vocab_size is None else vocab_size)
            if path.exists():
                path.rename(replaced)
            building.rename(path)
            flush_directory(path.parent)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFullError(
                f"the disk of {path.parent} is full, so the corpus {name!r} is not made: free some space, or set "
                "AUTORESEARCH_CACHE to a folder on a larger disk, and run `autoresearch prepare` again"
            ) from error
        finally:
            for leftover in (building, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
    report("done", 1.0, "")
    return open_corpus(name)


def prepared_source(name: str) -> str | None:
    """Return the key of the source that the corpus ``name`` was made from, or None when there is no usable one."""
    try:
        return open_corpus(name).manifest.source
    except (CorpusMissingError, CorpusDamagedError):
        return None


def _ignore(_stage: str, _fraction: float, _detail: str, /) -> None:
    pass


def _usable(name: str, source: CorpusSource, verify: bool) -> Corpus | None:
    try:
        corpus = open_corpus(name)
        if verify:
            corpus.verify()
    except (CorpusMissingError, CorpusDamagedError):
        return None
    return corpus if corpus.manifest.source == source.key else None


def _build(name: str, folder: Path, source: CorpusSource, report: Progress, vocab_size: int) -> None:
    """Make a whole corpus in ``folder``, which does not exist yet."""

    def stage(stage_name: str, fraction: float = 0.0, detail: str = "", /) -> None:
        stages = list(_STAGES)
        before = sum(_STAGES[earlier] for earlier in stages[: stages.index(stage_name)])
        report(stage_name, (before + min(fraction, 1.0) * _STAGES[stage_name]) / sum(_STAGES.values()), detail)

    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    stage("download")
    projects = source.fetch(scratch, lambda fraction, detail="": stage("download", fraction, detail))
    stage("read")
    records, documents_of = _write_splits(folder, source, projects, scratch, stage)
    shutil.rmtree(scratch)

    unfinished = Manifest(
        corpus_name=name,
        source=source.key,
        projects=projects,
        splits=records,
        tokenizer_sha256="0" * 64,
        bytes_per_token={},
        overlap_with_train={},
        tool_versions={},
    )
    corpus = Corpus(name=name, path=folder, manifest=unfinished)
    stage("overlap")
    overlap = measure_overlap(
        corpus, documents_of, source.max_overlap, lambda fraction, detail="": stage("overlap", fraction, detail)
    )
    stage("tokenizer")
    ranks = train_ranks(_sample(corpus, "train", TOKENIZER_SAMPLE_BYTES))
    save_ranks(corpus.tokenizer_path, ranks)
    stage("measure")
    bytes_per_token = _measure_bytes_per_token(corpus, sizes_for(len(ranks)))
    stage("encode")
    store_size = max(size for size in bytes_per_token if size <= max(vocab_size, min(bytes_per_token)))
    corpus.token_store(store_size, progress=lambda fraction: stage("encode", fraction))
    Manifest(
        corpus_name=name,
        source=source.key,
        projects=projects,
        splits=records,
        tokenizer_sha256=sha256_file(corpus.tokenizer_path),
        bytes_per_token=bytes_per_token,
        overlap_with_train=overlap,
        tool_versions={
            "python": platform.python_version(),
            **{tool: version(tool) for tool in ("numpy", "rustbpe", "tiktoken")},
        },
    ).save(folder / "manifest.json")


def _write_splits(
    folder: Path, source: CorpusSource, projects: tuple[Project, ...], scratch: Path, stage: _Stage
) -> tuple[dict[Split, SplitRecord], dict[str, tuple[int, int]]]:
    """Write text and offsets of every split; also return which documents of its split each project has."""
    import numpy as np

    from .splitting import SHORTEST_WINDOW_BYTES

    records: dict[Split, SplitRecord] = {}
    documents_of: dict[str, tuple[int, int]] = {}
    written, next_report = 0, _REPORT_BYTES
    for split in SPLITS:
        offsets = array("q", [0])
        digest = hashlib.sha256()
        with (folder / f"{split}.txt").open("wb") as text:
            for done, project in enumerate(projects):
                if project.split != split:
                    continue
                first = len(offsets) - 1
                for document in source.documents(project, scratch):
                    content = document.encode("utf-8")
                    text.write(content)
                    digest.update(content)
                    offsets.append(offsets[-1] + len(content))
                    written += len(content)
                    if written >= next_report:
                        next_report = written + _REPORT_BYTES
                        stage("read", 0.0, f"{written / 1e6:.0f} MB of text, {project.name}, {done + 1} of {len(projects)}")
                documents_of[project.name] = (first, len(offsets) - 1)
            flush_to_disk(text)
        if offsets[-1] == 0:
            raise PrepareError(f"the split {split} has no text: give the source a project for each of {', '.join(SPLITS)}")
        longest_bytes = int(np.diff(np.frombuffer(offsets, dtype=np.int64)).max())
        if split in HELD_OUT_SPLITS and longest_bytes < SHORTEST_WINDOW_BYTES:
            raise PrepareError(
                f"the longest document of the split {split} has {longest_bytes} bytes, and scoring takes documents of "
                f"{SHORTEST_WINDOW_BYTES} bytes and more: join short texts that belong together into one document"
            )
        packed = np.frombuffer(offsets, dtype=np.int64).astype("<i8", copy=False).tobytes()
        with (folder / f"{split}.offsets").open("wb") as file:
            file.write(packed)
            flush_to_disk(file)
        records[split] = SplitRecord(
            documents=len(offsets) - 1,
            text_bytes=offsets[-1],
            text_sha256=digest.hexdigest(),
            offsets_sha256=hashlib.sha256(packed).hexdigest(),
        )
    return records, documents_of


def _sample(corpus: Corpus, split: Split, limit_bytes: int) -> Iterator[str]:
    """Yield every k-th document of a split, with k such that about ``limit_bytes`` are seen at most."""
    text, offsets = corpus.text(split), corpus.offsets(split)
    stride = -(-len(text) // limit_bytes)
    for index in range(0, len(offsets) - 1, stride):
        yield text[offsets[index] : offsets[index + 1]].tobytes().decode("utf-8")


def _measure_bytes_per_token(corpus: Corpus, sizes: tuple[int, ...]) -> dict[int, float]:
    documents = list(_sample(corpus, "val", MEASURE_SAMPLE_BYTES))
    total_bytes = sum(len(document.encode("utf-8")) for document in documents)
    result = {}
    for size in sizes:
        encoded = Tokenizer.from_file(corpus.tokenizer_path, size).encode_batch(documents, num_threads=os.cpu_count() or 1)
        result[size] = round(total_bytes / max(sum(map(len, encoded)), 1), 4)
    return result
