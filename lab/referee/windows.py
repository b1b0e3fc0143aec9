"""What is scored: which bytes of a held-out split, and how they become rows of tokens.

Windows start and end at line borders inside one document; they are drawn once for a lab and a split by its secret, never
overlap, and do not depend on the vocabulary, so every candidate is scored on exactly the same bytes. Each window is encoded
alone and cut into rows of the context length: BOS first, right-padded with training text, padding not scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...prepare.tokenizer import Tokenizer
from ..executor import HeldOutSplit

_SHORTEST_SHARE = 0.25  # of the window size; the rest of a document that is shorter is left out
_LONGEST_SHARE = 2.0  # a window with a very long line is left out
_STEP_BYTES = 1 << 18  # encoded at once: a twentieth of a second
_NAMES: dict[HeldOutSplit, str] = {"val": "validation", "test": "test"}

_Result = TypeVar("_Result")
Steps = Generator[None, None, _Result]  # work in small steps; what it comes to is the generator's return value


class NoWindowsError(Exception):
    """Nothing of the split can be scored; the text says why and names the next step."""


def draw_windows(
    text: np.ndarray,
    offsets: np.ndarray,
    *,
    secret: bytes,
    total_bytes: int,
    window_bytes: int,
    split: HeldOutSplit = "val",
) -> Steps[list[tuple[int, int]]]:
    """Find (start, end) byte ranges of ``text`` (uint8), about ``total_bytes`` in all, in the order of the text.

    ``offsets`` (int64, documents + 1) are the borders of the documents; each is a step. Deterministic for one secret and
    ``split``, whose text this is.
    Raises `NoWindowsError` where no document gives a window.
    """
    windows = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        windows += _cut_document(text, start, end, window_bytes)
        yield
    if not windows:
        raise NoWindowsError(_no_windows(offsets, window_bytes, split))
    seed = int.from_bytes(hashlib.sha256(secret + f"{_NAMES[split]} windows".encode()).digest()[:16], "big")
    size = sum(right - left for left, right in windows)
    count = min(len(windows), max(1, round(len(windows) * total_bytes / size)))
    # One window from each of as many equal stretches of the split: all of it is covered, whatever the secret, so that the
    # labs of two people differ little in how hard their text is.
    edges = np.linspace(0, len(windows), count + 1).round().astype(np.int64)
    chosen = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    return [windows[index] for index in chosen.tolist()]


def require_windows(offsets: np.ndarray, *, window_bytes: int, split: HeldOutSplit = "val") -> None:
    """Raise `NoWindowsError` where every document is too short for a window; told without reading the text."""
    if int(np.diff(offsets).max(initial=0)) < _SHORTEST_SHARE * window_bytes:
        raise NoWindowsError(_no_windows(offsets, window_bytes, split))


def _no_windows(offsets: np.ndarray, window_bytes: int, split: HeldOutSplit) -> str:
    longest = int(np.diff(offsets).max(initial=0))
    return (
        f"no document of the {_NAMES[split]} split can be scored: the longest has {longest:,} bytes, and a window has "
        f"{int(_SHORTEST_SHARE * window_bytes):,} to {int(_LONGEST_SHARE * window_bytes):,} and ends with a line. Name another "
        "corpus as [corpus] name in autoresearch.toml, with longer documents or shorter lines, or the other profile"
    )


def _cut_document(text: np.ndarray, start: int, end: int, window_bytes: int) -> list[tuple[int, int]]:
    """Cut one document at the line borders that first reach the window size."""
    borders = start + 1 + np.flatnonzero(text[start:end] == ord("\n"))
    if len(borders) == 0 or borders[-1] != end:
        borders = np.append(borders, end)
    windows, left = [], start
    while left < end:
        right = int(borders[min(np.searchsorted(borders, left + window_bytes), len(borders) - 1)])
        if _SHORTEST_SHARE * window_bytes <= right - left <= _LONGEST_SHARE * window_bytes:
            windows.append((left, right))
        left = right
    return windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The windows as rows of one vocabulary."""

    tokens: np.ndarray  # int32 [rows, T + 1]: BOS, then T targets; the last inputs are the first T columns
    scored: np.ndarray  # int64 [rows]: how many targets of each row count; the rest is padding
    window: np.ndarray  # int64 [rows]: which window a row belongs to
    scored_bytes: int  # exact bytes of the scored text

    @property
    def scored_tokens(self) -> int:
        return int(self.scored.sum())

    def mask(self) -> np.ndarray:
        """Return bool [rows, T]: True where a target counts."""
        return np.arange(self.tokens.shape[1] - 1) < self.scored[:, None]


def encode_rows(
    text: np.ndarray,
    windows: list[tuple[int, int]],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    padding: np.ndarray,
    rng: np.random.Generator,
) -> Steps[Rows]:
    """Encode ``windows`` of ``text`` and cut them into rows; ``padding`` are tokens of the training split (uint16).

    A step encodes `_STEP_BYTES`, which also bounds the memory beside the rows.
    """
    blocks, scored, window, counted = [], [], [], 0
    for step in _steps(windows):
        encoded = tokenizer.encode_batch([text[start:end].tobytes().decode() for start, end in step], num_threads=2)
        for ids in encoded:
            targets = np.array(ids, dtype=np.int32)
            counted += int(tokenizer.token_bytes[targets].sum())
            count = -(-len(targets) // context_length)
            fill = count * context_length - len(targets)
            offset = int(rng.integers(0, len(padding) - fill))
            block = np.empty((count, context_length + 1), dtype=np.int32)
            block[:, 0] = tokenizer.bos_token_id
            block[:, 1:] = np.append(targets, padding[offset : offset + fill]).reshape(count, context_length)
            blocks.append(block)
            scored += [context_length] * (count - 1) + [context_length - fill]
            window += [len(blocks) - 1] * count
        yield
    scored_bytes = sum(end - start for start, end in windows)
    if counted != scored_bytes:
        raise ValueError(f"the rows hold {counted} bytes, the windows {scored_bytes}: the tokenizer is not lossless")
    return Rows(tokens=np.concatenate(blocks), scored=np.array(scored), window=np.array(window), scored_bytes=scored_bytes)


def _steps(windows: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    step, size = [], 0
    for start, end in windows:
        step.append((start, end))
        size += end - start
        if size >= _STEP_BYTES:
            yield step
            step, size = [], 0
    if step:
        yield step
