"""The champion's claims, position by position: where a run claims to beat them, its audits go.

Each scored run leaves its claims in its folder, along the bytes of the scored text, because the next one may use another
vocabulary. They decide nothing but where audits go: a file that is gone or damaged costs sharpness, never a wrong number.
Whoever writes into the lab's state folder can move audits; the half of them that fall anywhere stays.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .windows import Rows

_MAX_ENTRIES = 1 << 23  # of one file; beyond, neighbours are added up


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Claims along the scored text: ``nats[i]`` float64 for the bytes from ``ends[i - 1]`` to ``ends[i]``."""

    nats: np.ndarray
    ends: np.ndarray

    def at(self, rows: Rows, token_bytes: np.ndarray) -> np.ndarray:
        """Return the nats of each position of ``rows``, float64 [rows, T]; a stretch's nats are spread evenly over it."""
        mask = rows.mask()
        borders = np.append(0, np.cumsum(token_bytes[rows.tokens[:, 1:][mask]]))
        total = np.interp(borders, np.append(0, self.ends), np.append(0.0, np.cumsum(self.nats)))
        result = np.zeros(mask.shape)
        result[mask] = np.diff(total)
        return result


def save_claims(path: Path, rows: Rows, claims: np.ndarray, token_bytes: np.ndarray) -> None:
    """Write ``claims`` (nats float64 [rows, T]) of the rows, which are in the order of the text."""
    mask = rows.mask()
    sizes, nats = token_bytes[rows.tokens[:, 1:][mask]].astype(np.int64), claims[mask]
    starts = np.arange(0, len(nats), -(-len(nats) // _MAX_ENTRIES))
    np.savez(
        path, nats=np.add.reduceat(nats, starts).astype(np.float32), sizes=np.add.reduceat(sizes, starts).astype(np.uint32)
    )


def load_reference(path: Path, scored_bytes: int) -> Reference | None:
    """Read what `save_claims` wrote for the same text; None where it is missing, damaged, or of another text."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            nats, sizes = file["nats"], file["sizes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if nats.ndim != 1 or nats.shape != sizes.shape or nats.dtype != np.float32 or sizes.dtype != np.uint32:
        return None
    ends = np.cumsum(sizes.astype(np.int64))
    if len(ends) == 0 or ends[-1] != scored_bytes or not np.isfinite(nats).all():
        return None
    return Reference(nats=np.clip(nats.astype(np.float64), 0.0, None), ends=ends)


def claimed_gains(
    rows: Rows, claims: np.ndarray, *, champion: np.ndarray | None, champion_windows: tuple[float, ...]
) -> np.ndarray:
    """Return what a run claims to gain at each position, nats float64 [rows, T], nowhere negative.

    ``champion`` are its nats at the same positions. Where they are not known, ``champion_windows``, its nats of each window,
    spread a window's gain evenly; where nothing is known the gains are zero.
    """
    if champion is not None:
        return np.clip(champion - claims, 0.0, None)
    window_nats = np.bincount(rows.window, weights=claims.sum(axis=1))
    if len(champion_windows) != len(window_nats):
        return np.zeros_like(claims)
    gain = np.clip(np.array(champion_windows) - window_nats, 0.0, None)
    tokens = np.bincount(rows.window, weights=rows.scored.astype(np.float64))
    return (gain / np.maximum(tokens, 1.0))[rows.window][:, None] * rows.mask()
