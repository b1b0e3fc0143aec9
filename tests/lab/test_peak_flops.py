"""The best that a device can do: by its whole name, or not known."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.peak_flops import peak_flops, utilisation


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA B300 SXM6 AC", 2250.0),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA A40", 149.7),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L40S", 362.0),
        ("Tesla T4", 65.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA GeForce RTX 3060", 25.5),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88.2),
        ("NVIDIA GeForce RTX 4070", 58.3),
        ("NVIDIA GeForce RTX 4080", 97.5),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5080", 112.6),
        ("NVIDIA GeForce RTX 5090", 209.5),
    ],
)
def test_a_known_card_has_its_own_figure(name: str, teraflops: float) -> None:
    assert peak_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3070 Ti",
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A40-48Q",
        "GRID A100-10C",
        "NVIDIA L400",
        "NVIDIA B2000",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_a_card_that_only_resembles_a_known_one_has_none(name: str) -> None:
    assert peak_flops(name) is None


def test_utilisation_counts_a_training_token_as_three_forwards() -> None:
    share = utilisation(forward_flops_per_token=1e8, tokens=3_000_000, seconds=10.0, device_name="NVIDIA L4")
    assert share == pytest.approx(3 * 1e8 * 3e6 / (10.0 * 121e12))


@pytest.mark.parametrize(
    ("flops", "tokens", "seconds", "name"),
    [
        pytest.param(1e8, 10, 1.0, "an unknown card", id="unknown card"),
        pytest.param(1e8, 10, 0.0, "NVIDIA L4", id="no time"),
        pytest.param(1e8, 0, 1.0, "NVIDIA L4", id="no tokens"),
        pytest.param(1e18, 10**6, 1.0, "NVIDIA L4", id="more than the card can do"),
    ],
)
def test_what_cannot_be_true_has_no_utilisation(flops: float, tokens: int, seconds: float, name: str) -> None:
    assert utilisation(forward_flops_per_token=flops, tokens=tokens, seconds=seconds, device_name=name) is None
