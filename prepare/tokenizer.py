"""The byte-level BPE of a corpus: trained once, used at several nested vocabulary sizes, saved as JSON.

A ranks file holds a split pattern and token bytes in the order in which BPE found them. Vocabulary size V is the first V-1
of them, and id V-1 is BOS. That prefix is itself a valid BPE: a merge only joins tokens of lower rank. V = 257 is the bytes
and BOS.

Guarantees: loading never executes anything from the file (JSON and base64, no pickle); every valid text encodes and decodes
without loss, also one long run of spaces; `token_bytes` is exact, so bytes of text equal the sum over its tokens.
Not covered: special tokens written in text (they are encoded as ordinary text), and streaming decode.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BYTE_COUNT = 256
VOCAB_SIZES = (257, 512, 1024, 2048, 4096, 8192)
TOKENIZER_VARIABLE = "AUTORESEARCH_TOKENIZER"
FORMAT_VERSION = 1

# Letters with one leading other character, numbers by two digits, punctuation with a leading space and the line ends after it,
# white space up to and with a line end, then other white space (all but the last of it, which joins the next word).
# Runs of white space are bounded, because tiktoken's regex engine overflows its stack when it backtracks over a million.
SPLIT_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s{0,256}[\r\n]+"
    r"|\s{1,256}(?!\S)"
    r"|\s{1,256}"
)


def train_ranks(texts: Iterable[str], vocab_size: int = VOCAB_SIZES[-1]) -> list[bytes]:
    """Train a BPE for vocabularies up to ``vocab_size`` and return its tokens by rank: 256 bytes, then merges.

    The result depends only on the texts. It has ``vocab_size - 1`` tokens (BOS takes the last id), or fewer when the texts
    have nothing left to merge.
    """
    import rustbpe

    if vocab_size <= BYTE_COUNT:
        raise ValueError(f"vocab_size is {vocab_size}, must be at least {BYTE_COUNT + 1}: 256 bytes and BOS")
    trainer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]  (a compiled module without stubs)
    trainer.train_from_iterator(iter(texts), vocab_size - 1, pattern=SPLIT_PATTERN)
    by_rank = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
    return [bytes(token) for token, _ in by_rank]


def save_ranks(path: Path, ranks: Sequence[bytes]) -> None:
    """Write a ranks file atomically."""
    fields = {
        "format_version": FORMAT_VERSION,
        "pattern": SPLIT_PATTERN,
        "ranks": [base64.b64encode(token).decode("ascii") for token in ranks],
    }
    write_atomically(path, (json.dumps(fields, indent=0) + "\n").encode("ascii"))


def sizes_for(rank_count: int) -> tuple[int, ...]:
    """Return the vocabulary sizes that ``rank_count`` ranks are enough for, ascending."""
    return tuple(size for size in VOCAB_SIZES if size - 1 <= rank_count)


class Tokenizer:
    """One vocabulary size of a ranks file; encodes ordinary text, and adds no BOS by itself."""

    def __init__(self, ranks: Sequence[bytes], pattern: str, vocab_size: int) -> None:
        """Use the first ``vocab_size - 1`` of ``ranks``; raises ValueError for a size that is not prepared."""
        sizes = sizes_for(len(ranks))
        if vocab_size not in sizes:
            listed = ", ".join(map(str, sizes))
            raise ValueError(f"vocabulary size {vocab_size} is not prepared: choose one of {listed}")
        import tiktoken

        self.vocab_size = vocab_size
        self.bos_token_id = vocab_size - 1
        self._ranks = tuple(ranks[: vocab_size - 1])
        self._encoding = tiktoken.Encoding(
            name=f"autoresearch-{vocab_size}",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self._ranks)},
            special_tokens={"<|bos|>": self.bos_token_id},
            explicit_n_vocab=vocab_size,
        )

    @classmethod
    def from_file(cls, path: Path | str, vocab_size: int) -> Tokenizer:
        """Load one vocabulary size from a ranks file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a ranks file, or the size is not prepared (the text lists those that are).
        """
        ranks, pattern = _read_ranks(Path(path))
        return cls(ranks, pattern, vocab_size)

    @classmethod
    def load(cls, vocab_size: int) -> Tokenizer:
        """Load one vocabulary size of the tokenizer of the corpus under research; this is what `train.py` calls.

        The referee names the ranks file in the environment variable AUTORESEARCH_TOKENIZER.

        Raises:
            RuntimeError: the variable is not set, so this is no run of the referee.
            ValueError: the size is not prepared; the text lists those that are.
        """
        path = os.environ.get(TOKENIZER_VARIABLE)
        if not path:
            raise RuntimeError(
                f"{TOKENIZER_VARIABLE} is not set, so there is no tokenizer: train.py is started by the referee "
                "(`autoresearch run`, or the run_experiment tool), which sets it"
            )
        return cls.from_file(path, vocab_size)

    def get_vocab_size(self) -> int:
        """Return the number of ids, BOS included."""
        return self.vocab_size

    def get_bos_token_id(self) -> int:
        """Return the id that stands before every document and every row: the last one."""
        return self.bos_token_id

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without BOS. ``"<|bos|>"`` in the text is text."""
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 2) -> list[list[int]]:
        """Return the ids of each text, encoded by ``num_threads`` threads outside the interpreter lock."""
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=num_threads)

    def encode_arrays(self, texts: Sequence[str], num_threads: int = 2) -> list[npt.NDArray[np.uint16]]:
        """Return BOS and the ids of each text, uint16 ``[ids + 1]``; for much text, because no list is made of the ids."""
        import numpy as np

        def encode(text: str) -> npt.NDArray[np.uint16]:
            ids = self._encoding.encode_to_numpy(text, disallowed_special=())
            document = np.empty(len(ids) + 1, dtype=np.uint16)
            document[0], document[1:] = self.bos_token_id, ids
            return document

        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(encode, texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; BOS is nothing, and bytes that are not UTF-8 (a cut character) become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        return b"".join(self._token(index) for index in ids).decode("utf-8", errors="replace")

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.int32]:
        """How many bytes of text each id stands for, int32 ``[vocab_size]``; BOS stands for none."""
        import numpy as np

        lengths = np.array([*(len(token) for token in self._ranks), 0], dtype=np.int32)
        lengths.flags.writeable = False
        return lengths

    def _token(self, index: int) -> bytes:
        if index == self.bos_token_id:
            return b""
        if not 0 <= index < self.bos_token_id:
            raise ValueError(f"token id {index} is outside the vocabulary of {self.vocab_size}")
        return self._ranks[index]


def _read_ranks(path: Path) -> tuple[list[bytes], str]:
    try:
        fields: Any = json.loads(path.read_text(encoding="utf-8"))
        if fields["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version is {fields['format_version']!r}, this version reads {FORMAT_VERSION}")
        pattern = str(fields["pattern"])
        ranks = [base64.b64decode(token, validate=True) for token in fields["ranks"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a ranks file: {error!r}; run `autoresearch prepare --verify`") from error
    if ranks[:BYTE_COUNT] != [bytes([value]) for value in range(BYTE_COUNT)] or len(set(ranks)) != len(ranks):
        raise ValueError(
            f"{path} is not a ranks file: the ranks must begin with the 256 bytes in order and hold no token twice; "
            "run `autoresearch prepare --verify` to make it again"
        )
    return ranks, pattern
