"""The sizes that train.py takes give way to the memory it finds: rows first, then depth."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from .loading import load


@pytest.fixture(scope="module")
def train() -> ModuleType:
    return load()


def device_of(cells: int, tried: list[tuple[int, int]], message: str = "CUDA out of memory. Tried to allocate") -> Callable:
    """A step on a device that holds ``cells`` rows of one block."""

    def step(depth: int, rows: int) -> tuple[int, int]:
        tried.append((depth, rows))
        if depth * rows > cells:
            raise torch.OutOfMemoryError(message)
        return depth, rows

    return step


@pytest.mark.parametrize(
    ("cells", "fits"),
    [(10**6, (8, 64)), (512, (8, 64)), (511, (8, 32)), (64, (8, 8)), (8, (8, 1)), (7, (7, 1)), (1, (1, 1))],
)
def test_rows_are_halved_and_then_blocks_left_out_until_a_step_fits(train: ModuleType, cells: int, fits: object) -> None:
    tried: list[tuple[int, int]] = []
    assert train.first_that_fits(train.sizes_to_try(8, 64), device_of(cells, tried)) == fits
    assert tried[0] == (8, 64)
    assert tried[-1] == fits
    assert len(set(tried)) == len(tried)


def test_what_did_not_fit_is_said(train: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    train.first_that_fits(train.sizes_to_try(8, 64), device_of(300, []))
    assert capsys.readouterr().out == "depth 8 with 64 rows does not fit: CUDA out of memory. Tried to allocate\n"


def test_a_device_for_not_even_one_row_ends_the_run_with_what_to_change(train: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"not even one block and one row of 32 tokens fit: make WIDTH or VOCAB_SIZE smaller"):
        train.first_that_fits(train.sizes_to_try(8, 64), device_of(0, []))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes",
    ],
)
def test_memory_that_runs_out_below_torch_counts_too(train: ModuleType, message: str) -> None:
    assert train.is_out_of_memory(RuntimeError(message))


def test_another_error_is_not_taken_for_a_lack_of_memory(train: ModuleType) -> None:
    def step(depth: int, rows: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train.first_that_fits(train.sizes_to_try(8, 64), step)


def test_a_failed_attempt_leaves_nothing_behind(train: ModuleType) -> None:
    alive: list[int] = []

    class Held:
        def __del__(self) -> None:
            alive.pop()

    def step(depth: int, rows: int) -> int:
        held = Held()
        alive.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("out of memory")
        assert len(alive) == 1, "what a larger attempt had built is still there"
        del held
        return rows

    assert train.first_that_fits(train.sizes_to_try(1, 16), step) == 2


def test_what_a_row_keeps_grows_with_rows_and_depth_and_shrinks_with_the_fused_loss(train: ModuleType) -> None:
    shallow, deep = train.GPT(512, 1), train.GPT(512, 3)
    row = train.kept_bytes(shallow, 2) - train.kept_bytes(shallow, 1)
    assert train.kept_bytes(shallow, 4) - train.kept_bytes(shallow, 2) == pytest.approx(2 * row, rel=0.01)
    assert train.kept_bytes(deep, 2) - train.kept_bytes(deep, 1) > 2 * row / 3 * 2
    train.cross_entropy = train.fused_cross_entropy
    fused = train.kept_bytes(shallow, 2) - train.kept_bytes(shallow, 1)
    train.cross_entropy = train.plain_cross_entropy
    logits = 32 * 512 * 4
    assert row - fused >= 2 * logits


def test_a_step_that_a_cpu_would_be_killed_for_is_refused_before_it_runs(train: ModuleType) -> None:
    model = train.GPT(512, 2)
    state = 16 * sum(p.numel() for p in model.parameters())
    row = train.kept_bytes(model, 2) - train.kept_bytes(model, 1)
    train.MEMORY_BYTES = int((state + 4 * row) / train.MEMORY_SHARE) + 16
    train.require_memory(model, 4)
    with pytest.raises(torch.OutOfMemoryError, match=r"MB of weights and optimizer state and 5 rows of .* more than 50%"):
        train.require_memory(model, 5)
    train.MEMORY_BYTES = int(state / train.MEMORY_SHARE) - 16
    with pytest.raises(torch.OutOfMemoryError):
        train.require_memory(model, 1)
