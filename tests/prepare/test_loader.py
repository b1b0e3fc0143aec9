from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile

import numpy as np
import pytest
from autoresearch_mcp.prepare.loader import token_batches

BOS = 9999
B, T = 4, 8


@pytest.fixture
def tokens() -> np.ndarray:
    """Every token is its own position, so a batch says where it was read."""
    return np.arange(1000, dtype=np.uint16)


def epoch_of(batches: Iterator, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x, y) for x, y, epoch in takewhile(lambda batch: batch[2] <= number, batches) if epoch == number]


def test_inputs_are_bos_and_the_targets_before_each(tokens: np.ndarray):
    inputs, targets, epoch = next(token_batches(tokens, B, T, BOS, seed=1))
    assert inputs.shape == targets.shape == (B, T)
    assert inputs.dtype == targets.dtype == np.int64
    assert epoch == 1
    assert (inputs[:, 0] == BOS).all()
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert (np.diff(targets, axis=1) == 1).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_epoch_shows_every_token_at_most_once_and_nearly_all_of_them(tokens: np.ndarray, number: int):
    seen = np.concatenate([y.ravel() for _, y in epoch_of(token_batches(tokens, B, T, BOS, seed=1), number)])
    assert len(seen) == len(set(seen.tolist()))
    assert len(seen) > len(tokens) - 2 * T - B * T


def test_epochs_count_from_one_and_differ_in_phase_and_order(tokens: np.ndarray):
    batches = list(islice(token_batches(tokens, B, T, BOS, seed=1), 100))
    epochs = [epoch for _, _, epoch in batches]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2, 3, 4}
    phases = {int(y[0, 0]) % T for _, y, _ in batches}
    assert len(phases) > 1
    starts = [y[:, 0] for _, y in epoch_of(token_batches(tokens, B, T, BOS, seed=1), 1)]
    assert (np.diff(np.concatenate(starts)) < 0).any()


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tokens: np.ndarray):
    def first(seed: int) -> list[list[int]]:
        return [y.ravel().tolist() for _, y, _ in islice(token_batches(tokens, B, T, BOS, seed=seed), 50)]

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_a_read_only_store_is_enough_and_batches_are_fresh_arrays(tokens: np.ndarray):
    tokens.flags.writeable = False
    batches = token_batches(tokens, B, T, BOS, seed=1)
    inputs, targets, _ = next(batches)
    inputs[:] = targets[:] = 0
    assert (next(batches)[1] > 0).any()


def test_the_smallest_store_that_fills_a_batch_at_any_phase_is_enough():
    needed = B * T + T - 1
    for seed in range(20):
        _, _, epoch = next(token_batches(np.zeros(needed, dtype=np.uint16), B, T, BOS, seed=seed))
        assert epoch == 1
    with pytest.raises(ValueError, match=f"has {needed - 1} tokens, and batches of 4 x 8 need {needed}"):
        token_batches(np.zeros(needed - 1, dtype=np.uint16), B, T, BOS, seed=1)


@pytest.mark.parametrize(("rows", "length"), [(0, 8), (4, 0), (-1, 8)])
def test_an_impossible_shape_is_refused_at_once(tokens: np.ndarray, rows: int, length: int):
    with pytest.raises(ValueError, match="at least 1"):
        token_batches(tokens, rows, length, BOS, seed=1)
