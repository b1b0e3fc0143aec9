"""Batches for a device that copies by itself: gathered ahead in a thread, into buffers that are allocated once.

The thread gathers the next batches while the device works, also from a disk that makes it wait. The buffers are few, so it is
never far ahead. Guarantees: the batches of `loader.token_windows`, in its order; a buffer is written again only when the copy
out of it is done; what fails in the thread is raised where the next batch is asked for; the thread keeps no process alive, and
ends when the iterator is closed. Only the thread that asks for batches calls the device, whose name is not known here: what
copies is passed in.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from .loader import Windows

T = TypeVar("T")

BUFFERS = 4  # two that are copied, two that wait or are filled
_COPIES = 2  # that may go on; so a device that is behind is waited for, and has two batches to work on meanwhile

# Starts the copy of a buffer, int16 [B, T] with the bits of the uint16 targets. Returns what the batch becomes, and a function
# that returns when the buffer may be written again.
Copy = Callable[[torch.Tensor], tuple[T, Callable[[], None]]]


def prefetched(windows: Iterator[Windows], buffers: Sequence[torch.Tensor], copy: Copy[T]) -> Iterator[tuple[T, int]]:
    """Yield ``(copied batch, epoch)``; ``buffers`` are `BUFFERS` of int16 ``[B, T]``, and belong to the iterator."""
    free: queue.SimpleQueue[torch.Tensor | None] = queue.SimpleQueue()
    filled: queue.SimpleQueue[tuple[torch.Tensor, int] | BaseException] = queue.SimpleQueue()  # bounded by the buffers
    for buffer in buffers:
        free.put(buffer)

    def gather() -> None:
        try:
            for table, rows, epoch in windows:
                buffer = free.get()
                if buffer is None:
                    return
                targets: npt.NDArray[np.uint16] = buffer.numpy().view(np.uint16)
                np.take(table, rows, axis=0, out=targets, mode="clip")  # "raise" would gather elsewhere first
                filled.put((buffer, epoch))
            raise RuntimeError("the batches ended")
        except BaseException as error:  # noqa: BLE001 - raised where the next batch is asked for
            filled.put(error)

    copies: deque[tuple[torch.Tensor, Callable[[], None]]] = deque()
    threading.Thread(target=gather, name="prefetch", daemon=True).start()
    try:
        while True:
            ready = filled.get()
            if isinstance(ready, BaseException):
                raise ready
            buffer, epoch = ready
            batch, wait_for_copy = copy(buffer)
            copies.append((buffer, wait_for_copy))
            if len(copies) > _COPIES:
                copied, wait_for_copy = copies.popleft()
                wait_for_copy()
                free.put(copied)
            yield batch, epoch
    finally:
        free.put(None)


def widened(narrow: torch.Tensor, bos_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(inputs, targets)``, int64 [B, T], of targets that are int16 with the bits of uint16; inputs begin with BOS."""
    targets = narrow.to(torch.int64).bitwise_and_(0xFFFF)
    inputs = torch.empty_like(targets)
    inputs[:, 0] = bos_token_id
    inputs[:, 1:] = targets[:, :-1]
    return inputs, targets
