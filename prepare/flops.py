"""What one forward of a model costs in floating-point operations, by the formulas of `torch.utils.flop_counter`.

Counted are matrix products, convolutions and fused attention (the whole square: a causal mask is not subtracted), a
multiply-add as two. Not counted: elementwise work, and kernels that torch does not know, such as a candidate's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


def forward_flops_per_token(model: torch.nn.Module, length: int, device: str) -> float | None:
    """Return the FLOPs of ``model`` on one row of ``length`` random tokens, per token; None where they cannot be counted."""
    inputs = torch.randint(256, (1, length), device=device)
    try:
        with torch.no_grad(), _Count() as count:
            model(inputs)
    except Exception:  # noqa: BLE001 - a candidate's model may not bear to be watched, which is no fault
        return None
    return count.flops / length if count.flops else None


def _cpu_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention, **flop_registry}


class _Count(TorchDispatchMode):
    """Adds up the operators that pass. torch's own counter imports torch._dynamo at its first operator, which takes 1.7 s."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(getattr(func, "overloadpacket", None))
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        return result
