from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from autoresearch_mcp.prepare.loader import Windows, token_batches, token_windows
from autoresearch_mcp.prepare.prefetch import BUFFERS, prefetched, widened

BOS = 60_001
B, T = 4, 8
Copied = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def tokens() -> np.ndarray:
    """Ids of every size that 16 bits can have, also those that are negative as int16."""
    return np.random.default_rng(1).integers(0, 60_000, 3000).astype(np.uint16)


def buffers() -> list[torch.Tensor]:
    return [torch.empty((B, T), dtype=torch.int16) for _ in range(BUFFERS)]


def at_once(buffer: torch.Tensor) -> tuple[Copied, Callable[[], None]]:
    return widened(buffer.clone(), BOS), lambda: None


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_batches_are_those_of_the_loader_in_its_order_through_several_epochs(tokens: np.ndarray):
    plain = token_batches(tokens, B, T, BOS, seed=3)
    ahead = prefetched(token_windows(tokens, B, T, seed=3), buffers(), at_once)
    for (inputs, targets, epoch), ((x, y), its_epoch) in islice(zip(plain, ahead, strict=True), 300):
        assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
        assert np.array_equal(x.numpy(), inputs)
        assert np.array_equal(y.numpy(), targets)
        assert its_epoch == epoch
    assert next(ahead)[1] > 2


def test_a_buffer_is_not_written_again_before_its_copy_is_done(tokens: np.ndarray):
    """A copy here reads its buffer only when it is waited for, as late as a device may."""
    arrived: list[Copied] = []

    def late(buffer: torch.Tensor) -> tuple[None, Callable[[], None]]:
        return None, lambda: arrived.append(widened(buffer.clone(), BOS))

    ahead = prefetched(token_windows(tokens, B, T, seed=3), buffers(), late)
    for _ in range(200):
        next(ahead)
    plain = token_batches(tokens, B, T, BOS, seed=3)
    assert len(arrived) == 198  # two copies may go on
    for (x, y), (inputs, targets, _) in zip(arrived, plain, strict=False):
        assert np.array_equal(y.numpy(), targets)
        assert np.array_equal(x.numpy(), inputs)


def test_what_fails_in_the_thread_is_raised_behind_the_batches_before_it(tokens: np.ndarray):
    def failing() -> Iterator[Windows]:
        yield from islice(token_windows(tokens, B, T, seed=3), 2)
        raise OSError("the disk is gone")

    ahead = prefetched(failing(), buffers(), at_once)
    next(ahead)
    next(ahead)
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_the_thread_is_never_far_ahead_and_keeps_no_process_alive(tokens: np.ndarray):
    taken = 0

    def counted() -> Iterator[Windows]:
        nonlocal taken
        for windows in token_windows(tokens, B, T, seed=3):
            taken += 1
            yield windows

    ahead = prefetched(counted(), buffers(), at_once)
    for handed_out in range(1, 100):
        next(ahead)
        assert taken <= handed_out + BUFFERS + 1
    assert all(thread.daemon for thread in prefetch_threads())


def test_closing_the_iterator_ends_the_thread(tokens: np.ndarray):
    before = set(prefetch_threads())
    ahead = prefetched(token_windows(tokens, B, T, seed=3), buffers(), at_once)
    next(ahead)
    (thread,) = set(prefetch_threads()) - before
    ahead.close()  # pyright: ignore[reportAttributeAccessIssue]
    thread.join(timeout=10.0)
    assert not thread.is_alive()


def test_a_shape_that_the_store_cannot_fill_is_refused_before_anything_begins(tokens: np.ndarray):
    with pytest.raises(ValueError, match="too small"):
        token_windows(tokens, 1000, T, seed=3)
