"""The manifest of a prepared corpus: what it holds, with the SHA-256 of everything, as one JSON file.

Guarantees: a loaded manifest has every field, of the right type, and a corpus id that matches them. The corpus id names what
numbers depend on (the bytes of each split, where documents end, the tokenizer), so two corpora with one id give comparable
numbers; where the text came from, which tools built it, and what was measured about it, is recorded beside but does not enter
the id.
Not covered: whether the files still have those hashes; `Corpus.verify` reads them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import CorpusDamagedError
from .files import write_atomically
from .sources import HELD_OUT_SPLITS, SPLITS, Project, Split

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """One split: its size, and the SHA-256 of its text file and of its offsets file."""

    documents: int
    text_bytes: int
    text_sha256: str
    offsets_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapRecord:
    """The share (0 to 1) of the 13-token shingles of a held-out split that occur in train.

    ``distinct_share`` counts every different shingle once; it says how much was copied, and is what the limit is about.
    ``occurrence_share`` counts every place where one stands; rulers such as a line of ``#`` and idioms weigh most there.
    ``sampled_share`` is the share of all shingles that was looked at: 1 is exact, less is an estimate from a fixed sample.
    """

    distinct_share: float
    occurrence_share: float
    sampled_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a corpus folder holds.

    Attributes:
        corpus_name: the name it was prepared under, such as ``wheels``.
        source: the key of the `CorpusSource` it was made from; a prepared corpus is recognised by it.
        projects: what the source gave, in the order in which it is stored.
        splits: one record each for train, val and test.
        tokenizer_sha256: of the ranks file.
        bytes_per_token: for each prepared vocabulary size, measured on a sample of val.
        overlap_with_train: one record each for val and test.
        tool_versions: the programs that built it.
    """

    corpus_name: str
    source: str
    projects: tuple[Project, ...]
    splits: dict[Split, SplitRecord]
    tokenizer_sha256: str
    bytes_per_token: dict[int, float]
    overlap_with_train: dict[Split, OverlapRecord]
    tool_versions: dict[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The vocabulary sizes this corpus can be encoded with, ascending."""
        return tuple(sorted(self.bytes_per_token))

    @property
    def corpus_id(self) -> str:
        """16 hex digits that change when numbers measured on the corpus would."""
        depends_on = {
            "splits": {name: asdict(record) for name, record in self.splits.items()},
            "tokenizer_sha256": self.tokenizer_sha256,
            "vocab_sizes": self.vocab_sizes,
        }
        canonical = json.dumps(depends_on, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the manifest atomically as JSON, with its corpus id."""
        fields = {"corpus_id": self.corpus_id, **asdict(self)}
        write_atomically(path, (json.dumps(fields, indent=1) + "\n").encode())

    @staticmethod
    def load(path: Path) -> Manifest:
        """Read and check a manifest.

        Raises:
            FileNotFoundError: there is no such file.
            CorpusDamagedError: it is not a manifest of this format; the text names the file and what is wrong.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            manifest = _from_fields(fields)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise CorpusDamagedError(
                f"the corpus manifest {path} cannot be used: {reason}; run `autoresearch prepare` to make the corpus again"
            ) from error
        return manifest


def _from_fields(fields: Any) -> Manifest:
    if not isinstance(fields, dict):
        raise TypeError(f"it holds a {type(fields).__name__}, not an object")
    if fields["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version is {fields['format_version']!r}, this version reads {FORMAT_VERSION}")
    splits = _typed(fields, "splits", dict)
    if set(splits) != set(SPLITS):
        raise ValueError(f"splits are {sorted(splits)}, must be {sorted(SPLITS)}")
    overlap = _typed(fields, "overlap_with_train", dict)
    manifest = Manifest(
        corpus_name=_typed(fields, "corpus_name", str),
        source=_typed(fields, "source", str),
        projects=tuple(
            Project(
                name=_typed(project, "name", str),
                version=_typed(project, "version", str),
                sha256=_hash(project, "sha256"),
                split=_typed(project, "split", str),
            )
            for project in _typed(fields, "projects", list)
        ),
        splits={
            name: SplitRecord(
                documents=_typed(splits[name], "documents", int),
                text_bytes=_typed(splits[name], "text_bytes", int),
                text_sha256=_hash(splits[name], "text_sha256"),
                offsets_sha256=_hash(splits[name], "offsets_sha256"),
            )
            for name in SPLITS
        },
        tokenizer_sha256=_hash(fields, "tokenizer_sha256"),
        bytes_per_token={int(size): float(value) for size, value in _typed(fields, "bytes_per_token", dict).items()},
        overlap_with_train={
            split: OverlapRecord(
                distinct_share=_typed(overlap[split], "distinct_share", float),
                occurrence_share=_typed(overlap[split], "occurrence_share", float),
                sampled_share=_typed(overlap[split], "sampled_share", float),
            )
            for split in HELD_OUT_SPLITS
        },
        tool_versions=_typed(fields, "tool_versions", dict),
    )
    if fields["corpus_id"] != manifest.corpus_id:
        raise ValueError(f"corpus_id is {fields['corpus_id']!r}, the fields give {manifest.corpus_id!r}")
    return manifest


def _typed(fields: Any, key: str, expected: type) -> Any:
    if not isinstance(fields, dict):
        raise TypeError(f"found {type(fields).__name__} where an object with {key!r} belongs")
    value = fields[key]
    if not isinstance(value, expected):
        raise TypeError(f"{key} is {value!r}, must be a {expected.__name__}")
    return value


def _hash(fields: Any, key: str) -> str:
    value = _typed(fields, key, str)
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{key} is {value!r}, must be 64 hex digits")
    return value
