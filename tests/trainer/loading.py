"""Pieces of train.py, loaded without a referee: its source down to the line where the script begins to act."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

TRAIN = Path(os.environ.get("TRAIN_PY", Path(__file__).resolve().parents[2] / "trainer" / "train.py"))  # another to test it
CLOCK = "# Everything before the clock"


def edited(changes: dict[str, str], source: str | None = None) -> str:
    """Return train.py with each constant ``NAME`` of ``changes`` set to the code it names."""
    lines = (TRAIN.read_text() if source is None else source).splitlines(keepends=True)
    for name, value in changes.items():
        [index] = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[index] = f"{name} = {value}\n"
    return "".join(lines)


def load(*, profile: str = "cpu", memory_bytes: int = 8 << 30, **changes: str) -> ModuleType:
    """Return a module with all that train.py defines before it acts, for 32 tokens in a row on the CPU.

    What the script finds out by measuring is set to the plain choices: float32, sdpa, all logits at once.
    """
    harness = ModuleType("prepare")
    given: dict[str, Any] = {
        "DEVICE": "cpu", "MAX_SEQ_LEN": 32, "MEMORY_BYTES": memory_bytes, "PROFILE": profile, "SEED": 1, "TIME_BUDGET": 1.0,
    }  # fmt: skip
    vars(harness).update(given, synthetic_batch=lambda rows, length: torch.randint(256, (2, rows, length)).unbind())
    for name in ("Tokenizer", "evaluate_bpb", "make_dataloader", "rehearse", "report", "seconds_left"):
        setattr(harness, name, None)
    source, found, _ = edited(changes).partition(CLOCK)
    assert found
    module = sys.modules["loaded_train"] = ModuleType("loaded_train")  # torch.compile looks for it by its name
    before = sys.modules.get("prepare")
    sys.modules["prepare"] = harness
    try:
        exec(compile(source, str(TRAIN), "exec"), vars(module))
    finally:
        if before is None:
            del sys.modules["prepare"]
        else:
            sys.modules["prepare"] = before
    vars(module).update(
        COMPUTE_DTYPE=torch.float32, attend=module.fused_attention, cross_entropy=module.plain_cross_entropy, compiling=False
    )
    return module
