"""The champion's claims along the text: kept exactly, read back for any vocabulary, never believed when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.lab.referee import reference
from autoresearch_mcp.lab.referee.reference import claimed_gains, load_reference, save_claims
from autoresearch_mcp.lab.referee.windows import Rows
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus

from ...windows import draw_windows, encode_rows


@pytest.fixture(scope="module")
def corpus(tiny_corpus: str) -> Corpus:
    return open_corpus(tiny_corpus)


def rows_of(corpus: Corpus, vocab_size: int) -> tuple[Rows, np.ndarray]:
    text = corpus.text("val")
    windows = draw_windows(text, corpus.offsets("val"), secret=b"secret", total_bytes=20_000, window_bytes=512)
    padding = np.fromfile(corpus.token_store(vocab_size), dtype=np.uint16)
    tokenizer, rng = corpus.tokenizer(vocab_size), np.random.default_rng(0)
    rows = encode_rows(text, windows, tokenizer, context_length=64, padding=padding, rng=rng)
    return rows, tokenizer.token_bytes


def claims_of(rows: Rows) -> np.ndarray:
    return np.random.default_rng(1).exponential(3.0, (len(rows.scored), 64)) * rows.mask()


def test_claims_come_back_as_they_were(corpus: Corpus, tmp_path: Path) -> None:
    rows, token_bytes = rows_of(corpus, 2048)
    claims = claims_of(rows)
    save_claims(tmp_path / "claims.npz", rows, claims, token_bytes)
    found = load_reference(tmp_path / "claims.npz", rows.scored_bytes)
    assert found is not None
    assert np.allclose(found.at(rows, token_bytes), claims, atol=1e-3)
    assert not found.at(rows, token_bytes)[~rows.mask()].any()


def test_another_vocabulary_reads_the_same_nats_at_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    coarse, coarse_bytes = rows_of(corpus, 2048)
    fine, fine_bytes = rows_of(corpus, 257)
    claims = claims_of(coarse)
    save_claims(tmp_path / "claims.npz", coarse, claims, coarse_bytes)
    found = load_reference(tmp_path / "claims.npz", fine.scored_bytes)
    assert found is not None
    by_window = [np.bincount(rows.window, weights=nats.sum(axis=1)) for rows, nats in
                 ((coarse, claims), (fine, found.at(fine, fine_bytes)))]  # fmt: skip
    assert np.allclose(*by_window, atol=0.05)


def test_a_very_long_text_is_kept_in_sums_of_neighbours(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, token_bytes = rows_of(corpus, 2048)
    claims = claims_of(rows)
    monkeypatch.setattr(reference, "_MAX_ENTRIES", 1000)
    save_claims(tmp_path / "claims.npz", rows, claims, token_bytes)
    found = load_reference(tmp_path / "claims.npz", rows.scored_bytes)
    assert found is not None
    assert len(found.nats) <= 1000
    assert found.at(rows, token_bytes).sum() == pytest.approx(claims.sum(), rel=1e-5)


@pytest.mark.parametrize("damage", ["missing", "cut off", "text", "other text", "not finite", "pickle", "other shape"])
def test_a_file_that_cannot_be_right_is_left_alone(corpus: Corpus, tmp_path: Path, damage: str) -> None:
    rows, token_bytes = rows_of(corpus, 2048)
    path, scored_bytes = tmp_path / "claims.npz", rows.scored_bytes
    save_claims(path, rows, claims_of(rows), token_bytes)
    one = np.ones(1, np.float32)
    match damage:
        case "missing":
            path.unlink()
        case "cut off":
            path.write_bytes(path.read_bytes()[:1000])
        case "text":
            path.write_text("no claims")
        case "other text":
            scored_bytes += 1
        case "not finite":
            np.savez(path, nats=one * np.nan, sizes=np.array([scored_bytes], np.uint32))
        case "pickle":
            np.savez(path, nats=np.array([{"a": 1}], dtype=object), sizes=np.array([scored_bytes], np.uint32))
        case "other shape":
            np.savez(path, nats=np.ones(3, np.float32), sizes=np.array([scored_bytes], np.uint32))
    assert load_reference(path, scored_bytes) is None


def test_gains_are_where_the_claim_beats_the_champion(corpus: Corpus) -> None:
    rows, _ = rows_of(corpus, 2048)
    claims = claims_of(rows)
    champion = claims.copy()
    champion[3, 5] += 2.0
    champion[4, 5] -= 0.001
    gains = claimed_gains(rows, claims, champion=champion, champion_windows=())
    assert gains[3, 5] == pytest.approx(2.0)
    assert gains.sum() == pytest.approx(2.0)


def test_where_positions_are_not_known_a_windows_gain_is_spread_over_it(corpus: Corpus) -> None:
    rows, _ = rows_of(corpus, 2048)
    claims = claims_of(rows)
    windows = np.bincount(rows.window, weights=claims.sum(axis=1))
    windows[2] += 10.0
    gains = claimed_gains(rows, claims, champion=None, champion_windows=tuple(windows))
    inside = gains[rows.window == 2]
    assert inside.sum() == pytest.approx(10.0) == gains.sum()
    assert np.unique(inside[inside > 0].round(9)).size == 1
    assert not claimed_gains(rows, claims, champion=None, champion_windows=(1.0, 2.0)).any()
