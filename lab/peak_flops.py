"""What a GPU can do at best: dense matrix FLOP/s by the name that the driver gives it, for the model FLOPs utilisation.

The figures are the manufacturer's, for bfloat16 with float32 accumulation and without sparsity; cards without bfloat16 stand
with float16, marked so. A GeForce card from Ampere on does twice its float32 rate there, half of what a professional card of
the same chip does; where cards share one name (RTX 3080), the smaller figure stands. A name matches as a whole, or not at all:
a laptop's, a slice's (MIG) or a virtual card's is another card. An unknown name has no figure, and then there is no
utilisation: never a guess.
"""

from __future__ import annotations

import re

_TERA = 1e12

# Name (a pattern that must match all of it, without "NVIDIA", "Tesla" and "GeForce") -> dense bfloat16 teraFLOP/s.
_BFLOAT16: tuple[tuple[str, float], ...] = (
    (r"GB300", 2500.0),
    (r"GB200", 2500.0),
    (r"B300( SXM\d AC)?", 2250.0),
    (r"B200", 2250.0),
    (r"B100", 1750.0),
    (r"GH200( \d+GB?( HBM3e?)?)?", 989.4),
    (r"H200 NVL", 835.5),
    (r"H200", 989.4),
    (r"H100 NVL", 835.5),
    (r"H100 PCIe", 756.0),
    (r"H100( SXM\d?)?( \d+GB)?( HBM3)?", 989.4),
    (r"H800 PCIe", 756.0),
    (r"H800", 989.4),
    (r"H20( \d+GB)?( HBM3e?)?", 148.0),
    (r"A[18]00-(SXM4|PCIE)-\d+GB", 312.0),
    (r"A[18]00 \d+GB PCIe", 312.0),
    (r"A30", 165.0),
    (r"A10G", 70.0),
    (r"A10", 125.0),
    (r"A40", 149.7),
    (r"A2", 18.0),
    (r"L40S", 362.0),
    (r"L40", 181.0),
    (r"L4", 121.0),
    (r"RTX A6000", 154.8),
    (r"RTX A5000", 111.1),
    (r"RTX PRO 6000 Blackwell Workstation Edition", 503.8),
    (r"RTX 6000 Ada Generation", 364.2),
    (r"RTX 5000 Ada Generation", 261.1),
    (r"RTX 5090", 209.5),
    (r"RTX 5080", 112.6),
    (r"RTX 5070 Ti", 87.9),
    (r"RTX 5070", 61.7),
    (r"RTX 5060 Ti", 47.4),
    (r"RTX 4090", 165.2),
    (r"RTX 4080 SUPER", 104.4),
    (r"RTX 4080", 97.5),
    (r"RTX 4070 Ti SUPER", 88.2),
    (r"RTX 4070 Ti", 80.2),
    (r"RTX 4070 SUPER", 71.0),
    (r"RTX 4070", 58.3),
    (r"RTX 4060 Ti", 44.1),
    (r"RTX 3090 Ti", 80.0),
    (r"RTX 3090", 71.0),
    (r"RTX 3080 Ti", 68.2),
    (r"RTX 3080", 59.5),
    (r"RTX 3070", 40.6),
    (r"RTX 3060 Ti", 32.4),
    (r"RTX 3060", 25.5),
)
_FLOAT16: tuple[tuple[str, float], ...] = (
    (r"T4", 65.0),
    (r"V100S-PCIE-\d+GB", 130.0),
    (r"V100-PCIE-\d+GB", 112.0),
    (r"V100-SXM\d-\d+GB(-LS)?", 125.0),
)
_PREFIX = re.compile(r"^(NVIDIA |Tesla |GeForce )+")


def peak_flops(device_name: str) -> float | None:
    """Return the dense FLOP/s of a device by its name, in bfloat16 or, where it has none, float16; None: not known."""
    name = _PREFIX.sub("", device_name.strip())
    if "MIG" in name.split():  # a slice of the card is not the card
        return None
    for pattern, teraflops in (*_BFLOAT16, *_FLOAT16):
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return teraflops * _TERA
    return None


def utilisation(*, forward_flops_per_token: float, tokens: int, seconds: float, device_name: str) -> float | None:
    """Return the model FLOPs utilisation of a training: forward and backward (3 forwards) against the device's best.

    None where the device is unknown, or where the inputs cannot be true (they come from the candidate's process).
    """
    peak = peak_flops(device_name)
    if peak is None or seconds <= 0:
        return None
    share = 3 * forward_flops_per_token * tokens / (seconds * peak)
    return share if 0 < share <= 1 else None
