"""Prepared corpora: the text of three splits, a tokenizer, token stores and a manifest, in one folder of the cache.

    <cache root>/<name>/manifest.json        what is here, with hashes; written last
                        {train,val,test}.txt       the documents, one after another, UTF-8
                        {train,val,test}.offsets   where each starts, and the end of the last, little-endian int64
                        tokenizer.json             BPE ranks
                        stores/train-<size>.bin    token stores, made when first needed

This module opens them; `building` makes them. Guarantees: a corpus that opens has every file, of the size in the manifest, and
the manifest's tokenizer. Not covered: text that was changed in place keeping its size, until `Corpus.verify` reads everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from .errors import CorpusDamagedError, CorpusMissingError
from .files import sha256_file
from .manifest import Manifest
from .sources import Split
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CACHE_VARIABLE = "AUTORESEARCH_CACHE"
DEFAULT_CORPUS = "wheels"

_FETCHED_SOURCES = ("wheels:", "hub:")  # kinds of source that a name is enough for; other text lies in a folder
_OFFSET_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A prepared corpus on disk; opened by `open_corpus`, made by `building.prepare_corpus`."""

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

    @property
    def repair_command(self) -> str:
        """The command that makes it again where a file is damaged."""
        named = "" if self.name == DEFAULT_CORPUS else f" --corpus {self.name}"
        folder = "" if self.manifest.source.startswith(_FETCHED_SOURCES) else " --from DIR"
        return f"autoresearch prepare{named}{folder} --verify"

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
                    raise _damaged(self, self.path / file_name, "its bytes are not those in the manifest")
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
        ValueError: no corpus can have that name.
        CorpusMissingError: nothing is prepared under that name; the text names the command.
        CorpusDamagedError: a file is not what the manifest says.
    """
    path = corpus_path(name)
    try:
        manifest = Manifest.load(path / "manifest.json")
    except (FileNotFoundError, NotADirectoryError) as error:
        command = "autoresearch prepare" if name == DEFAULT_CORPUS else f"autoresearch prepare --corpus {name}"
        raise CorpusMissingError(f"the corpus {name!r} is not prepared (looked in {path}): run `{command}`") from error
    corpus = Corpus(name=name, path=path, manifest=manifest)
    for split, record in manifest.splits.items():
        sizes = {f"{split}.txt": record.text_bytes, f"{split}.offsets": _OFFSET_BYTES * (record.documents + 1)}
        for file_name, expected_bytes in sizes.items():
            file = path / file_name
            found_bytes = file.stat().st_size if file.is_file() else None
            if found_bytes != expected_bytes:
                found = "is missing" if found_bytes is None else f"has {found_bytes} bytes"
                raise _damaged(corpus, file, f"it {found}, the manifest says {expected_bytes} bytes")
    if not corpus.tokenizer_path.is_file() or sha256_file(corpus.tokenizer_path) != manifest.tokenizer_sha256:
        raise _damaged(corpus, corpus.tokenizer_path, "it is not the tokenizer in the manifest")
    return corpus


def _damaged(corpus: Corpus, path: Path, reason: str) -> CorpusDamagedError:
    return CorpusDamagedError(f"{path} is damaged: {reason}; run `{corpus.repair_command}` to make it again")
