"""Numbers that a candidate's process counted, as they came with its hand-off: checked for type and range, never for truth.

They describe a run for people (tokens, FLOPs, memory) and decide nothing. What is no number, or cannot be one, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..peak_flops import utilisation

_LARGEST = 2**63
_FRACTIONAL = ("forward_flops_per_token", "allocated_gpu_memory_mb")


def advisory_numbers(header: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the advisory fields of a hand-off under the names that `RunResult` has for them."""
    numbers: dict[str, int | float] = {}
    tokens = header.get("train_tokens")
    if type(tokens) is int and 0 <= tokens < _LARGEST:
        numbers["train_tokens"] = tokens
    for name in _FRACTIONAL:
        value = header.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LARGEST:  # false for NaN, too
            numbers[name] = round(float(value), 1)
    return numbers


def model_flops_utilisation(handoff: Mapping[str, Any], *, seconds: float, device_name: str | None) -> float | None:
    """Return the share of the device's best that the training used; None where something it needs is not known."""
    tokens, flops = handoff.get("train_tokens"), handoff.get("forward_flops_per_token")
    if tokens is None or flops is None or device_name is None:
        return None
    share = utilisation(forward_flops_per_token=flops, tokens=tokens, seconds=seconds, device_name=device_name)
    return None if share is None else round(share, 4)
