"""Prepared corpora: the text of three splits, a tokenizer, token stores and a manifest, in one folder of the cache.

    <cache root>/<name>/manifest.json        what is here, with hashes; written last
                        {train,val,test}.txt       the documents, one after another, UTF-8
                        {train,val,test}.offsets   where each starts, and the end of the last, little-endian int64
                        tokenizer.json             BPE ranks
                        stores/train-<size>.bin    token stores, made when first needed

Guarantees: a folder under that name is always a whole corpus (it is built beside and renamed); two processes do not build the
same one; an interrupted build leaves nothing that anyone reads, and the next call removes it; at most `MAX_OVERLAP` of the
distinct 13-token shingles of any held-out project occur in train. Not covered: text that was changed in place keeping its
size, until `verify=True` reads everything.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from .errors import CorpusDamagedError, CorpusMissingError, OverlapError, PrepareError
from .files import exclusive_lock, flush_directory, flush_to_disk, sha256_file
from .manifest import Manifest, OverlapRecord, SplitRecord
from .sources import HELD_OUT_SPLITS, SPLITS, CorpusSource, Split
from .tokenizer import Tokenizer, save_ranks, sizes_for, train_ranks
from .wheels import WheelsSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CACHE_VARIABLE = "AUTORESEARCH_CACHE"
DEFAULT_CORPUS = "wheels"
DEFAULT_VOCAB_SIZE = 2048
MAX_OVERLAP = 0.01
# BPE learns from every k-th training document, k chosen so that it sees about this much at most. On the wheels a third of
# the text costs 0.4 % more tokens than all of it and trains in a quarter of the time.
TOKENIZER_SAMPLE_BYTES = 16_000_000
# Bytes per token are measured on every k-th val document in the same way.
MEASURE_SAMPLE_BYTES = 1_000_000

Progress = Callable[[str, float], None]

# The stages of a build and the share of its time that each takes (seconds on two cores, for the wheels).
_STAGES = {"download": 3.0, "read": 1.0, "overlap": 2.5, "tokenizer": 2.0, "measure": 1.0, "encode": 5.0}
_OFFSET_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A prepared corpus on disk; opened by `open_corpus` or `prepare_corpus`."""

    name: str
    path: Path
    manifest: Manifest

    @property
    def corpus_id(self) -> str:
        """16 hex digits; numbers measured under different ids are not comparable."""
        return self.manifest.corpus_id

    @property
    def tokenizer_path(self) -> Path:
        """The ranks file, for `Tokenizer.from_file`."""
        return self.path / "tokenizer.json"

    def text_path(self, split: Split) -> Path:
        """The UTF-8 text of a split."""
        return self.path / f"{split}.txt"

    def text(self, split: Split) -> npt.NDArray[np.uint8]:
        """Return the text of a split as a read-only memory map, uint8 ``[bytes]``."""
        import numpy as np

        return np.memmap(self.text_path(split), dtype=np.uint8, mode="r")

    def offsets(self, split: Split) -> npt.NDArray[np.int64]:
        """Return where each document starts, and the end of the last, int64 ``[documents + 1]``."""
        import numpy as np

        return np.fromfile(self.path / f"{split}.offsets", dtype="<i8").astype(np.int64, copy=False)

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        """Return the tokenizer at a prepared size; raises ValueError, listing the sizes, for any other."""
        return Tokenizer.from_file(self.tokenizer_path, vocab_size)

    def token_store(self, vocab_size: int, *, progress: Callable[[float], None] | None = None) -> Path:
        """Return the ``.bin`` of the train split at a prepared size, built now if it is not there (seconds).

        It holds little-endian uint16, BOS before every document.
        """
        from .store import build_token_store, read_store_record

        destination = self.path / "stores" / f"train-{vocab_size}.bin"
        if read_store_record(destination) is None:
            tokenizer = self.tokenizer(vocab_size)
            build_token_store(self.text_path("train"), self.offsets("train"), tokenizer, destination, progress=progress)
        return destination

    def verify(self) -> None:
        """Read every file again and compare with the manifest and the sidecars.

        Raises:
            CorpusDamagedError: names the first file that differs.
        """
        from .store import verify_token_store

        for split, record in self.manifest.splits.items():
            expected = {f"{split}.txt": record.text_sha256, f"{split}.offsets": record.offsets_sha256}
            for file_name, sha256 in expected.items():
                if sha256_file(self.path / file_name) != sha256:
                    raise _damaged(self.path / file_name, "its bytes are not those in the manifest")
        for store in sorted((self.path / "stores").glob("*.bin")):
            verify_token_store(store)


