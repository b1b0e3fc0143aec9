"""What train.py tries on the machine at hand: the quickest is taken, and two runs take the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .loading import load


@pytest.fixture(scope="module")
def train() -> ModuleType:
    return load()


class Clock:
    """A clock that only candidates move."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], None]:
        """A candidate whose first call takes the first of ``seconds``, and so on; the last from then on."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    return clock


def test_the_quickest_is_taken_and_the_reason_printed(
    train: ModuleType, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.fastest("attention", {"plain": clock.taking(0.004), "sdpa": clock.taking(0.0031)}) == "sdpa"
    assert capsys.readouterr().out == "attention: plain 4.00 ms, sdpa 3.10 ms -> sdpa\n"


def test_what_is_nearly_as_quick_is_a_tie_and_goes_to_the_first(train: ModuleType, clock: Clock) -> None:
    assert train.fastest("loss", {"plain": clock.taking(1.04), "fused": clock.taking(1.0)}) == "plain"
    assert train.fastest("loss", {"plain": clock.taking(1.06), "fused": clock.taking(1.0)}) == "fused"


def test_a_slow_first_call_and_a_disturbed_one_do_not_count(train: ModuleType, clock: Clock) -> None:
    assert train.fastest("loss", {"plain": clock.taking(2.0), "fused": clock.taking(90.0, 3.0, 50.0, 1.0)}) == "fused"


def test_a_candidate_that_cannot_run_here_is_left_out(
    train: ModuleType, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise RuntimeError("No available kernel. Aborting execution.")

    assert train.fastest("attention", {"cudnn": absent, "flash": clock.taking(1.0)}) == "flash"
    assert "cudnn does not run, flash 1000.00 ms -> flash" in capsys.readouterr().out


def test_a_mistake_in_a_candidate_is_not_hidden(train: ModuleType) -> None:
    with pytest.raises(TypeError):
        train.fastest("loss", {"plain": partial(len)})


def test_bfloat16_that_a_cpu_only_emulates_is_not_taken(train: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    capabilities = torch.cpu.get_capabilities()
    dtype = train.choose_dtype()
    assert re.search(r"float32 \S+ ms, bfloat16 \S+ ms -> b?float", capsys.readouterr().out)
    if capabilities["architecture"] == "x86_64" and not (capabilities["avx512_bf16"] or capabilities["amx_bf16"]):
        assert dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_attentions_give_the_same(train: ModuleType, dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 2, 32, 16).to(dtype)
    train_head_dim, train.HEAD_DIM = train.HEAD_DIM, 16
    plain = train.plain_attention(q, k, v, train.causal_mask(32, dtype))
    train.HEAD_DIM = train_head_dim
    torch.testing.assert_close(plain, train.fused_attention(q, k, v, None), rtol=2e-2, atol=2e-2)


def test_kernels_that_a_device_lacks_come_after_the_one_it_has(train: ModuleType) -> None:
    q, k, v = torch.randn(3, 2, 2, 32, 16)
    order = train.attention_kernels(q, k, v)
    assert order[0] == SDPBackend.FLASH_ATTENTION  # a CPU has no cuDNN, and no memory-efficient kernel
    assert set(order) == set(train.GPU_ATTENTION.values())
    with sdpa_kernel(order, set_priority=True):
        assert train.fused_attention(q, k, v, None).shape == q.shape


def test_attention_and_loss_are_chosen_among_the_pieces_that_the_model_uses(train: ModuleType) -> None:
    assert train.choose_attention() in (train.plain_attention, train.fused_attention)
    assert train.choose_loss(256, compiled=False) in (train.plain_cross_entropy, train.fused_cross_entropy)
