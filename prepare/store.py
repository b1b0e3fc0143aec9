"""The token store: one split encoded once at one vocabulary size, as a memory-mappable file of uint16.

Every document is preceded by BOS. A store is two files: the ids (``.bin``, little-endian uint16) and a sidecar (``.json``)
with their number and SHA-256. The sidecar is written last, so a store with a sidecar is complete.

Guarantees: processes that want the same store build it once; nothing half-made ever has the final name. Not covered: a
vocabulary above 65,536, and damage to the file afterwards (`verify_token_store` reads every byte).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import CorpusDamagedError
from .files import exclusive_lock, flush_directory, flush_to_disk, sha256_file, write_atomically
from .sources import document_ranges
from .tokenizer import Tokenizer

TOKEN_DTYPE = np.dtype("<u2")

_BATCH_BYTES = 8_000_000  # of text encoded at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecord:
    """The sidecar of a token store."""

    vocab_size: int
    tokens: int
    sha256: str


def build_token_store(
    text_path: Path,
    offsets: npt.NDArray[np.int64],
    tokenizer: Tokenizer,
    destination: Path,
    *,
    progress: Callable[[float], None] | None = None,
) -> StoreRecord:
    """Return the store at ``destination`` (a ``.bin`` path), building it when it is not there.

    Args:
        text_path: the documents of the split, one after another, UTF-8.
        offsets: where each document starts, and the end of the last, int64 ``[documents + 1]``.
        tokenizer: of the size to encode with.
        progress: called with the fraction (0 to 1) of the text that is encoded.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(destination.with_suffix(".lock")):
        existing = read_store_record(destination)
        if existing is not None and existing.vocab_size == tokenizer.vocab_size:
            return existing
        _sidecar(destination).unlink(missing_ok=True)
        record = _write_tokens(text_path, offsets, tokenizer, destination, progress)
        write_atomically(_sidecar(destination), (json.dumps(asdict(record), indent=1) + "\n").encode())
        return record


def read_store_record(destination: Path) -> StoreRecord | None:
    """Return the sidecar of the store at ``destination``, or None when there is no complete store of the right size."""
    try:
        fields = json.loads(_sidecar(destination).read_text(encoding="utf-8"))
        record = StoreRecord(vocab_size=fields["vocab_size"], tokens=fields["tokens"], sha256=fields["sha256"])
        complete = destination.stat().st_size == record.tokens * TOKEN_DTYPE.itemsize
    except (OSError, ValueError, TypeError, KeyError):
        return None  # whatever is wrong with it, the remedy is the same: build it again
    return record if complete else None


def verify_token_store(destination: Path) -> None:
    """Read every byte of the store at ``destination``.

    Raises:
        CorpusDamagedError: it is incomplete, or not what its sidecar says.
    """
    record = read_store_record(destination)
    if record is None or sha256_file(destination) != record.sha256:
        raise CorpusDamagedError(
            f"the token store {destination} is not what its sidecar says: delete it, it is built again when needed"
        )


def open_tokens(destination: Path) -> npt.NDArray[np.uint16]:
    """Return the ids of a store as a read-only memory map, uint16 ``[tokens]``."""
    return np.memmap(destination, dtype=TOKEN_DTYPE, mode="r")


def _sidecar(destination: Path) -> Path:
    return destination.with_suffix(".json")


def _write_tokens(
    text_path: Path,
    offsets: npt.NDArray[np.int64],
    tokenizer: Tokenizer,
    destination: Path,
    progress: Callable[[float], None] | None,
) -> StoreRecord:
    digest = hashlib.sha256()
    tokens = 0
    threads = os.cpu_count() or 1
    unfinished = destination.with_suffix(".tmp")  # under the lock, so one fixed name will do
    try:
        with text_path.open("rb") as text, unfinished.open("wb") as file:
            for first, stop in document_ranges(offsets, _BATCH_BYTES):
                documents = [text.read(int(offsets[i + 1] - offsets[i])).decode("utf-8") for i in range(first, stop)]
                encoded = tokenizer.encode_arrays(documents, num_threads=threads)
                block = np.concatenate(encoded).astype(TOKEN_DTYPE, copy=False).tobytes()
                digest.update(block)
                file.write(block)
                tokens += len(block) // TOKEN_DTYPE.itemsize
                if progress is not None:
                    progress(float(offsets[stop] / max(offsets[-1], 1)))
            flush_to_disk(file)
        unfinished.replace(destination)
    finally:
        unfinished.unlink(missing_ok=True)
    flush_directory(destination.parent)
    return StoreRecord(vocab_size=tokenizer.vocab_size, tokens=tokens, sha256=digest.hexdigest())
