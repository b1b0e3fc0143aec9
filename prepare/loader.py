"""Batches of training tokens from a memory-mapped store, by one gather per batch.

Every row is read as scoring reads it: the inputs are BOS and the first T-1 tokens of a window, the targets are its T tokens.
An epoch cuts the store into windows of T tokens that do not overlap, beginning at a random phase, and visits them in a random
order; so each token is a target at most once per epoch, and windows lie elsewhere in the next. Same seed, same batches.
Not seen in an epoch: fewer than T tokens at either end, and the windows that do not fill a last batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]


class Windows(NamedTuple):
    """Where the targets of one batch stand: ``table[rows]``, uint16 ``[B, T]``, whose rows are contiguous in the store."""

    table: npt.NDArray[np.uint16]  # [windows, T], a view of the store
    rows: npt.NDArray[np.int64]  # [B]
    epoch: int  # counts from 1


def token_batches(
    tokens: npt.NDArray[np.uint16], batch_size: int, sequence_length: int, bos_token_id: int, seed: int
) -> Iterator[Batch]:
    """Return an endless iterator of ``(inputs, targets, epoch)``: inputs and targets are int64 ``[B, T]``, fresh each time.

    ``bos_token_id`` is the first input of every row; everything else is as `token_windows` has it.
    """
    return _batches(token_windows(tokens, batch_size, sequence_length, seed), bos_token_id)


def token_windows(tokens: npt.NDArray[np.uint16], batch_size: int, sequence_length: int, seed: int) -> Iterator[Windows]:
    """Return an endless iterator of where each batch stands.

    Args:
        tokens: the token store, uint16 ``[tokens]``, usually a read-only memory map.
        batch_size: rows in a batch (B).
        sequence_length: tokens in a row (T).
        seed: decides phase and order of every epoch.

    Raises:
        ValueError: at once, when B or T is below 1, or the store cannot fill one batch.
    """
    if batch_size < 1 or sequence_length < 1:
        raise ValueError(
            f"batch_size and sequence_length must be at least 1, got {batch_size} and {sequence_length}: correct the call"
        )
    needed_tokens = batch_size * sequence_length + sequence_length - 1  # the phase may cost T-1 tokens
    if len(tokens) < needed_tokens:
        raise ValueError(
            f"the token store is too small: it has {len(tokens)} tokens, and batches of {batch_size} x {sequence_length} "
            f"need {needed_tokens}; use a smaller batch, a shorter sequence or a larger corpus"
        )
    return _epochs(tokens, batch_size, sequence_length, seed)


def _epochs(tokens: npt.NDArray[np.uint16], batch_size: int, sequence_length: int, seed: int) -> Iterator[Windows]:
    epoch = 1
    while True:
        random = np.random.default_rng([seed, epoch])
        phase = int(random.integers(sequence_length))
        windows = (len(tokens) - phase) // sequence_length
        table = tokens[phase : phase + windows * sequence_length].reshape(windows, sequence_length)
        order = random.permutation(windows)
        for first in range(0, windows - batch_size + 1, batch_size):
            yield Windows(table, order[first : first + batch_size], epoch)
        epoch += 1


def _batches(batches: Iterator[Windows], bos_token_id: int) -> Iterator[Batch]:
    for table, rows, epoch in batches:
        targets = table[rows].astype(np.int64)
        inputs = np.empty_like(targets)
        inputs[:, 0] = bos_token_id
        inputs[:, 1:] = targets[:, :-1]
        yield inputs, targets, epoch