def cache_root() -> Path:
    """Return the folder of all corpora: AUTORESEARCH_CACHE, or the platform's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("autoresearch"))


def corpus_path(name: str) -> Path:
    """Return the folder of the corpus ``name``, whether it exists or not; raises ValueError for an unusable name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"corpus name {name!r} is not usable: use lower-case letters, digits, '-' and '_'")
    return cache_root() / name


def open_corpus(name: str = DEFAULT_CORPUS) -> Corpus:
    """Open a prepared corpus; checks the manifest, the tokenizer's hash and the size of every file (milliseconds).

    Raises:
        CorpusMissingError: nothing is prepared under that name; the text names the command.
        CorpusDamagedError: a file is not what the manifest says.
    """
    return _open(name, corpus_path(name))


def prepare_corpus(
    name: str = DEFAULT_CORPUS,
    *,
    progress: Progress | None = None,
    source: CorpusSource | None = None,
    verify: bool = False,
) -> Corpus:
    """Return the corpus ``name``, building it first when it is absent, damaged, or made from other sources.

    Args:
        progress: called with the stage and the fraction (0 to 1) of the whole work that is done.
        source: where the text comes from; by default the source that goes with the name.
        verify: read every byte of an existing corpus, and build it again if one differs.

    Raises:
        ValueError: no source goes with that name.
        DownloadError: the pinned files could not be fetched.
        OverlapError: a held-out project repeats too much of the training text.
        PrepareError: a split has no documents.
    """
    path = corpus_path(name)
    if source is None:
        if name != DEFAULT_CORPUS:
            raise ValueError(f"no source is known for the corpus {name!r}: the prepared corpus is {DEFAULT_CORPUS!r}")
        source = WheelsSource()
    report = progress if progress is not None else _ignore
    existing = _usable(name, path, source, verify)
    if existing is not None:
        return existing
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f".{name}.lock"
    with exclusive_lock(lock, on_wait=lambda: report("waiting for another process", 0.0)):
        building, replaced = path.parent / f".{name}.building", path.parent / f".{name}.replaced"
        for leftover in (building, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        existing = _usable(name, path, source, verify)
        if existing is not None:
            return existing
        try:
            _build(name, building, source, report)
            if path.exists():
                path.rename(replaced)
            building.rename(path)
            flush_directory(path.parent)
        finally:
            for leftover in (building, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
    report("done", 1.0)
    return _open(name, path)


def _ignore(_stage: str, _fraction: float) -> None:
    pass


def _open(name: str, path: Path) -> Corpus:
    try:
        manifest = Manifest.load(path / "manifest.json")
    except FileNotFoundError as error:
        raise CorpusMissingError(
            f"the corpus {name!r} is not prepared (looked in {path}): run `autoresearch prepare`"
        ) from error
    corpus = Corpus(name=name, path=path, manifest=manifest)
    for split, record in manifest.splits.items():
        sizes = {f"{split}.txt": record.text_bytes, f"{split}.offsets": _OFFSET_BYTES * (record.documents + 1)}
        for file_name, expected_bytes in sizes.items():
            file = path / file_name
            found_bytes = file.stat().st_size if file.is_file() else None
            if found_bytes != expected_bytes:
                found = "is missing" if found_bytes is None else f"has {found_bytes} bytes"
                raise _damaged(file, f"it {found}, the manifest says {expected_bytes} bytes")
    if not corpus.tokenizer_path.is_file() or sha256_file(corpus.tokenizer_path) != manifest.tokenizer_sha256:
        raise _damaged(corpus.tokenizer_path, "it is not the tokenizer in the manifest")
    return corpus


def _damaged(path: Path, reason: str) -> CorpusDamagedError:
    return CorpusDamagedError(f"{path} is damaged: {reason}; run `autoresearch prepare --verify` to make it again")


def _usable(name: str, path: Path, source: CorpusSource, verify: bool) -> Corpus | None:
    try:
        corpus = _open(name, path)
        if verify:
            corpus.verify()
    except (CorpusMissingError, CorpusDamagedError):
        return None
    return corpus if corpus.manifest.projects == tuple(source.projects) else None


def _build(name: str, folder: Path, source: CorpusSource, report: Progress) -> None:
    """Make a whole corpus in ``folder``, which does not exist yet."""

    def stage(stage_name: str, fraction: float = 0.0) -> None:
        stages = list(_STAGES)
        before = sum(_STAGES[earlier] for earlier in stages[: stages.index(stage_name)])
        report(stage_name, (before + fraction * _STAGES[stage_name]) / sum(_STAGES.values()))

    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    stage("download")
    source.fetch(scratch)
    stage("read")
    records, documents_of = _write_splits(folder, source, scratch)
    shutil.rmtree(scratch)

    unfinished = Manifest(
        corpus_name=name,
        projects=tuple(source.projects),
        splits=records,
        tokenizer_sha256="0" * 64,
        bytes_per_token={},
        overlap_with_train={},
        tool_versions={},
    )
    corpus = Corpus(name=name, path=folder, manifest=unfinished)
    stage("overlap")
    overlap = _measure_overlap(corpus, documents_of)
    stage("tokenizer")
    ranks = train_ranks(_sample(corpus, "train", TOKENIZER_SAMPLE_BYTES))
    save_ranks(corpus.tokenizer_path, ranks)
    stage("measure")
    bytes_per_token = _measure_bytes_per_token(corpus, sizes_for(len(ranks)))
    stage("encode")
    default_size = max(size for size in bytes_per_token if size <= DEFAULT_VOCAB_SIZE)
    corpus.token_store(default_size, progress=lambda fraction: stage("encode", fraction))
    Manifest(
        corpus_name=name,
        projects=tuple(source.projects),
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
    folder: Path, source: CorpusSource, scratch: Path
) -> tuple[dict[Split, SplitRecord], dict[str, tuple[int, int]]]:
    """Write text and offsets of every split; also return which documents of its split each project has."""
    import numpy as np

    records: dict[Split, SplitRecord] = {}
    documents_of: dict[str, tuple[int, int]] = {}
    for split in SPLITS:
        offsets = [0]
        digest = hashlib.sha256()
        with (folder / f"{split}.txt").open("wb") as text:
            for project in source.projects:
                if project.split != split:
                    continue
                first = len(offsets) - 1
                for document in source.documents(project, scratch):
                    content = document.encode("utf-8")
                    text.write(content)
                    digest.update(content)
                    offsets.append(offsets[-1] + len(content))
                documents_of[project.name] = (first, len(offsets) - 1)
            flush_to_disk(text)
        if offsets[-1] == 0:
            raise PrepareError(f"the split {split} has no text: give the source a project for each of {', '.join(SPLITS)}")
        packed = np.array(offsets, dtype="<i8").tobytes()
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


def _measure_overlap(corpus: Corpus, documents_of: dict[str, tuple[int, int]]) -> dict[Split, OverlapRecord]:
    """Return how much of val and of test occurs in train; refuse when it is too much for any project of them."""
    import numpy as np

    from .overlap import overlap_share, shingle_hashes

    train = np.sort(shingle_hashes(corpus.text("train"), corpus.offsets("train")))
    records: dict[Split, OverlapRecord] = {}
    for split in HELD_OUT_SPLITS:
        text, offsets = corpus.text(split), corpus.offsets(split)
        parts = []
        for project in corpus.manifest.projects:
            if project.split != split:
                continue
            first, stop = documents_of[project.name]
            parts.append(shingle_hashes(text, offsets[first : stop + 1]))
            share = overlap_share(np.unique(parts[-1]), train)
            if share > MAX_OVERLAP:
                raise OverlapError(
                    f"{share:.2%} of the 13-token shingles of {project.name} ({split}) occur in the training text, at most "
                    f"{MAX_OVERLAP:.0%} may: move the project to train, or leave it out"
                )
        hashes = np.concatenate(parts)
        records[split] = OverlapRecord(
            distinct_share=round(overlap_share(np.unique(hashes), train), 6),
            occurrence_share=round(overlap_share(hashes, train), 6),
        )
    return records


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
        encoded = corpus.tokenizer(size).encode_batch(documents, num_threads=os.cpu_count() or 1)
        result[size] = round(total_bytes / max(sum(map(len, encoded)), 1), 4)
    return result
