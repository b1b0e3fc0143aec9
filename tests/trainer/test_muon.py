"""Muon's orthogonalisation: the same directions, every singular value about 1, in both ways of computing it."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from .loading import load


@pytest.fixture(scope="module")
def train() -> ModuleType:
    return load()


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 32, 256)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
def test_singular_values_become_one_and_directions_stay(
    train: ModuleType, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    matrices = 1e-4 * torch.randn(shape)
    u, sizes, v = torch.linalg.svd(matrices, full_matrices=False)
    monkeypatch.setattr(train, "COMPUTE_DTYPE", dtype)
    moved = u.mT @ train.orthogonalise(matrices) @ v.mT
    one = sizes > 0.02 * sizes.amax(-1, keepdim=True)  # what is much smaller is only on its way
    assert one.float().mean() > 0.95
    assert (moved.diagonal(dim1=-2, dim2=-1)[one] - 1).abs().max() < 0.15 + tolerance
    assert (moved - torch.diag_embed(moved.diagonal(dim1=-2, dim2=-1))).abs().max() < tolerance


def test_a_matrix_without_full_rank_stays_without(train: ModuleType) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(1, 32, 4) @ torch.randn(1, 4, 64)
    assert torch.linalg.svdvals(train.orthogonalise(matrix))[0, 4:].max() < 0.02


def test_a_gradient_of_zeros_moves_nothing(train: ModuleType) -> None:
    assert train.orthogonalise(torch.zeros(2, 16, 32)).count_nonzero() == 0
